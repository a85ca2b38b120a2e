"""One task of a comparison as far as it has come: what was searched, chosen, tested, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass, field

from experiments.compare.trials import Choice, Trial
from experiments.store.result import Complete, Result


@dataclass
class TaskStudy:
    """One task of a comparison, filled stage by stage; dictionaries are by method."""

    task: str
    methods: tuple[str, ...] = ()  # those that are compared, without baselines
    baselines: tuple[str, ...] = ()
    head_lr: float | None = None  # the task head's rate, for all methods; None where the model has none
    trials: dict[str, list[Trial]] = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)
    searched: dict[str, list[Result]] = field(default_factory=dict)  # the search's runs, for what they cost
    tested: dict[str, list[Complete]] = field(default_factory=dict)  # complete runs, a row a seed
    shared: set[str] = field(default_factory=set)  # keys of tested runs that did not have the machine to themselves
    timed: dict[str, Complete] = field(default_factory=dict)  # short runs of their own that were alone
    missing: list[str] = field(default_factory=list)  # runs that failed, a line each
    pending: list[str] = field(default_factory=list)  # runs still to be tested
    notes: dict[str, list[str]] = field(default_factory=dict)

    def note(self, method: str, *remarks: str) -> None:
        """Add the remarks that are not empty to the method's notes."""
        self.notes.setdefault(method, []).extend(remark for remark in remarks if remark)

    def alone(self, method: str) -> bool:
        """Whether every tested run of the method had the machine to itself."""
        return not any(row.key in self.shared for row in self.tested.get(method, ()))
