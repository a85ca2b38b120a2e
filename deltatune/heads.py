"""Attention in a trace: which modules attend, with how many key/value heads of which size, and whose outputs those are.

Which outputs of a projection become queries, keys or values is read from gradients: those that move a key are keys.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from deltatune.hosts import Heads
from deltatune.sublayers import CONTRACTIONS, GATES, JOINS, MOVES, SCALES, SUMS, Sublayers
from deltatune.trace import Trace
from deltatune.values import Attended, Call

SOFTMAX = ("_softmax", "_safe_softmax", "softmax")
ELEMENTWISE = MOVES | SUMS | SCALES | JOINS | GATES | {"mean", "masked_fill", "baddbmm", "bitwise_not"}
ROLES = ("query", "key", "value")


class Attention(NamedTuple):
    """A module that attends, as it is seen: own is whether by torch's scaled_dot_product_attention."""

    path: str
    shape: Heads
    own: bool


class Projected(NamedTuple):
    """Outputs of a map that become keys or values, as a mask over them; None where only a real run would tell."""

    call: Call
    mask: Tensor | None


def attended(subs: Sublayers) -> list[Attended]:
    """Every attention of a trace: torch's own, and products with a softmax of a product."""
    trace = subs.trace
    found = list(trace.attended)
    for n, (_, right) in trace.products.items():
        shares, other = trace.nodes[n].inputs[-2:]
        softmax = behind(trace, shares, SOFTMAX)
        if softmax is None or subs.weight[other]:
            continue
        scores = behind(trace, trace.nodes[softmax].inputs[0], ("mm", "bmm", "baddbmm"))
        if scores is None or any(subs.weight[i] for i in trace.nodes[scores].inputs[-2:]):
            continue
        q, k = trace.products[scores]
        inputs = trace.nodes[scores].inputs[-2:]
        k = k.transpose(-1, -2)
        found.append(Attended(trace.nodes[n].call, (*inputs, other), (q, k, right), whole=False))
    return found


def behind(trace: Trace, n: int, ops: tuple[str, ...]) -> int | None:
    """The first node of these operations that n is computed from by elementwise operations and moves alone."""
    seen, waiting = set(), [n]
    best = None
    while waiting:
        n = waiting.pop()
        if n in seen:
            continue
        seen.add(n)
        node = trace.nodes[n]
        if node.op in ops:
            best = n if best is None else min(best, n)
        elif not node.op.startswith(CONTRACTIONS) and (node.op in ELEMENTWISE or len(node.inputs) <= 2):
            waiting += node.inputs
    return best


def attentions(subs: Sublayers, found: list[Attended]) -> list[Attention]:
    """The modules that attend, each once."""
    by_path: dict[str, Attention] = {}
    for each in found:
        if each.call < 0:
            continue
        path = subs.calls[each.call].path
        _, k, v = each.tensors
        by_path.setdefault(path, Attention(path, Heads(heads_of(subs, each), k.shape[-1], v.shape[-1]), each.whole))
    return list(by_path.values())


def heads_of(subs: Sublayers, each: Attended) -> int:
    """The key/value heads: those that keys differ in, where a caller has repeated them for its queries."""
    k = each.tensors[1]
    if k.dim() == 3 and not each.whole:  # batch and heads as one
        rows = next((c.into[0] for c in subs.calls if c.into), 1)
        k = k.reshape(rows, -1, *k.shape[1:]) if k.shape[0] % rows == 0 else k[None]
    count = k.shape[-3] if k.dim() > 2 else 1
    if k.is_meta:
        return count
    k = k.detach()
    groups = [g for g in range(count, 1, -1) if count % g == 0]
    for g in groups:
        first = k.unflatten(-3, (count // g, g))
        if bool((first == first[..., :1, :, :]).all()):
            return count // g
    return count


def keys_and_values(subs: Sublayers, found: list[Attended]) -> list[Projected]:
    """Of every map, which of its outputs are keys or values; of several attentions that share one, all together."""
    roles: dict[int, dict[str, Tensor | bool]] = {}
    for each in found:
        for role, node, tensor in zip(ROLES, each.nodes, each.tensors):
            for c in nearest(subs, node):
                mask = moved(tensor, subs.calls[c])
                known = roles.setdefault(c, {})
                if isinstance(mask, Tensor) and not mask.any():
                    continue
                before = known.get(role)
                both = isinstance(mask, Tensor) and isinstance(before, Tensor)
                known[role] = (before | mask) if both else mask if before is None else before  # type: ignore[operator]
    result = []
    for c, known in roles.items():
        wanted = [known[r] for r in ("key", "value") if r in known]
        if not wanted:
            continue
        if all(isinstance(m, Tensor) for m in known.values()):
            mask = torch.stack([m for m in wanted if isinstance(m, Tensor)]).any(0)
            result.append(Projected(subs.calls[c], mask))
        elif "query" in known:
            result.append(Projected(subs.calls[c], None))
        else:
            result.append(Projected(subs.calls[c], torch.ones(channels(subs.calls[c]), dtype=torch.bool)))
    return result


def nearest(subs: Sublayers, n: int) -> list[int]:
    """The calls of maps that a node is computed from with no other map between."""
    found, seen, waiting = [], set(), [n]
    while waiting:
        n = waiting.pop()
        if n in seen:
            continue
        seen.add(n)
        if n in subs.of_map:
            found.append(subs.of_map[n])
        elif not subs.nodes[n].op.startswith(CONTRACTIONS):
            waiting += subs.nodes[n].inputs
    return found


def moved(t: Tensor, call: Call) -> Tensor | bool:
    """Which outputs of a map move a tensor, as a mask over channels; True where that cannot be told."""
    if t.is_meta or call.leaf is None or not t.requires_grad:
        return True
    weights = torch.rand(t.shape, generator=torch.Generator().manual_seed(0)).add_(0.5).to(t.device)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad((t.float() * weights).sum(), call.leaf, retain_graph=True, allow_unused=True)
    if slope is None:
        return torch.zeros(channels(call), dtype=torch.bool)
    rows = slope.movedim(1, -1) if isinstance(call.module, nn.modules.conv._ConvNd) else slope
    return (rows != 0).reshape(-1, rows.shape[-1]).any(0).cpu()


def channels(call: Call) -> int:
    return call.out[1] if isinstance(call.module, nn.modules.conv._ConvNd) else call.out[-1]


def spans(mask: Tensor) -> list[tuple[int, ...] | None]:
    """A mask as spans: [None] for all, (first, last), (first, last, period), or several of the first kind."""
    width = len(mask)
    if bool(mask.all()):
        return [None]
    edges = torch.nn.functional.pad(mask.int(), (1, 1)).diff()
    runs = list(zip(edges.eq(1).nonzero()[:, 0].tolist(), edges.eq(-1).nonzero()[:, 0].tolist()))
    if len(runs) < 2:
        return list(runs)
    period = runs[1][0] - runs[0][0]
    if width % period == 0 and runs[0][1] <= period:
        whole = mask.view(-1, period)
        if bool((whole == whole[0]).all()):
            return [(runs[0][0], runs[0][1], period)]
    return list(runs)
