"""Rules to sites: globs, predicates, or the method's usual sites."""

from __future__ import annotations

import difflib
import fnmatch
from typing import Any

from torch import nn

from deltatune.core import NoMatch, Rule
from deltatune.hosts import modules


def sites(model: nn.Module, rule: Rule) -> list[tuple[str, nn.Module, dict[str, Any]]]:
    """(path, host, hyperparameters) of every site of a rule. Raises NoMatch for a rule, or a part of one, without."""
    here = dict(modules(model))
    if rule.where is None:
        matches = [(p, here[p], h | rule.hparams) for p, h in rule.method.usual(model, rule.hparams)]
    elif isinstance(rule.where, str):
        parts = {part: [p for p in here if fnmatch.fnmatchcase(p, part)] for part in rule.where.split("|")}
        if "" in parts and rule.where:  # "" alone is the model itself; beside others it is a slip
            raise NoMatch(f"{rule}: there is nothing between two '|', or before or behind one")
        for part, paths in parts.items():
            if not paths:
                near = difflib.get_close_matches(part.lstrip("*."), here, n=3, cutoff=0.0)
                raise NoMatch(f"{rule}: {part!r} matches no module of {type(model).__name__}; near: {', '.join(near)}")
        chosen = set().union(*parts.values())
        matches = [(p, m, rule.hparams) for p, m in here.items() if p in chosen]
    else:
        matches = [(p, m, rule.hparams) for p, m in here.items() if rule.where(p, m)]
    if not matches:
        raise NoMatch(f"{rule}: matches no module of {type(model).__name__}; give where= as a glob over module paths")
    return matches
