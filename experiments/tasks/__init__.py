"""Tasks: what is learned, and how answers are scored. The table of them is in experiments/config/tasks.py."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from experiments.config.tasks import TASKS
from experiments.tasks.base import TaskData, TaskError
from experiments.tasks.training_draw import redrawn


def load_task(config: Any, seed: int = 0, draw: int | None = None) -> TaskData:
    """The data of `config.name`; `seed` draws the examples and the split, and `draw`, where it is given, which of a
    larger pool are trained on: validation and test are the same for every draw."""
    if config.name not in TASKS:
        raise TaskError(f"unknown task {config.name!r}; there are: {', '.join(TASKS)}")
    load = TASKS[config.name].load
    if isinstance(load, str):
        load = import_module(load).load
    return load(config, seed) if draw is None else redrawn(load, config, seed, draw)
