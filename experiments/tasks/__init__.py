"""The table of tasks: each has a module with load(config, seed) -> TaskData; its keys: experiments/config/tasks.py."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from experiments.tasks.base import TaskData, TaskError

TASKS = {
    "general": "experiments.tasks.general",
    "ha_intent": "experiments.tasks.home.ha_intent",
    "ha_json": "experiments.tasks.home.ha_json",
    "hub": "experiments.tasks.hub",
    "jsonl": "experiments.tasks.jsonl",
    "multilingual": "experiments.tasks.home.multilingual",
    "sql": "experiments.tasks.sql.task",
    "domain": "experiments.tasks.domain",
    "safety": "experiments.tasks.safety.task",
    "style": "experiments.tasks.style",
    "instruct": "experiments.tasks.instruct.task",
}


def load_task(config: Any, seed: int = 0) -> TaskData:
    """The data of `config.name`; `seed` draws the examples and the split, and nothing else does."""
    if config.name not in TASKS:
        raise TaskError(f"unknown task {config.name!r}; there are: {', '.join(TASKS)}")
    return import_module(TASKS[config.name]).load(config, seed)
