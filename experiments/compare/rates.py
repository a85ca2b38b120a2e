"""The learning rate of a method: as many trials as every other method has, on a log grid around its default.

A choice sees trials, which hold what was measured on the validation set: of test scores they know nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from experiments.store.result import Failed, Result


class ChooseBy(Enum):
    """What makes a rate the best on the validation set.

    loss, the default: it counts every labelled token, while the metric of 50 to 100 examples, with a standard error
    of 0.05 or more, tells few rates apart. metric: the task's main one, and the loss where two rates tie in it.
    """

    loss = "loss"
    metric = "metric"


@dataclass(frozen=True)
class Trial:
    """A run of the search, as the validation set saw it."""

    lr: float
    metric: str = ""
    validation: dict[str, float] | None = None  # None where the run failed
    failure: str | None = None
    diverged: bool = False  # it failed by NaN: this rate is too high, which is an outcome too

    @classmethod
    def of(cls, row: Result) -> Trial:
        assert row.lr is not None
        if isinstance(row, Failed):
            return cls(row.lr, failure=row.failure, diverged=row.failure_kind == "nan")
        return cls(row.lr, row.metric, row.validation)

    def rank(self, by: ChooseBy) -> tuple[float, ...]:
        """Lower is better."""
        assert self.validation is not None
        loss = self.validation["loss"]
        return (loss,) if by is ChooseBy.loss else (-self.validation[self.metric], loss)


@dataclass(frozen=True)
class Choice:
    """The best rate of a method; lr is None where no trial is complete."""

    lr: float | None
    at_edge: bool
    notes: tuple[str, ...] = ()


def grid(default: float, trials: int, factor: float) -> list[float]:
    """The default and trials − 1 powers of factor around it, one more above where they are odd; default first.

    A rate has two digits: 3.3e-4, not a third of 1e-3.
    """
    powers = sorted(range(-((trials - 1) // 2), trials // 2 + 1), key=abs)
    return [default, *(float(f"{default * factor**power:.2g}") for power in powers[1:])]


def choose(trials: Sequence[Trial], rates: Sequence[float], by: ChooseBy) -> Choice:
    """The best of the trials, and what the grid leaves open.

    A rate is at the edge of its grid where no higher, or no lower, one was tried to its end: beyond may be better. A
    neighbour that diverged was tried, one that failed otherwise was not.
    """
    done = [trial for trial in trials if trial.validation is not None]
    notes = [f"lr {trial.lr:g} failed: {trial.failure}" for trial in trials if trial.failure is not None]
    tried = sorted(trial.lr for trial in trials if trial.validation is not None or trial.diverged)
    if missing := sorted(set(rates) - {trial.lr for trial in trials}):
        notes.append(f"not tried: lr {', '.join(f'{lr:g}' for lr in missing)}")
    if not done:
        return Choice(None, False, ("no trial is complete, so no learning rate was chosen", *notes))
    best = min(done, key=lambda trial: trial.rank(by))
    at_edge = best.lr in (tried[0], tried[-1])
    if at_edge and len(tried) == 1:
        notes.insert(0, f"lr {best.lr:g} is the only one tried")
    elif at_edge:
        notes.insert(
            0, f"lr {best.lr:g} is at the edge of its grid ({tried[0]:g} to {tried[-1]:g}); beyond may be better"
        )
    return Choice(best.lr, at_edge, tuple(notes))
