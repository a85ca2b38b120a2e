"""The decorators by which a module of one's own adds to the package: `plugins=[mine]`, docs/extending.

    from experiments.extend import method

    @method("scale", lr=1e-2, where="*.up_proj")
    class Scale(dt.DeltaModule): ...

Each adds to one table; `python -m experiments.list` shows them all. A room is imported with the first of its names
that is asked for, so that a plugin with a task alone waits for no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.config.methods import add_method, method
    from experiments.config.schema import MethodConfig, RuleConfig
    from experiments.config.tasks import TaskConfig, task
    from experiments.models.table import model
    from experiments.objectives import objective
    from experiments.report.sections import section
    from experiments.tasks.base import Example, Scores, TaskData, content_sha256
    from experiments.tasks.metrics import metric, of_each
    from experiments.training.tracker import Tracker
    from experiments.training.tracker_table import tracker

ROOMS = {
    "experiments.config.methods": ("add_method", "method"),
    "experiments.config.schema": ("MethodConfig", "RuleConfig"),
    "experiments.config.tasks": ("TaskConfig", "task"),
    "experiments.models.table": ("model",),
    "experiments.objectives": ("objective",),
    "experiments.report.sections": ("section",),
    "experiments.tasks.base": ("Example", "Scores", "TaskData", "content_sha256"),
    "experiments.tasks.metrics": ("metric", "of_each"),
    "experiments.training.tracker": ("Tracker",),
    "experiments.training.tracker_table": ("tracker",),
}
HOMES = {name: room for room, names in ROOMS.items() for name in names}

__all__ = [
    "Example",
    "MethodConfig",
    "RuleConfig",
    "Scores",
    "TaskConfig",
    "TaskData",
    "Tracker",
    "add_method",
    "content_sha256",
    "method",
    "metric",
    "model",
    "objective",
    "of_each",
    "section",
    "task",
    "tracker",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"experiments.extend has no {name!r}; it has {', '.join(sorted(HOMES))}")
    return getattr(import_module(HOMES[name]), name)
