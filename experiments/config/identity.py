"""What makes a run the run that it is: a hash of its configuration, its files and its sources."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from experiments.config.compose import task_config
from experiments.config.plugins import source_sha256
from experiments.config.schema import Config, ModelConfig, plain
from experiments.config.sources import sources_sha256
from experiments.config.tasks import FilesConfig

HERE = "here"  # stands for a path whose contents are in the key: a file is one run, however its path is spelled
FOLDERS = ("path", "databases")  # keys of a task that may name a directory


def key(config: Config) -> str:
    """A hash of everything that can change the outcome, the contents of local files and the sources included.

    A model by its id on a hub counts as its id: pin what must not move, by model.revision or task.revision.
    """
    return _hash({"settings": settings(config), "sources": sources_sha256(config)})


def settings_key(config: Config) -> str:
    """The same without the sources: alike for runs of one configuration by different versions of the code."""
    return _hash(settings(config))


def settings(config: Config) -> dict[str, Any]:
    """What is configured that can change the outcome, with hashes in the place of files."""
    values = plain(config)
    del values["out"], values["log_every"], values["track"], values["optim"]["checkpoint_every"]
    del values["method"]["lr_from"]
    if config.method.module is None:
        del values["method"]["module"]
    else:
        values["method"]["module"] = source_sha256(config.method.module)
    if config.plugins:
        values["plugins"] = list(dict.fromkeys(source_sha256(name) for name in config.plugins))
    else:
        del values["plugins"]
    for name in [name for name in ("revision", "today") if values["model"][name] == getattr(ModelConfig(), name)]:
        del values["model"][name]  # what is not given leaves a run the run that it was before there was the key
    if isinstance(config.task, FilesConfig):
        values["files"] = _contents(config.task)
        if values["task"].get("revision", ...) is None:
            del values["task"]["revision"]
        for name, value in values["task"].items():
            values["task"][name] = _spelled(name, value)
    if config.model.path and Path(config.model.path).is_dir():
        folder = Path(config.model.path)
        values["model_files"] = [[str(file.relative_to(folder)), _digest(file)] for file in _under(folder)]
        values["model"]["path"] = HERE
    others = [
        *config.forgetting.texts,
        *config.forgetting.tasks,
        *(config.data.replay_from if config.data.replay else []),
    ]
    if contents := {_plain(entry): _contents_of(entry) for entry in others if "=" in entry}:  # others have no files
        values["files_of_others"] = contents
    if config.start_from:
        values["start_from"] = _sha256(Path(config.start_from))
    for name in ("texts", "tasks"):
        values["forgetting"][name] = [_sha256(Path(entry)) or _plain(entry) for entry in values["forgetting"][name]]
    values["data"]["replay_from"] = [HERE if Path(e).is_file() else _plain(e) for e in config.data.replay_from]
    if config.data.replay:
        values["replay"] = [_sha256(Path(entry)) for entry in config.data.replay_from]  # None of a task
    else:
        del values["data"]["replay_from"]
    return values


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def run_name(config: Config) -> str:
    return f"{config.model.name}-{config.task.name}-{config.method.name}-s{config.seed}-{key(config)}"


def _spelled(name: str, value: Any) -> Any:
    """A task's value, but for the name of a file or of a directory, of which the contents count."""
    here = (
        isinstance(value, str)
        and name != "name"
        and (Path(value).is_file() or (name in FOLDERS and Path(value).is_dir()))
    )
    return HERE if here else value


def _plain(entry: str) -> str:
    """An entry that is a task, without the names of the files that it reads."""
    words = (word.partition("=") for word in entry.split())
    return " ".join(f"{key}{sign}{_spelled(key.rpartition('.')[2], value)}" for key, sign, value in words)


def _contents_of(entry: str) -> list[str | None]:
    task = task_config(entry)
    return _contents(task) if isinstance(task, FilesConfig) else []


def _contents(task: FilesConfig) -> list[str | None]:
    """The hashes of a task's own files, and of those under its directories."""
    named = [getattr(task, each.name) for each in fields(task) if each.name != "name"]
    paths = [Path(name) for name in named if isinstance(name, str)]
    folders = [Path(name) for key in FOLDERS if (name := getattr(task, key, None))]
    return [
        *(_sha256(path) for path in paths if path not in folders),
        *(_digest(file) for folder in folders if folder.is_dir() for file in _under(folder)),
    ]


def _under(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _digest(path: Path) -> str:
    """The hash of a file; of a large one, of its size and 64 even pieces, as training moves all weights."""
    size = path.stat().st_size
    n, piece = 64, 1 << 18
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= n * piece:
            found.update(file.read())
        else:
            for i in range(n):
                file.seek(i * (size - piece) // (n - 1))
                found.update(file.read(piece))
    return found.hexdigest()


def _sha256(path: Path) -> str | None:
    """None for a file that is not there: loading the task reports it."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
