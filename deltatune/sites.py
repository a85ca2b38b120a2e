"""Usual sites: what a run showed of the model (`structure`), else what its names and types suggest (`blocks`)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

import deltatune.blocks as guess
from deltatune.core import NoMatch, Rule
from deltatune.hosts import features, is_map, linears, modules, unreachable
from deltatune.maps import original
from deltatune.matrices import experts
from deltatune.structure import structure, why_not

OUTSIDE = "outside the blocks, or a router by its name"


def left_out(model: nn.Module) -> dict[str, str]:
    """Layers that usual sites pass by, as a delta around them would do nothing or choose instead of compute."""
    known = structure(model)
    if known is None:
        return unreachable(model)
    never = dict.fromkeys(known.idle, "is never called") | dict.fromkeys(known.silent, "gets no gradient")
    return unreachable(model) | never | dict.fromkeys(known.routers, "chooses (a router)") | known.unreachable()


def linear_layers(model: nn.Module) -> list[str]:
    """Every linear layer of the blocks that runs."""
    skipped = left_out(model)
    return [p for block in guess.blocks(model) for p, _ in linears(block.module, block.path) if p not in skipped]


def sublayer_ends(model: nn.Module) -> list[str]:
    """What is added to the stream: the end of every sublayer. Raises NoMatch where nothing is."""
    known = structure(model)
    if known is None:
        return [p for block in guess.blocks(model) for p, _ in guess.sublayer_outs(block)]
    if not known.ends:
        raise NoMatch(
            f"{original(model).__name__} adds the output of no module to what it was computed from; say where"
        )
    return list(known.ends)


def feed_forwards(model: nn.Module) -> list[str]:
    """The modules that span a feed-forward sublayer alone. Raises NoMatch where there is none."""
    known = structure(model)
    if known is None:
        spans = []
        for block in guess.blocks(model):
            span = guess.feed_forward_module(block)
            if span is None:
                raise no_span(block.path or type(block.module).__name__)
            spans.append(span[0])
        return spans
    if not known.feed_forwards:
        raise NoMatch(
            f"{original(model).__name__} has no feed-forward sublayer, so a parallel adapter has no place in it"
        )
    spans = in_order(model, [p for each in known.feed_forwards for p in each.spans])
    if not spans:
        raise no_span(", ".join(known.feed_forwards[0].ends[:1]) or original(model).__name__)
    return spans


def no_span(path: str) -> NoMatch:
    return NoMatch(
        f"{path}: no module spans the feed-forward part alone, so a parallel adapter has no place there; use "
        "form='serial', or say where"
    )


def keys_and_values(model: nn.Module) -> list[tuple[str, tuple[int, ...] | None]]:
    """(map, span of its outputs) of all that become keys or values of an attention."""
    known = structure(model, values=True)
    if known is None or known.keys_values is None:
        return [(p, span) for block in guess.blocks(model) for p, _, span in guess.key_value(block)]
    return list(known.keys_values)


def hidden_readers(model: nn.Module) -> list[str]:
    """The maps that read the hidden of a feed-forward sublayer."""
    known = structure(model)
    if known is None:
        ends = [
            [p for p, m in block.feed_forward if features(m).out == block.width][-1:] for block in guess.blocks(model)
        ]
        return [p for end in ends for p in end]
    return in_order(model, [p for each in known.feed_forwards for p in each.hidden])


def attention_modules(model: nn.Module) -> list[str]:
    """The modules that attend. Raises NoMatch where none does."""
    known = structure(model)
    if known is None:
        return [p for block in guess.blocks(model) for p, _ in block.attention]
    if not known.attentions:
        raise NoMatch(
            f"{original(model).__name__} computes no softmax of queries and keys, so a prefix has no place in it"
        )
    return in_order(model, [a.path for a in known.attentions])


def readers(model: nn.Module) -> list[list[nn.Module]]:
    """Groups of linear layers that read one tensor."""
    known = structure(model)
    if known is None:
        return [group for block in guess.blocks(model) for group in guess.readers(block)]
    here = dict(modules(model))
    return [[here[p] for p in group] for group in known.readers]


def in_order(model: nn.Module, paths: list[Any]) -> list[Any]:
    order = {p: i for i, (p, _) in enumerate(modules(model))}
    return sorted(dict.fromkeys(paths), key=order.__getitem__)


def notes(model: nn.Module, rules: Sequence[Rule], reached: Collection[str]) -> tuple[str, ...]:
    """What the usual sites of rules leave out, or guess, and why."""
    usual = [rule for rule in rules if rule.where is None]
    if not usual:
        return ()
    known = structure(model)
    if known is None:
        guessed = f"usual sites are guessed from names and types ({why_not(model)})"
        return (f"{guessed}; give example=, keyword arguments of one forward, to learn them from a run",)
    reasons = left_out(model)
    if not any(rule.method.everywhere for rule in usual):
        inside = tuple(f"{block.path}." if block.path else "" for block in guess.blocks(model))
        idle = [p for p, m in modules(model) if is_map(m) and p not in known.called and p not in reasons]
        unseen = [p for p in idle if p.startswith(inside)]
        names = ", ".join(dict.fromkeys(map(folded, unseen)))
        ask = f"not run by {known.source}, so unknown: {names} ({len(unseen)}); give an example= that runs them"
        return (ask,) if unseen else ()
    every = [p for p, m in modules(model) if is_map(m) or experts(m)]
    missing = [p for p in every if p not in reached]
    groups: dict[str, list[str]] = {}
    for path in missing:
        groups.setdefault(folded(reasons.get(path, OUTSIDE)), []).append(path)
    lines = [
        f"left out: {', '.join(dict.fromkeys(map(folded, paths)))} ({len(paths)}): {reason}"
        for reason, paths in groups.items()
        if reason != OUTSIDE or len(missing) > 0.05 * len(every)
    ]
    share = f"reaches {len(every) - len(missing)} of {len(every)} linear maps and convolutions"
    return (*lines, share) if lines else ()


def folded(path: str) -> str:
    """A path with the numbers of blocks as stars."""
    return re.sub(r"(?<=\.)\d+(?=\.|\s|$)", "*", path)
