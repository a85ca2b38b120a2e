"""The table of methods: the files of conf/method, and what plugins add."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore

from experiments import ROOT
from experiments.config.schema import MethodConfig, RuleConfig, Trains
from experiments.config.table import PluginError, Table, first_line

FILES = sorted((ROOT / "experiments" / "conf" / "method").glob("*.yaml"))
METHODS: Table[MethodConfig | Path] = Table(
    "method",
    {file.stem: file for file in FILES},
    about=lambda entry: first_line(entry if isinstance(entry, Path) else CLASSES.get(entry.rules[0].method, entry)),
)
CLASSES: dict[str, type] = {}  # the plugins' methods by class name, which the library finds them by
Delta = TypeVar("Delta", bound=type)


def method(name: str, *, lr: float, where: str | None = None, **hparams: Any) -> Callable[[Delta], Delta]:
    """Add a method of one rule to the table, as a decorator of its DeltaModule.

    lr: the default learning rate. where: the sites, as in `on`. hparams: of the class, for method.rules.0.hparams.
    """

    def add(delta: Delta) -> Delta:
        other = CLASSES.setdefault(delta.__name__, delta)
        if other.__module__ != delta.__module__:
            raise PluginError(
                f"method {name!r}: the plugins {other.__module__} and {delta.__module__} both define a class "
                f"{delta.__name__}, and a delta's file knows it by that name: rename one"
            )
        CLASSES[delta.__name__] = delta
        add_method(MethodConfig(name, lr, Trains.deltas, [RuleConfig(delta.__name__, where, hparams)]))
        return delta

    return add


def add_method(config: MethodConfig) -> None:
    """Add a method of any rules, or of none, to the table."""
    METHODS.add(config.name, config)
    ConfigStore.instance().store(group="method", name=config.name, node=config)
