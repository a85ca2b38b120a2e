"""Replay: examples of general text or of earlier tasks between those of the task, against forgetting.

    replay = load(config.data, data, objective)
    rows = [*objective.rows(data.train), *replayed_rows]
    order = replay.mixture(len(data.train), seed)
    batch = [rows[i] for i in order.indices(step, batch_size)]

Of the first P examples of a training exactly ⌊P · share⌋ are replayed, evenly spread; the sources take turns. They
stand in the place of examples of the task: the steps stay as many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from experiments.config.compose import task_config
from experiments.config.schema import DataConfig
from experiments.data.batch import indices
from experiments.data.entry import Entry
from experiments.data.record_files import Records
from experiments.data.sources import file_of
from experiments.tasks import load_task
from experiments.tasks.base import Example, Kind, TaskData, TaskError, content_sha256


@dataclass(frozen=True)
class Mixture:
    """The order of a training: which row stands at each of its places, a function of the place and the seed.

    Rows are numbered with the task's first and each source's after them. n_sources: the examples of each source.
    """

    n_task: int
    n_sources: tuple[int, ...]
    share: Fraction
    seed: int

    def indices(self, step: int, batch_size: int) -> list[int]:
        """The rows of a step's batch, from step 0. Without replay those of batches.indices."""
        return [self.row(place) for place in range(step * batch_size, (step + 1) * batch_size)]

    def row(self, place: int) -> int:
        earlier = int(place * self.share)  # places before this one that are replayed
        if int((place + 1) * self.share) == earlier:
            return indices(place - earlier, 1, self.n_task, self.seed)[0]
        turn, source = divmod(earlier, len(self.n_sources))
        first = self.n_task + sum(self.n_sources[:source])
        return first + indices(turn, 1, self.n_sources[source], self.seed)[0]

    def counts(self, n_places: int) -> list[int]:
        """Of the first places, how many are the task's, and then each source's."""
        total, n = int(n_places * self.share), len(self.n_sources)
        return [n_places - total, *((total - source + n - 1) // n for source in range(n))]


class Learns(Protocol):
    """What is asked of a run's objective here (experiments/objectives/base.py)."""

    def check_replayed(self, entry: str, kind: str, examples: Sequence[Example], task: str) -> None: ...


@dataclass(frozen=True)
class Source:
    entry: str  # the words of data.replay_from
    kind: Kind
    examples: list[Example]

    @property
    def sha256(self) -> str:
        return content_sha256(self.examples)


@dataclass(frozen=True)
class Replay:
    """What is replayed; share 0 and no sources where nothing is."""

    share: Fraction
    sources: tuple[Source, ...]

    def mixture(self, n_task: int, seed: int) -> Mixture:
        return Mixture(n_task, tuple(len(source.examples) for source in self.sources), self.share, seed)

    @property
    def sha256(self) -> str:
        """Of share and sources: a checkpoint of another mixture is none of this run. "" without replay."""
        contents = [str(self.share), *(source.sha256 for source in self.sources)]
        return hashlib.sha256("/".join(contents).encode()).hexdigest() if self.sources else ""

    def result(self, steps: int, batch_size: int) -> dict[str, Any] | None:
        """For the result of a run of so many steps: how often each source was drawn from, of how many examples."""
        if not self.sources:
            return None
        n_task, *drawn = self.mixture(1, 0).counts(steps * batch_size)
        return {
            "share": float(self.share),
            "n_task": n_task,
            "sources": {
                source.entry: {
                    "kind": source.kind, "sha256": source.sha256, "n_examples": len(source.examples), "n_drawn": n,
                }
                for source, n in zip(self.sources, drawn)
            },
        }  # fmt: skip


def load(config: DataConfig, data: TaskData, objective: Learns | None = None) -> Replay:
    """The sources of data.replay_from. objective: the run's, which may not be able to learn them beside the task.

    An entry is a path of records, all of them replayed, or a task as `task_config` reads it, whose train part is.
    Raises TaskError for a source that cannot be replayed, and for one that holds a prompt of the task's val or test.
    """
    if not config.replay:
        return Replay(Fraction(0), ())
    if not config.replay_from:
        raise TaskError(f"data.replay={config.replay}: data.replay_from names nothing to replay")
    sources = tuple(source(entry) for entry in config.replay_from)
    for one in sources:
        if objective is not None:
            objective.check_replayed(one.entry, one.kind, one.examples, data.name)
        no_leak(one, data)
    return Replay(Fraction(str(config.replay)), sources)


def source(entry: str) -> Source:
    path = file_of(entry)
    if path is None:
        task = task_config(entry)
        data = load_task(task, seed=task.seed)
        return Source(entry, data.kind, data.train)
    records = Records(entry)
    records.read(path, "train")
    if records.broken:
        raise TaskError(
            f"data.replay_from={entry}: {len(records.broken)} records cannot be used, first {records.broken[0]}; "
            f"`python -m experiments.data check {entry}` lists all"
        )
    data = records.data()
    return Source(entry, data.kind, data.train)


def no_leak(source: Source, data: TaskData) -> None:
    """Raise TaskError where a source holds a prompt of the validation or the test."""
    held = {
        entry.question: entry.place
        for part in ("val", "test")
        for entry in (Entry(part, i, e, data.kind) for i, e in enumerate(getattr(data, part)))
    }
    for i, example in enumerate(source.examples):
        own = Entry(source.entry, i, example, source.kind)
        if own.question in held:
            raise TaskError(
                f"data.replay_from={source.entry}: {own.place} has the prompt of {held[own.question]}, on which "
                f"task={data.name} is measured; take it out of one of them"
            )
