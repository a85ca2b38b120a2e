"""What a model is made of, learned from one forward: what is called, what is read, where sublayers end, who attends.

`structure(model)` runs a shadow of the model (nothing of the model changes) on an example: the one given, or inputs
made from a Hugging Face config. Without an example there is no structure, and sites are guessed from names and types.
"""

from __future__ import annotations

import warnings
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from deltatune.examples import examples
from deltatune.heads import Attention, attended, attentions, keys_and_values, spans
from deltatune.hosts import (
    device_of,
    is_linear,
    learned,
    learned_heads,
    modules,
    unreachable,
    unwrapped,
)
from deltatune.maps import children, original
from deltatune.repeats import Copies
from deltatune.sublayers import Sublayers
from deltatune.trace import Trace
from deltatune.values import Attended

SMALL = 200_000  # values in an example, up to which it is run with values; above, by shapes where that is enough


class FeedForward(NamedTuple):
    """A feed-forward sublayer, in every block: modules that span it alone, maps that read its hidden, and its ends."""

    spans: tuple[str, ...]
    hidden: tuple[str, ...]
    ends: tuple[str, ...]


@dataclass(frozen=True)
class Structure:
    """One forward of a model, as paths of its modules; what holds for a repeated block is said of each.

    reads: a module whose parameters are read while it does not run -> the module that runs around all that read them.
    idle: layers that neither ran nor were read, though the module that holds them ran. silent: layers that the output
    does not depend on, or only by a choice. keys_values: (map, span of its outputs); None if not asked for.
    """

    source: str
    called: frozenset[str]
    reads: dict[str, str]
    idle: frozenset[str]
    silent: frozenset[str]
    routers: frozenset[str]
    ends: tuple[str, ...]
    feed_forwards: tuple[FeedForward, ...]
    attentions: tuple[Attention, ...]
    keys_values: tuple[tuple[str, tuple[int, ...] | None], ...] | None
    readers: tuple[tuple[str, ...], ...]

    def unreachable(self) -> dict[str, str]:
        """Modules whose forward is never called though their weights are read: path -> who reads them."""
        return {p: f"{reader or 'the model'} reads its weights and never calls it" for p, reader in self.reads.items()
                if p not in self.called}  # fmt: skip


@dataclass
class Kept:
    """What was learned of a model, for as long as it is made of the same things."""

    key: Any
    structure: Structure | None
    values: bool
    why: str = ""


kept: weakref.WeakKeyDictionary[nn.Module, Kept] = weakref.WeakKeyDictionary()


def structure(model: nn.Module, example: Mapping[str, Any] | None = None, values: bool = False) -> Structure | None:
    """What one forward shows of the model, or None. values: with the spans of fused keys and values."""
    made_of = key(model)
    known = kept.get(model)
    if known is not None and known.key == made_of and example is None and (known.values or not values):
        return known.structure
    found, why = learn(model, example, values)
    kept[model] = Kept(made_of, found, values, why)
    return found


def why_not(model: nn.Module) -> str:
    """Why a model's structure is not known."""
    return kept[model].why


def key(model: nn.Module) -> Any:
    return tuple(
        (id(m), original(m), "forward" in m.__dict__, *map(id, m._parameters.values())) for _, m in modules(model)
    )


def learn(model: nn.Module, example: Mapping[str, Any] | None, values: bool) -> tuple[Structure | None, str]:
    """(structure, "") of the first example and the first way that work, or (None, why not)."""
    inner = unwrapped(model)
    offered = [dict(example)] if example is not None else examples(inner)
    source = "the example" if example is not None else "inputs made from its config"
    why = "no example given"
    where = {p.device for p in inner.parameters()}
    devices = [d for d in where if d.type == "cuda"]
    for inputs in offered:
        for meta in ways(inputs, where, values):
            for hollow in (True, False):
                try:
                    with warnings.catch_warnings(), torch.random.fork_rng(devices), torch.inference_mode(False):
                        warnings.simplefilter("ignore")
                        trace = Trace(inner, inputs if example is not None else moved(inputs, inner), meta, hollow)
                        if hollow and trace.repeats and trace.places:
                            continue  # which of a list runs may depend on the block
                        return summary(trace, inner, source, values), ""
                except Exception as error:  # whatever a model raises, it is another way's or the guess's turn
                    why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return None, why


def ways(inputs: Mapping[str, Any], where: set[torch.device], values: bool) -> Iterator[bool]:
    """Whether to run by shapes alone, in the order to try it in."""
    if any(d.type == "meta" for d in where):
        yield True
        return
    count = sum(t.numel() for t in tree_leaves(dict(inputs)) if isinstance(t, Tensor))
    yield from ((False, True) if values or count <= SMALL else (True, False))


def moved(inputs: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    device = device_of(model)
    return {n: v.to(device) if isinstance(v, Tensor) else v for n, v in inputs.items()}


def summary(trace: Trace, model: nn.Module, source: str, values: bool) -> Structure:
    """What a trace says, for every block, in the model's own order."""
    subs, here = Sublayers(trace), dict(modules(model))
    copies = Copies(trace.repeats, list(here))
    found = attended(subs)
    static = unreachable(model)  # what nn.MultiheadAttention reads counts as its own
    around = {o: reader(o, by, trace) for o, by in trace.reads.items() if o not in static}
    reads = {p: r for o, by in around.items() for p, r in copies.pairs(o, by)}
    called = copies.of(c.path for c in trace.calls)
    for call in trace.calls:
        if not call.is_map and call.into and call.out:
            for path in copies.of([call.path]):
                learned[here[path]] = call.into, call.out
    seen = attentions(subs, found)
    for each in seen:
        for path in copies.of([each.path]):
            learned_heads[here[path]] = each.shape
    return Structure(
        source,
        frozenset(copies.of(c.path for c in trace.calls)),
        reads,
        frozenset(idle(here, {*called}, reads, trace.places)),
        frozenset(copies.of(silent(subs))),
        frozenset(copies.of(c.path for c in trace.calls if c.is_map and subs.chooses(c))),
        tuple(copies.of(c.path for s in subs.all for c in subs.ends(s))),
        tuple(feed_forwards(subs, copies)),
        tuple(a._replace(path=p) for a in seen for p in copies.of([a.path])),
        projections(subs, found, copies) if values else None,
        tuple(group for group in shared_inputs(trace, copies)),
    )


def reader(owner: str, by: set[str], trace: Trace) -> str:
    """The innermost module that runs around the owner's parent and all who read its parameters."""
    called = {c.path for c in trace.calls}
    common = owner.rpartition(".")[0]
    while common and not (common in called and all(f"{p}.".startswith(f"{common}.") for p in by)):
        common = common.rpartition(".")[0]
    return common


def idle(here: dict[str, nn.Module], called: set[str], reads: Mapping[str, str], places: list[str]) -> Iterator[str]:
    """Layers that neither ran nor were read, right inside a module that ran, or in a list that another was taken of."""
    for path, module in here.items():
        ran = not path or path in called or path in reads
        above = path.rpartition(".")[0]
        held = above in called or any(above == p or above.startswith(f"{p}.") for p in places)
        if not ran and held and not children(module) and module._parameters:
            yield path


def silent(subs: Sublayers) -> list[str]:
    """Maps whose output comes to no output of the model, other than by a choice: nothing flows back to them."""
    seen: set[int] = set()
    waiting = [n for n in subs.trace.outputs if subs.nodes[n].floating]
    if not waiting:
        return []
    while waiting:
        n = waiting.pop()
        if n not in seen:
            seen.add(n)
            waiting += [i for i in subs.nodes[n].inputs if subs.nodes[i].floating]
    reached = {subs.calls[c].path for n, c in subs.of_map.items() if n in seen}
    return [c.path for c in subs.calls if c.is_map and c.path not in reached]


def feed_forwards(subs: Sublayers, copies: Copies) -> Iterator[FeedForward]:
    for sub in subs.all:
        for part in subs.parts(sub):
            if subs.is_feed_forward(sub, part):
                span = subs.span(sub, part)
                hidden = (c.path for c in subs.last_maps(sub, part))
                ends = (c.path for c in subs.ends(sub._replace(branch=part)))
                spans_it = copies.of([span.path] if span else [])
                yield FeedForward(tuple(spans_it), tuple(copies.of(hidden)), tuple(copies.of(ends)))


def projections(
    subs: Sublayers, found: list[Attended], copies: Copies
) -> tuple[tuple[str, tuple[int, ...] | None], ...] | None:
    projected = keys_and_values(subs, found)
    if any(p.mask is None for p in projected):
        return None
    return tuple(
        (path, span)
        for p in projected
        for path in copies.of([p.call.path])
        for span in spans(p.mask)  # type: ignore[arg-type]
    )


def shared_inputs(trace: Trace, copies: Copies) -> Iterator[tuple[str, ...]]:
    """Linear layers that one module calls on one tensor alone."""
    times = Counter(c.path for c in trace.calls)
    groups: dict[tuple[int, int], list[str]] = {}
    for call in trace.calls:
        if call.single and is_linear(trace.shadow.originals[id(call.module)]) and times[call.path] == 1:
            groups.setdefault((call.parent, call.inputs[0]), []).append(call.path)
    for group in groups.values():
        if len(group) > 1:
            yield from (tuple(likes) for likes in copies.rows(group))
