"""The short comparison, `make demo`: a language model untouched, tuned by four methods and by full SFT.

    python -m experiments.demo

Each arm is a fresh process, one at a time, at its method's default learning rate. Ends in a table and in one HTML
page, runs/demo/report.html; what is done already is not run again. Exits with 1 if an arm failed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments import ROOT
from experiments.report import compact_tables, gather, write
from experiments.store.tables import ending, terminal
from experiments.sweep.arm import Arm
from experiments.sweep.pool import carry_out

METHODS = ("none", "lora", "adapter", "prefix", "bitfit", "full")
STEPS = 100
N_TEST = 100
# Enough to see what each method forgets, and little beside the training; validation chooses nothing here.
SMALL = ("forgetting.n_text=16", "forgetting.n_kl=6", "task.n_val=20")
HOW = (
    "Every trained arm sees the same {steps} batches in the same order, at its method's default learning rate, and "
    "every arm is scored on the same {n_test} test sentences by greedy generation. One seed: differences within the "
    "intervals are no findings."
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.demo", description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps of every arm (%(default)s)")
    parser.add_argument("--n-test", type=int, default=N_TEST, help="test examples (%(default)s)")
    parser.add_argument("--model", default="smollm2", help="of experiments/conf/model (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS, help="these arms alone")
    parser.add_argument("--out", default="runs/demo", help="folder for the runs and the report (%(default)s)")
    given = parser.parse_args(argv)

    folder = Path(given.out) if Path(given.out).is_absolute() else ROOT / given.out
    shared = (
        f"model={given.model}",
        "task=ha_json",
        f"task.n_test={given.n_test}",
        f"optim.steps={given.steps}",
        *SMALL,
        f"out={folder}",
    )
    arms = [Arm((f"method={method}", *shared)) for method in given.only]
    console = terminal()
    rows = carry_out(arms, slots=1, console=console)
    title = f"{given.model} on ha_json, {given.steps} steps"
    # The arms of this very demo, of all that may lie in the folder.
    content = gather([arm.result for arm in arms], title=title)
    content["how"] = HOW.format(steps=given.steps, n_test=given.n_test)
    for table in compact_tables(content["runs"]):
        console.print(table)
    for row in rows:
        if row.failure is not None:
            console.print(f"{row.method} failed: {row.failure}", markup=False, style="red")
    page = folder / "report.html"
    write(content, page)
    console.print(f"report: {page}", markup=False, soft_wrap=True)
    return 1 if any(row.failure is not None for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(ending(main))
