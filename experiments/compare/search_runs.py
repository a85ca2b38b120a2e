"""The search of all methods at once: what each wants is carried out together, until none wants anything more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from experiments.compare.axes import HEAD_RATE, RATE, Axis, settings
from experiments.compare.runs import Runs, StudyRun
from experiments.compare.search import Search, Terms, Wanted
from experiments.compare.trials import Outcome
from experiments.config.keys import override
from experiments.store.result import Result
from experiments.sweep.arm import Arm

QUICK = {RATE: "lr", HEAD_RATE: "head_lr"}  # what an arm is given without being composed again


class MethodSearch:
    """One method on one task: its search, and the run that each of its wishes is.

    usual: the arm at the method's defaults, in full length, scored on the validation set.
    """

    def __init__(self, task: str, method: str, usual: Arm, axes: Sequence[Axis], terms: Terms, folder: Path) -> None:
        self.task, self.method, self.usual, self.folder = task, method, usual, folder
        self.search = Search(axes, terms)
        self.rows: list[Result] = []
        self._arms: dict[str, Arm] = {}

    def run(self, wanted: Wanted) -> StudyRun:
        values = self.search.values(wanted.place)
        share = self.search.terms.rungs[wanted.rung]
        steps = max(1, round(self.usual.config.optim.steps * share))
        arm = at(self.usual, self.search.axes, values, self._arms).at(seed=wanted.seed, steps=steps)
        return StudyRun(self.task, self.method, arm, self.folder)


def at(usual: Arm, axes: Sequence[Axis], values: Mapping[str, Any], known: dict[str, Arm] | None = None) -> Arm:
    """The arm with these values of the axes; known: what was composed for the axes that need it, by their words."""
    quick = {QUICK[axis.name]: values[axis.name] for axis in axes if axis.name in QUICK}
    moved = [axis for axis in axes if axis.name not in QUICK and values[axis.name] != axis.default]
    words = [override(*each) for axis in moved for each in settings(axis, values[axis.name], usual.config).items()]
    known = {} if known is None else known
    arm = known.setdefault(" ".join(words), Arm((*usual.overrides, *words))) if words else usual
    return arm.at(**quick)


def carry_out(
    searches: Sequence[MethodSearch], runs: Runs, report: Callable[[str], None]
) -> list[tuple[StudyRun, str]]:
    """Carry out all that the searches want, round by round.

    Returns the runs that failed otherwise than by diverging, which is an outcome, and why.
    """
    failed: list[tuple[StudyRun, str]] = []
    while wanted := next_round(searches):
        asked = [each.run(want) for each, want in wanted]
        n_done = sum(run.complete is not None for run in asked)
        report(f"search: {len(asked)} runs, {n_done} of them done")
        for run, (each, want), row in zip(asked, wanted, runs.carry_out(asked)):
            outcome = Outcome.of(row)  # no more of the run's result reaches the search
            each.search.take(want, outcome)
            each.rows.append(row)
            if outcome.failure is not None and not outcome.diverged:
                failed.append((run, outcome.failure))
    return failed


def next_round(searches: Sequence[MethodSearch]) -> list[tuple[MethodSearch, Wanted]]:
    """What the searches want next, the first wish of each before the second of any."""
    wishes = [[(each, want) for want in each.search.wanted()] for each in searches]
    return [wish for turn in zip_longest(*wishes) for wish in turn if wish is not None]
