"""Deltas into plain weights: merge for good, merged for a block, and diff, full fine-tuning as a delta."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from deltatune.call import changed_parameters, put, read_by, swapping
from deltatune.core import BaseMismatch, DeltaError, DeltaModule, NoMatch, NotFoldable, Stacked
from deltatune.host import Host, deltas, deltas_of, hosts, in_order, merged_strengths, names, strengths_of
from deltatune.hosts import delta_dtype, extend, modules, own_parameters, stacks, unreachable
from deltatune.inject import check_called, check_name, put_in
from deltatune.maps import frozen, original, stored
from deltatune.methods.full import Full
from deltatune.methods.statistics import Statistics
from deltatune.plan import Plan, describe
from deltatune.still import own_buffers
from deltatune.strengths import Strengths
from deltatune.structure import structure, why_not
from deltatune.swap import check_removable, close_fast_path, detach
from deltatune.switching import known, refuse_merged


def folded(
    model: nn.Module, chosen: list[str], wanted: dict[Host, Strengths] | None = None
) -> list[tuple[Host, dict[str, nn.Parameter | None]]]:
    """Every host's new parameters with the chosen deltas inside, computed in fp32 and rounded once.

    wanted: the strengths on each host, by default those of here and now.

    Raises NotFoldable naming the site where a delta has no closed form, where an unfoldable or unchosen live delta
    lies under a chosen one, or where a weight that is tied to another module would change at one of its uses.
    """
    uses = Counter(id(p) for _, m in modules(model) for p in m._parameters.values() if p is not None)
    per_delta = Counter(id(p) for _, _, _, d in deltas(model) if d.site == "parameters" for p in d._parameters.values())
    made: dict[int, nn.Parameter] = {}
    result = []
    for path, host in hosts(model):
        strengths = strengths_of(host) if wanted is None else wanted[host]
        inside = merged_strengths(deltas_of(host))
        mine = [
            (n, d, strengths[n])
            for n, stack in stacks(host).items()
            for d in stack
            if n in chosen and n not in inside and strengths[n] != 0
        ]
        if not mine:
            continue
        if not in_order(host, strengths, inside, chosen):
            raise NotFoldable(f"{path}: a live delta that is not merged lies under one that is; merge it as well")
        if any(d.site == "attention" for _, d, _ in mine):
            raise NotFoldable(f"{path}: a prefix has no closed form as weights; keep it injected")
        if any(d.site == "buffers" for _, d, _ in mine):
            raise NotFoldable(f"{path}: running statistics are no weights; inject Statistics under a name of its own")
        own = read_by(host, (d for _, d, _ in mine))
        wide = {n: None if p is None else p.detach().to(widest(p.dtype)) for n, p in own.items()}
        with torch.no_grad():
            new = fold_host(path, host, wide, mine)
        fresh: dict[str, nn.Parameter | None] = {}
        for name, value in new.items():
            old = own.get(name)
            if value is None or value is wide.get(name):
                fresh[name] = old
                continue
            if old is not None and uses[id(old)] > 1 and not tied_delta(name, mine, per_delta, uses[id(old)]):
                raise NotFoldable(
                    f"{path}.{name} is tied to another module, which would change with it; untie the weights first"
                )
            if name not in own:  # a property or a hook makes it anew
                raise NotFoldable(f"{path}.{name} is computed (reparametrised, pruned); make it a parameter first")
            like = old if old is not None else next(p for p in own.values() if p is not None)
            parameter = nn.Parameter(value.to(like.dtype).contiguous(), requires_grad=like.requires_grad)
            fresh[name] = parameter if old is None else made.setdefault(id(old), parameter)
        result.append((host, fresh))
    return result


def widest(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32 if dtype.is_floating_point else dtype


def tied_delta(name: str, mine: list[tuple[str, DeltaModule, float]], shared: Counter[int], uses: int) -> bool:
    """Whether every delta that changes this parameter is one Δ that stands at all of its uses."""
    attribute = name.replace(".", "_")
    changing = [d for _, d, _ in mine if d.site == "module" or not d.pairs or attribute in d._parameters]
    paired = [d.site == "parameters" and d.pairs for d in changing]
    return all(paired) and all(shared[id(d._parameters[attribute])] == uses for d in changing)


def fold_host(
    path: str, host: Host, wide: dict[str, Any], mine: list[tuple[str, DeltaModule, float]]
) -> dict[str, Any]:
    """One host's parameters with its deltas inside: parameter deltas first, then the stack around the linear map."""
    own = changed_parameters(host, [(d, s) for _, d, s in mine if d.site == "parameters"], wide)
    around = [(d, s) for _, d, s in mine if d.site == "module"]
    if not around:
        return own
    term: Any = frozen(host, own)
    if term is None:
        kind = type(around[0][0]).__name__
        raise NotFoldable(f"{path}: {original(host).__name__} is no known linear map, so {kind} cannot be merged")
    if host._parameters.get("weight") is None:
        raise NotFoldable(
            f"{path}: the weight of {original(host).__name__} is reparametrised: it is computed anew for every call; "
            "make it plain first (torch.nn.utils: remove_parametrizations, remove_weight_norm, prune.remove)"
        )
    for delta, strength in around:
        term = Stacked(delta, term, strength)
    try:
        new = stored(host, term.folded())
    except NotFoldable as error:
        raise NotFoldable(f"{path}: {error}") from None
    return own | {n: value for n, value in new.items() if value is not None or n in own}


def chosen_names(model: nn.Module, given: tuple[str, ...]) -> list[str]:
    known(model, *given or (None,))
    live = {n for _, h in hosts(model) for n, s in strengths_of(h).items() if s != 0}
    if off := [n for n in given if n not in live]:
        raise DeltaError(f"{off[0]!r} is switched off; switch it on with use() before merging, at the strength wanted")
    chosen = list(given) or [n for n in names(model) if n in live]
    if not chosen:
        raise NoMatch("no delta is live in this model, so there is nothing to merge")
    return chosen


def merge(model: nn.Module, *given: str) -> None:
    """Fold the named deltas (all live ones without a name) into the weights for good and take them out.

    Sums in fp32, rounded once to the weight's dtype; a tied weight stays tied. All or nothing: raises NotFoldable for
    a delta without a form as weights, NoMatch for a name that is not there, DeltaError for one that is switched off.
    """
    refuse_merged(model, "merging for good")
    check_removable(model)
    chosen = chosen_names(model, given)
    with swapping:  # no host of another thread may put back later what it found before
        result = folded(model, chosen)
        added = [h for h, new in result if h._parameters.get("bias") is None and new.get("bias") is not None]
        for host, new in result:
            put(host, new)
    detach(model, *chosen)
    close_fast_path(model)
    if added and "save_pretrained" in dir(model):
        warnings.warn(
            f"{len(added)} merged biases stand where the model's config knows none: save_pretrained and "
            "from_pretrained would drop them; keep the delta file, or torch.save the model",
            stacklevel=2,
        )


@dataclass(eq=False)
class Merged:
    """One open `merged`: who stands merged at which strength, and each changed host's parameters before."""

    model: nn.Module
    chosen: list[str]
    wanted: dict[Host, Strengths]
    before: dict[Host, dict[str, Any]] = field(default_factory=dict)
    left: bool = False

    def put(self) -> None:
        """Fold, and let the weights be those."""
        result = folded(self.model, self.chosen, self.wanted)
        said = {host: {n: s for n, s in w.items() if n in self.chosen and s != 0} for host, w in self.wanted.items()}
        self.before = {host: own_parameters(host, new) for host, new in result}
        with moving(self.wanted):
            for host in self.wanted:
                own = deltas_of(host)
                own._merges = (*own._merges, said[host])
            for host, new in result:
                put(host, new)

    def undo(self) -> None:
        """The weights as they were before, in the dtype and on the device that they were moved to meanwhile."""
        with moving(self.wanted):
            for host, before in self.before.items():
                here = own_parameters(host, before)
                for name, p in before.items():
                    now = here.get(name)
                    if p is not None and now is not None and (now.dtype, now.device) != (p.dtype, p.device):
                        p.data = p.data.to(now.device, now.dtype)
                put(host, before)
            for host in self.wanted:
                own = deltas_of(host)
                own._merges = own._merges[:-1]


@contextmanager
def moving(hosts: Iterable[Host]) -> Iterator[None]:
    """A block in which weights change hands: `_swaps` is odd inside, and another number after it."""
    for host in hosts:
        deltas_of(host)._swaps += 1
    try:
        yield
    finally:
        for host in hosts:
            deltas_of(host)._swaps += 1


OPEN: list[Merged] = []  # the first entered comes first; change it with `swapping` in hand


@contextmanager
def merged(model: nn.Module, *given: str) -> Iterator[None]:
    """Plain merged weights inside the block; afterwards the original Parameters, bit-identical, and the deltas.

    The weights are the model's, in every thread and task: one that wants the same deltas at the same strengths
    computes with them, one that wants others gets a DeltaError. Blocks may be left in any order. What was moved to
    another dtype or device inside stays so. Raises as `merge` does, before anything is changed.
    """
    with swapping:
        chosen = chosen_names(model, given)
        block = Merged(model, chosen, {host: strengths_of(host) for _, host in hosts(model)})
        block.put()
        OPEN.append(block)
    try:
        yield
    finally:
        with swapping:
            block.left = True
            for each in reversed(OPEN.copy()):  # one under another that is still open stays in until that one leaves
                above = OPEN[OPEN.index(each) + 1 :]
                if each.left and not any(other.wanted.keys() & each.wanted.keys() for other in above):
                    each.undo()
                    OPEN.remove(each)


@torch.no_grad()
def diff(tuned: nn.Module, base: nn.Module, name: str = "default", example: Mapping[str, Any] | None = None) -> Plan:
    """Inject into `base`, in place, the delta that makes it compute what `tuned` does: Δ = W_tuned − W_base.

    Only parameters and persistent buffers that differ are stored; a tied one once. Δ is computed and kept in fp32 (fp64
    for fp64), so base and delta give the tuned weights to one rounding. example: keyword arguments of one forward,
    which shows what is read without being called; unknown otherwise in models of one's own, as the plan then says.
    Raises BaseMismatch where paths or shapes differ, NoMatch where the models are equal, DeltaError where one has
    deltas in it or the name is taken.
    """
    other, here = dict(modules(tuned)), dict(modules(base))
    if names(base) or names(tuned):
        raise DeltaError("diff compares plain models; merge or eject their deltas first")
    check_name(base, name)
    if surplus := other.keys() ^ here.keys():
        raise BaseMismatch(f"the two models have different modules, first {sorted(surplus)[0]!r}")
    extend(base)
    skipped, known_structure = unreachable(base), structure(base, example)
    built: list[tuple[str, nn.Module, DeltaModule]] = []
    shared: dict[int, nn.Parameter] = {}
    for path, host in here.items():
        if path in skipped:
            continue
        theirs, changed = own_parameters(other[path]), {}
        moved = {n: own_buffers(other[path])[n] for n, b in own_buffers(host).items() if differs(other[path], n, b)}
        if moved:
            statistics = Statistics(host, only=tuple(moved))
            for n, b in moved.items():
                statistics._buffers[n].copy_(b)  # type: ignore[union-attr]
            check_called(path, host, statistics, known_structure)
            built.append((path, host, statistics))
        for n, p in own_parameters(host).items():
            q = theirs.get(n)
            if p is None and q is None:
                continue
            if p is None or q is None or p.shape != q.shape:
                raise BaseMismatch(f"{path}.{n}: the two models differ in shape, or one has no such parameter")
            delta = q.to(p.device, delta_dtype(host)) - p.to(delta_dtype(host))
            if delta.any():
                changed[n] = (p, delta)
        if changed:
            full = Full(host, only=tuple(changed))
            for n, (p, delta) in changed.items():
                full._parameters[n.replace(".", "_")] = shared.setdefault(id(p), nn.Parameter(delta))
            built.append((path, host, full))
    if not built:
        raise NoMatch("the two models are equal: there is no difference to store")
    put_in(base, built, name)
    unseen = "what reads a layer's weights without calling it is not known ({}); give example=, or merge the delta"
    return describe(base, built, () if known_structure is not None else (unseen.format(why_not(base)),))


def differs(other: nn.Module, name: str, b: Tensor) -> bool:
    """Whether the other module's buffer of this name holds other values. Raises BaseMismatch where it is no such."""
    theirs = own_buffers(other).get(name)
    if theirs is None or theirs.shape != b.shape:
        raise BaseMismatch(f"{original(other).__name__}.{name}: the two models' buffers differ in shape")
    return not torch.equal(theirs.to(b.device), b)
