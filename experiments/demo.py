"""The short comparison, `make demo`: a language model untouched, tuned by four methods and by full SFT.

    python -m experiments.demo --minutes 12

Each arm is a fresh process, one at a time, at its method's default learning rate. A few steps are timed first, and all
arms get as many as the minutes hold; --steps says how many instead. Ends in a table and in one HTML page,
runs/demo/report.html; what is done already is not run again. Exits with 1 if an arm failed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console

from experiments import ROOT
from experiments.compare.resolution import resolution
from experiments.config.schema import Dtype
from experiments.report import compact_tables, gather, write
from experiments.store.result import Complete, Result
from experiments.store.tables import ending, terminal
from experiments.support.files import write_json
from experiments.support.output import lasting_output
from experiments.sweep.arm import Arm
from experiments.sweep.pool import carry_out

METHODS = ("none", "lora", "adapter", "prefix", "bitfit", "full")
TIMED = ("lora", "full")  # a step of the other three takes no longer than LoRA's
MINUTES = 12.0
FEWEST, MOST, MULTIPLE = 20, 100, 5  # steps
DRIFT = 1.15  # what a machine's speed may change by between the timing and the arms
N_TEST = 100
# Enough to see what each method forgets, and little beside the training; validation chooses nothing here.
SMALL = ("optim.batch_size=4", "forgetting.n_text=16", "forgetting.n_kl=6", "task.n_val=8", "eval.stop_hopeless=true")
HOW = (
    "Every trained arm sees the same {steps} batches in the same order, at its method's default learning rate, and "
    'every arm is scored on the same {n_test} test sentences by greedy generation; a text that ends in "…" was stopped '
    "where no answer could come of it any more."
)
TELLS = (
    "What one seed and {n} sentences can tell: a score has a standard error of up to {score_se:.2f}, the difference of "
    "two arms one of up to {difference_se:.2f}. A test at 5 % would notice a difference of {smallest:.2f} four times "
    "in five; arms that lie closer are not told apart here. The luck of the one seed comes on top: with the same seed, "
    "a machine that rounds otherwise moved scores by up to 0.06."
)

Costs = Mapping[str, tuple[float, float, float]]  # seconds of a step, around the steps, of the evaluation


@dataclass(frozen=True)
class Plan:
    """What the arms of a demo share: their steps, what they compute in (None: what the model says), and why."""

    steps: int
    dtype: str | None
    why: str


def main(argv: Sequence[str] | None = None) -> int:
    began = time.monotonic()
    given = arguments(argv)
    folder = Path(given.out) if Path(given.out).is_absolute() else ROOT / given.out
    console = terminal()
    plan = planned(given, folder, console, began)
    arms = [arm(given, folder, method, plan.dtype, plan.steps) for method in given.only]
    console.print(plan.why, markup=False)
    rows = carry_out(arms, slots=1, console=console)
    # The arms of this very demo, of all that may lie in the folder.
    content = gather([arm.result for arm in arms], title=f"{given.model} on ha_json, {plan.steps} steps")
    notes = [HOW.format(steps=plan.steps, n_test=given.n_test), plan.why, *tells(rows), *late(given, plan, began)]
    content["how"] = "\n\n".join(notes)
    for table in compact_tables(content["runs"]):
        console.print(table)
    for note in notes[2:]:
        console.print(note, markup=False)
    for row in rows:
        if row.failure is not None:
            console.print(f"{row.method} failed: {row.failure}", markup=False, style="red")
    page = folder / "report.html"
    write(content, page)
    console.print(f"report: {page}", markup=False, soft_wrap=True)
    return 1 if any(row.failure is not None for row in rows) else 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.demo", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="all in all (%(default)g)")
    parser.add_argument("--steps", type=int, help="optimizer steps of every arm, however long they take")
    parser.add_argument("--n-test", type=int, default=N_TEST, help="test examples (%(default)s)")
    parser.add_argument("--model", default="smollm2", help="of experiments/conf/model (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS, help="these arms alone")
    parser.add_argument("--out", default="runs/demo", help="folder for the runs and the report (%(default)s)")
    return parser.parse_args(argv)


def arm(given: argparse.Namespace, folder: Path, method: str, dtype: str | None, steps: int) -> Arm:
    """The arm of a method. The untrained one is the same whatever steps the others have: it takes none."""
    shared = ("task=ha_json", f"task.n_test={given.n_test}", *SMALL, f"out={folder}")
    precise = () if dtype is None else (f"model.dtype={dtype}",)
    steps = 1 if method == "none" else steps
    return Arm((f"method={method}", f"model={given.model}", *precise, *shared, f"optim.steps={steps}"))


def planned(given: argparse.Namespace, folder: Path, console: Console, began: float) -> Plan:
    """The plan of the same command before, out of the folder, or a new one."""
    asked = {name: value for name, value in vars(given).items() if name != "out"}
    asked = json.loads(json.dumps(asked))  # the types that it is read with again
    file = folder / "demo.json"
    if file.is_file():
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            if stored["asked"] == asked:
                return Plan(**stored["plan"])
        except (ValueError, KeyError, TypeError) as error:
            console.print(f"{file}: not a readable plan ({error}); it is made again", markup=False)
    plan = new_plan(given, folder, console, began)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, {"asked": asked, "plan": asdict(plan)})
    return plan


def new_plan(given: argparse.Namespace, folder: Path, console: Console, began: float) -> Plan:
    """As many steps for all arms as the minutes hold, by timed steps and a run of the untrained arm."""
    trained = [method for method in given.only if method != "none"]
    untrained = arm(given, folder, "none", None, 1)
    to_time = [] if given.steps else [method for method in TIMED if method in trained] or trained[:1]
    dtype, costs = None, {}
    if to_time or untrained.config.model.dtype is Dtype.bf16:
        console.print("timing a few steps; the model is fetched where it is not there yet")
        runs = {method: arm(given, folder, method, None, 1).overrides for method in to_time}
        dtype, costs = apart(runs, untrained.config.model.dtype is Dtype.bf16)
    note = " Computed in fp32, since this processor has no fast products in bf16." if dtype else ""
    if given.steps:
        return Plan(given.steps, dtype, f"{given.steps} steps, as asked.{note}")
    if not costs:
        return Plan(FEWEST, dtype, f"{FEWEST} steps, as nothing could be timed.{note}")
    (none,) = carry_out([arm(given, folder, "none", dtype, 1)], slots=1, console=console)
    step_s, fixed_s = priced(trained, costs, around(none) if isinstance(none, Complete) else 0.0)
    left_s = given.minutes * 60 - (time.monotonic() - began)
    steps = sized(left_s, step_s, fixed_s)
    return Plan(steps, dtype, why(given.minutes, steps, step_s, fixed_s, left_s) + note)


def apart(runs: Mapping[str, Sequence[str]], choose: bool) -> tuple[str | None, Costs]:
    """`measurements` in a process of its own, which alone needs torch and a model's memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measurements, runs, choose).result()


def measurements(runs: Mapping[str, Sequence[str]], choose: bool) -> tuple[str | None, Costs]:
    """What the runs cost, and in what dtype: fp32 where one may choose and bf16 is slow here, else (None) their own."""
    from experiments.run.timing import costs, precision

    dtype = "fp32" if choose and precision() == "fp32" else None
    more = () if dtype is None else (f"model.dtype={dtype}",)
    return dtype, costs({name: (*overrides, *more) for name, overrides in runs.items()})


def around(none: Complete) -> float:
    """Seconds of a run beside training and evaluation, by the untrained one.

    Half of its probes of forgetting are the base's, which stand in the cache for the runs after it.
    """
    return none.seconds.total - none.seconds.evaluate - none.seconds.forgetting / 2


def priced(trained: Sequence[str], costs: Costs, around_s: float) -> tuple[float, float]:
    """Seconds of a step of every trained arm together, and of all that they do beside their steps.

    around_s: of each, beside training and evaluation. A method that was not timed costs what the dearest
    of the timed deltas does.
    """
    deltas = [cost for method, cost in costs.items() if method != "full"] or list(costs.values())
    others = tuple(map(max, zip(*deltas)))
    chosen = [costs.get(method, others) for method in trained]
    return sum(step for step, _, _ in chosen), sum(around_s + own + evaluation for _, own, evaluation in chosen)


def sized(left_s: float, step_s: float, fixed_s: float) -> int:
    """The steps of every arm that fit in the seconds left, even where all is DRIFT times slower than when timed."""
    steps = int((left_s / DRIFT - fixed_s) / step_s)
    return min(max(steps - steps % MULTIPLE, FEWEST), MOST)


def why(minutes: float, steps: int, step_s: float, fixed_s: float, left_s: float) -> str:
    """How the steps were chosen, in a sentence."""
    wanted = (steps * step_s + fixed_s) / 60
    text = (
        f"{steps} steps: a step of all trained arms together takes {step_s:.1f} s here, and what they do beside their "
        f"steps {fixed_s / 60:.1f} minutes, of {left_s / 60:.1f} that were left of {minutes:g}."
    )
    if steps == FEWEST and wanted > left_s / 60:
        text += f" They take about {wanted:.0f} minutes; with fewer the table would show nothing."
    return text


def tells(rows: Sequence[Result]) -> list[str]:
    """What the arms' scores can tell, in words; nothing of fewer than two test sentences."""
    scores = [row.scores for row in rows if isinstance(row, Complete) and len(row.scores) > 1]
    if not scores:
        return []
    found = resolution(scores)
    return [TELLS.format(smallest=found.smallest, **asdict(found))]


def late(given: argparse.Namespace, plan: Plan, began: float) -> list[str]:
    """That the budget was missed, where there was one and it was."""
    took = (time.monotonic() - began) / 60
    if given.steps or took <= given.minutes:
        return []
    slower = "with fewer steps the table would show nothing", "the machine was slower than when timed"
    return [f"It took {took:.1f} minutes of a budget of {given.minutes:g}: {slower[plan.steps > FEWEST]}."]


if __name__ == "__main__":
    lasting_output()
    raise SystemExit(ending(main))
