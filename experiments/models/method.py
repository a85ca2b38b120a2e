"""The rules of a method's configuration, with their classes."""

from __future__ import annotations

import deltatune as dt
from experiments.config.plugins import load
from experiments.config.schema import Config, MethodConfig


def rules(config: Config, task_head: bool) -> list[dt.Rule]:
    """The method's rules and, of a model with a task head, the rule for that."""
    chosen = [method_class(config.method, rule.method).on(rule.where, **rule.hparams) for rule in config.method.rules]
    return [*chosen, dt.Head.on()] if task_head else chosen


def method_class(method: MethodConfig, name: str) -> type[dt.DeltaModule]:
    """The class that a rule names: of the library, or of a plugin. Raises ValueError, or PluginError."""
    if method.module is not None:
        load([method.module], key="method.module")  # defining a class registers it
    own = dt.DeltaModule.registry.get(name)
    if own is not None and dt.METHODS.get(name, own) is not own:
        raise ValueError(f"method.rules: {own.__module__} defines another {name} than deltatune's: rename its class")
    if own is None:
        raise ValueError(
            f"method.rules: no method class {name!r}; there are: {', '.join(dt.METHODS)}; one's own are found where "
            "plugins=[…] names the module that defines them"
        )
    return own
