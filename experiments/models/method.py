"""The rules of a method's configuration, with their classes."""

from __future__ import annotations

import importlib

import deltatune as dt
from experiments.config.schema import Config, MethodConfig


def rules(config: Config, head: bool) -> list[dt.Rule]:
    """The method's rules and, of a model that classifies by one, the new head."""
    found = []
    for rule in config.method.rules:
        found.append(method_class(config.method, rule.method).on(rule.where, **rule.hparams))
    return [*found, dt.Head.on()] if head else found


def method_class(method: MethodConfig, name: str) -> type[dt.DeltaModule]:
    """The class that a rule names: of the library, or of the method's module. Raises ValueError."""
    if method.module is not None:
        try:
            importlib.import_module(method.module)  # defining a class registers it
        except ImportError as error:
            raise ValueError(f"method.module={method.module}: cannot be imported: {error}") from None
    known = {**dt.DeltaModule.registry, **dt.METHODS}
    if name not in known:
        raise ValueError(
            f"method.rules: no method class {name!r}; there are: {', '.join(dt.METHODS)}; one's own are found where "
            "method.module= names the module that defines them"
        )
    return known[name]
