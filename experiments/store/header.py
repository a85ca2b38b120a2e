"""What a result says of its run before anything is measured; without torch, for a sweep that records a dead one."""

from __future__ import annotations

from typing import Any

from experiments.config.identity import key
from experiments.config.schema import Config, Trains, plain
from experiments.store.result import FORMAT


def head(config: Config, environment: dict[str, Any]) -> dict[str, Any]:
    """The first part of result.json, of a complete run; a failed one's status, error and kind go over it."""
    trains = config.method.trains is not Trains.nothing
    return {
        "format": FORMAT,
        "status": "complete",
        "error": None,
        "failure_kind": None,
        "config": plain(config),
        "key": key(config),
        "method": config.method.name,
        "model": config.model.name,
        "task": config.task.name,
        "seed": config.seed,
        "lr": config.optim.lr if trains else None,
        "steps": config.optim.steps if trains else 0,
        "batch_size": config.optim.batch_size,
        "environment": environment,
    }
