"""What a search knows of its trials: numbers of the validation set, and nothing of any test set."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from statistics import fmean
from typing import Any

from experiments.compare.axes import HEAD_RATE, RATE
from experiments.store.result import Complete, Result


class ChooseBy(Enum):
    """What makes a trial the best on the validation set.

    loss, the default: it counts every labelled token, while the metric of 50 to 100 examples, with a standard error
    of 0.05 or more, tells few rates apart. metric: the task's main one, and the loss where two trials tie in it.
    """

    loss = "loss"
    metric = "metric"


@dataclass(frozen=True)
class Outcome:
    """A run of the search, as the validation set saw it."""

    metric: str = ""
    validation: dict[str, float] | None = None  # None where the run failed
    failure: str | None = None
    diverged: bool = False  # it failed by NaN: this rate is too high, which is an outcome too

    @classmethod
    def of(cls, row: Result) -> Outcome:
        if isinstance(row, Complete):
            return cls(row.metric, row.validation)
        return cls(failure=row.failure, diverged=row.failure_kind == "nan")


@dataclass(frozen=True)
class Trial:
    """One setting of a method, and its runs: of the longest rung that it came to, an outcome a seed."""

    values: dict[str, Any]  # the keys are axes
    share: float = 1.0  # the share that its runs had of a test run's steps
    outcomes: dict[int, Outcome] = field(default_factory=dict)  # the keys are seeds

    @property
    def lr(self) -> float | None:
        """The rate: the head's where that alone is trained."""
        return self.values.get(RATE, self.values.get(HEAD_RATE))

    @property
    def failure(self) -> str | None:
        return next((each.failure for each in self.outcomes.values() if each.failure is not None), None)

    @property
    def diverged(self) -> bool:
        """Whether it diverged with any seed: such a rate is no choice."""
        return any(each.diverged for each in self.outcomes.values())

    @property
    def complete(self) -> bool:
        """Whether all of its runs came to their end, in full length."""
        return self.share == 1 and bool(self.outcomes) and self.failure is None

    def mean(self, name: str) -> float | None:
        """The mean over its seeds of `loss`, or of a metric, on the validation set; None where a run failed."""
        if not self.outcomes or self.failure is not None:
            return None
        return fmean(each.validation[name] for each in self.outcomes.values() if each.validation is not None)

    @property
    def loss(self) -> float | None:
        return self.mean("loss")

    @property
    def score(self) -> float | None:
        """The main metric."""
        return self.mean(next(iter(self.outcomes.values())).metric) if self.outcomes else None

    def rank(self, by: ChooseBy) -> tuple[float, ...]:
        """What its runs say of it, lower is better; of one without any, or with a failure, infinity."""
        loss, score = self.loss, self.score
        if loss is None or score is None:
            return (float("inf"),)
        return (loss,) if by is ChooseBy.loss else (-score, loss)


@dataclass(frozen=True)
class Choice:
    """The best setting of a method; values is None where no trial is complete."""

    values: dict[str, Any] | None
    at_edge: bool  # its rate, or another axis without an end, is at an edge: beyond may be better
    notes: tuple[str, ...] = ()

    @property
    def lr(self) -> float | None:
        return None if self.values is None else self.values.get(RATE, self.values.get(HEAD_RATE))
