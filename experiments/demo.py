"""The short comparison, `make demo`: a language model untouched, tuned by four methods and by full SFT.

    python -m experiments.demo

Each arm is a fresh process. Ends in a table, a markdown report and a plot under runs/demo; what is done
already is not run again. Exits with 1 if an arm failed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from experiments.arms import ROOT, Arm
from experiments.plot import quality_plot
from experiments.pool import carry_out
from experiments.rows import Row
from experiments.tables import ending, notes, rich_table, terminal, write_markdown

METHODS = ("none", "lora", "adapter", "prefix", "bitfit", "full")
STEPS = 100
N_TEST = 100
N_SAMPLES = 5
HOW = (
    "Made by `python -m experiments.demo` (`make demo`): every trained arm sees the same {steps} batches in "
    "the same order, and every arm is scored on the same {n_test} test sentences by greedy generation. Each "
    "method runs at its default learning rate, which was chosen on this task's validation set."
)


def samples(arms: Sequence[Arm], rows: Sequence[Row]) -> str:
    """Predictions of the complete arms side by side, on test prompts at even distances."""
    said: dict[str, dict[str, dict]] = {}  # by method, then by prompt
    for arm, row in zip(arms, rows):
        if row.failure is None:
            lines = (arm.result.parent / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
            said[row.method] = {prediction["prompt"]: prediction for prediction in map(json.loads, lines)}
    if not said:
        return ""
    first = list(next(iter(said.values())).values())
    parts = ["## Predictions side by side", f"{N_SAMPLES} test prompts at even distances, right or wrong."]
    for example in first[:: max(1, len(first) // N_SAMPLES)][:N_SAMPLES]:
        parts.append(f"{code(example['prompt'])}, gold {code(example['gold'])}")
        answers = [(method, predictions[example["prompt"]]) for method, predictions in said.items()]
        parts.append(
            "\n".join(
                f"- {method}, {'right' if answer['correct'] else 'wrong'}: {code(answer['prediction'])}"
                for method, answer in answers
            )
        )
    return "\n\n".join(parts)


def code(text: str, longest: int = 160) -> str:
    """One line of markdown code: white space becomes single spaces, a backtick an apostrophe."""
    line = " ".join(text.split()).replace("`", "'")
    return f"`{line[:longest]}…`" if len(line) > longest else f"`{line}`" if line else "(nothing)"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.demo", description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps of every arm (%(default)s)")
    parser.add_argument("--n-test", type=int, default=N_TEST, help="test examples (%(default)s)")
    parser.add_argument("--model", default="smollm2", help="of experiments/conf/model (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS, help="these arms alone")
    parser.add_argument("--out", default="runs/demo", help="folder for the runs and the report (%(default)s)")
    given = parser.parse_args(argv)

    shared = (
        f"model={given.model}",
        "task=ha_json",
        f"task.n_test={given.n_test}",
        f"optim.steps={given.steps}",
    )
    arms = [Arm((f"method={method}", *shared, f"out={given.out}")) for method in given.only]
    console = terminal()
    rows = carry_out(arms, slots=1, console=console)
    folder = ROOT / given.out
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{given.model} on ha_json, {given.steps} steps"
    plot = quality_plot(rows, folder / "plot.png", title)
    how = HOW.format(steps=given.steps, n_test=given.n_test)
    write_markdown(folder / "report.md", title, how, rows, plot, samples(arms, rows))
    console.print(rich_table(rows, title))
    for line in notes(rows):
        console.print(line, markup=False)
    console.print(f"report: {Path(given.out) / 'report.md'}", f"plot: {Path(given.out) / 'plot.png'}", sep="\n")
    return 1 if any(row.failure is not None for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(ending(main))
