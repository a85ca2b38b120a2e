"""Rules to sites: globs, predicates, or the method's usual sites."""

from __future__ import annotations

import difflib
import fnmatch
from typing import Any

from torch import nn

from deltatune.core import NoMatch, Rule
from deltatune.hosts import modules, own_parameters, unreachable


def sites(model: nn.Module, rule: Rule) -> list[tuple[str, nn.Module, dict[str, Any]]]:
    """(path, host, hyperparameters) of every site of a rule. Raises NoMatch for a rule, or a part of one, without.

    A glob also matches parameters, by their paths, of modules that it does not match themselves.
    """
    here = dict(modules(model))
    if rule.where is None:
        return matched(rule, model, [(p, here[p], h) for p, h in rule.method.usual(model, rule.hparams)])
    if not isinstance(rule.where, str):
        return matched(rule, model, [(p, m, h) for p, m in here.items() if rule.where(p, m) for h in parts(rule, m)])
    readers = owners(model, here)
    owned = [f"{path}.{name}" if path else name for path, names in readers.items() for name in names]
    known = {*here, *owned}
    wanted = [rule.where] if rule.where in known else rule.where.split("|")  # a name may hold a glob's signs
    if "" in wanted and rule.where:  # "" alone is the model itself; beside others it is a slip
        raise NoMatch(f"{rule}: there is nothing between two '|', or before or behind one")
    chosen: set[str] = set()
    for part in wanted:
        these = {part} if part in known else {p for p in known if fnmatch.fnmatchcase(p, part)}
        if not these:
            near = difflib.get_close_matches(part.lstrip("*."), [*here, *owned], n=3, cutoff=0.0)
            raise NoMatch(f"{rule}: {part!r} matches no module of {type(model).__name__}; near: {', '.join(near)}")
        chosen |= these
    found: list[tuple[str, nn.Module, dict[str, Any]]] = []
    for path, module in here.items():
        if path in chosen:
            found += [(path, module, h) for h in parts(rule, module)]
            continue
        own = [name for name in readers.get(path, ()) if (f"{path}.{name}" if path else name) in chosen]
        found += [(path, module, rule.method.at(name)) for name in own]
    return matched(rule, model, found)


def parts(rule: Rule, host: nn.Module) -> list[dict[str, Any]]:
    """The method's deltas on a host, or the one whose parameter the rule names."""
    return [{}] if "parameter" in rule.hparams else rule.method.parts(host)


def owners(model: nn.Module, here: dict[str, nn.Module]) -> dict[str, list[str]]:
    """Path of a module -> names of the parameters that it reads."""
    skipped = unreachable(model)
    return {
        path: [name for name, p in own_parameters(module).items() if p is not None]
        for path, module in here.items()
        if path not in skipped
    }


def matched(
    rule: Rule, model: nn.Module, found: list[tuple[str, nn.Module, dict[str, Any]]]
) -> list[tuple[str, nn.Module, dict[str, Any]]]:
    if not found:
        raise NoMatch(f"{rule}: matches no module of {type(model).__name__}; give where= as a glob over module paths")
    return [(path, module, hparams | rule.hparams) for path, module, hparams in found]
