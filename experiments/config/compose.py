"""From overrides to a configuration, as Hydra composes it from conf/ and the dataclasses."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from operator import mul
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from omegaconf import DictConfig, OmegaConf

from experiments import ROOT
from experiments.config import plugins
from experiments.config.schema import Config, plain
from experiments.config.table import TABLES
from experiments.config.tasks import TaskConfig, store_once, store_tasks

CONF = ROOT / "experiments" / "conf"


KNOWN: dict[tuple[str, ...], DictConfig] = {}  # what was composed of these overrides, while nothing is stored anew
STORED: list[ConfigNode] = []  # the nodes that it was composed with


def register() -> None:
    """Let Hydra know the schema, the group of tasks, and ${times:a,b} in its files."""
    OmegaConf.register_new_resolver("times", mul, replace=True)
    store_once("schema", Config)
    store_tasks()


def composed(overrides: Sequence[str]) -> Config:
    """What these overrides make of conf/config.yaml, plugins loaded. Raises Hydra's error for one that does not fit.

    Also inside a run or a multirun, which is a running Hydra: it refuses to begin twice.
    """
    plugins.load_for(overrides)
    register()
    stored = [*nodes(ConfigStore.instance().repo)]
    if len(stored) != len(STORED) or any(one is not other for one, other in zip(stored, STORED)):
        KNOWN.clear()
        STORED[:] = stored
    if tuple(overrides) not in KNOWN:
        KNOWN[tuple(overrides)] = fresh(overrides)
    config = OmegaConf.to_object(KNOWN[tuple(overrides)])
    assert isinstance(config, Config)
    return complete(config)


def fresh(overrides: Sequence[str]) -> DictConfig:
    """What Hydra composes, which takes it 0.1 s."""
    outer = get_gh_backup()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", overrides=list(overrides))
    finally:
        restore_gh_from_backup(outer)


def nodes(repo: Mapping[str, Any]) -> Iterator[ConfigNode]:
    """Everything that stands in a ConfigStore."""
    for entry in repo.values():
        if isinstance(entry, ConfigNode):
            yield entry
        else:
            yield from nodes(entry)


def complete(config: Config) -> Config:
    """The same with every plugin that it uses among its plugins, the installed ones too: so they are in its key."""
    if not any(table.origins for table in TABLES):
        return config
    values = plain(config)
    del values["track"], values["plugins"]  # a tracker changes no outcome
    given = set(map(plugins.module_of, config.plugins))
    more = [name for name in plugins.used(values) if plugins.module_of(name) not in given]
    return replace(config, plugins=[*config.plugins, *more])


def task_config(entry: str) -> TaskConfig:
    """A task by its name and, after it, overrides of its fields: "sql", "jsonl task.train=a.jsonl task.n_test=5"."""
    name, *overrides = shlex.split(entry)
    return composed([f"task={name}", *overrides]).task
