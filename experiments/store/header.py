"""What a result says of its run before anything is measured; without torch, for a sweep that records a dead run."""

from __future__ import annotations

from typing import Any

from experiments.config.identity import key
from experiments.config.schema import Config, Trains, plain
from experiments.config.sources import sources_sha256
from experiments.store.result import Complete, Environment, Failed, Kind, Measured


def complete(config: Config, environment: dict[str, Any], measured: Measured) -> Complete:
    """The result of a run that came to its end."""
    about = header(config, environment)
    return Complete(**about, **vars(measured), status="complete", error=None, failure_kind=None)


def failed(config: Config, environment: dict[str, Any], error: str, kind: Kind) -> Failed:
    """The result of a run that did not."""
    return Failed(**header(config, environment), status="failed", error=error, failure_kind=kind)


def header(config: Config, environment: dict[str, Any]) -> dict[str, Any]:
    """The keys that every result of this run has."""
    trains = config.method.trains is not Trains.nothing
    return {
        "config": plain(config),
        "key": key(config),
        "sources_sha256": sources_sha256(config),
        "method": config.method.name,
        "model": config.model.name,
        "task": config.task.name,
        "seed": config.seed,
        "lr": config.optim.lr if trains else None,
        "steps": config.optim.steps if trains else 0,
        "batch_size": config.optim.batch_size,
        "environment": Environment(**environment),
    }
