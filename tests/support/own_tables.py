"""Tests that load plugins: a folder of their own, and every table afterwards as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

import deltatune as dt
from experiments.config.methods import CLASSES
from experiments.config.table import TABLES


@pytest.fixture(autouse=True)
def tables_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of one's own to give commands in; what plugins add and import is taken out again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    kept = [(table, dict(table), dict(table.origins)) for table in TABLES]
    modules, classes, deltas = set(sys.modules), dict(CLASSES), dict(dt.DeltaModule.registry)
    repo = ConfigStore.instance().repo
    groups = {
        name: dict(repo[name]) if name in repo else None for name in ("task", "method", "model")
    }  # what Hydra chooses from
    yield
    for table, entries, origins in kept:
        table.clear()
        table.update(entries)
        table.origins = origins
    CLASSES.clear()
    CLASSES.update(classes)
    dt.DeltaModule.registry.clear()
    dt.DeltaModule.registry.update(deltas)
    for name, group in groups.items():
        if group is None:
            repo.pop(name, None)
        else:
            repo[name] = group
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
