"""Where examples come from, whatever they are called: what is replayed and what is probed are never of one source.

An entry of the configuration is a file of records or a task with overrides of its fields. Its marks are the files that
it reads, by their real paths and by their contents, the dataset or the task that it names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from experiments.config.compose import task_config
from experiments.config.tasks import HubConfig, JsonlConfig, TaskConfig
from experiments.tasks.base import TaskError
from experiments.tasks.public.table import PUBLIC

BUNDLED = {"prose": Path(__file__).with_name("prose.jsonl")}  # files of texts that the package brings, by their names
Named = tuple[str, str]  # a key of the configuration, and one of its entries


def file_of(entry: str) -> Path | None:
    """The file that an entry is; None of a task, whose last words may name a file too."""
    path = BUNDLED.get(entry, Path(entry))
    return path if path.suffix == ".jsonl" and (path.is_file() or "=" not in entry) else None


def marks(entry: str) -> set[str]:
    """What an entry's source is known by; entries that share one mark are of one source."""
    path = file_of(entry)
    return set(marks_of_file(path)) if path is not None else set(marks_of_task(task_config(entry)))


def marks_of_file(path: Path) -> Iterator[str]:
    """The file, and its contents wherever they lie."""
    yield f"the file {path.resolve()}"
    if path.is_file():
        yield f"the contents {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def marks_of_task(config: TaskConfig) -> Iterator[str]:
    """The task, unless it only names data; its datasets; every file that one of its keys names."""
    if type(config) not in (JsonlConfig, HubConfig):
        yield from marks_of_name(config.name)
    for each in fields(config):
        value = getattr(config, each.name)
        if not isinstance(value, str) or each.name == "name":
            continue
        path = Path(value)
        if path.is_file():
            yield from marks_of_file(path)
        elif each.name == "path":
            subset = getattr(config, "subset", None)
            yield dataset(str(path.resolve()) if path.is_dir() else value, subset)


def marks_of_name(name: str) -> Iterator[str]:
    """The task; of a public one its datasets, and the tasks that it is made of."""
    yield f"the task {name}"
    if (public := PUBLIC.get(name)) is not None:
        for member in public.members:
            yield from marks_of_name(member)
        for source in (*public.splits.train, *public.splits.val, *public.splits.test):
            yield dataset(source.hub, source.subset)


def dataset(name: str, subset: str | None) -> str:
    return f"the dataset {name}{f', {subset}' if subset else ''}"


def check_apart(probes: Iterable[Named], replayed: Iterable[Named]) -> None:
    """Raise TaskError where a probe is of the source of something that is replayed, naming both."""
    known = [(key, entry, marks(entry)) for key, entry in replayed]
    for key, entry in probes:
        own = marks(entry) if known else set()
        for other_key, other, theirs in known:
            if shared := sorted(own & theirs):
                raise TaskError(
                    f"{key}={entry} and {other_key}={other} are of one source, {shared[-1]}: what is replayed is "
                    f"learned, so this probe would not show what was forgotten; probe with another, or replay another "
                    f"(texts that come along: {', '.join([*BUNDLED, 'general'])})"
                )
