"""The products of an attention that a module writes out, q kᵀ and shares · v, with a prefix instead of keys or values.

Each product keeps the layout that the module has: heads as a dimension, or with the batch in one, or an einsum's index.

Legend: B batch, H heads, T queries, S keys, D head size; a prefix has L keys pk and L values pv, each (H_kv, L, D).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from deltatune.attention import by_head
from deltatune.core import NotReached

HIDDEN = -1e4  # a bias of this or less is a mask


class Step(NamedTuple):
    """How a tensor was computed: by func of args, of which the one at this position carries the scores on."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    at: int
    out: Tensor

    @property
    def name(self) -> str:
        return getattr(self.func, "__name__", "")


def operands(step: Step) -> tuple[Tensor, Tensor]:
    """The queries and the keys of a product, as it has them: keys transposed but in an einsum."""
    if step.name == "einsum":
        names, out = terms(step.args[0])
        return step.args[1:] if out[-1:] in names[-1] else step.args[:0:-1]
    q, k = [*step.args, *(step.kwargs[n] for n in ("batch1", "batch2", "mat2", "other") if n in step.kwargs)][-2:]
    return q, k


def terms(equation: str) -> tuple[list[str], str]:
    """The operands' and the result's indices of an einsum."""
    left, _, out = equation.replace(" ", "").partition("->")
    return left.split(","), out


def heads_of(path: tuple[Step, ...]) -> int | None:
    """The number of query heads, where batch and heads are one dimension and a step tells them apart."""
    first = path[0].out.shape
    shapes = [step.out.shape for step in path if len(first) == 3 and step.out.dim() == 4]
    return next((shape[1] for shape in shapes if shape[0] * shape[1] == first[0]), None)


def product(step: Step, pk: Tensor, heads: int | None) -> Tensor:
    """q pkᵀ in the layout in which the module has its own product, (..., T, L)."""
    q, k = operands(step)
    if q.shape[-1] != pk.shape[-1] and step.name != "einsum":
        raise NotReached(f"the module's queries have size {q.shape[-1]}, and the prefix's keys {pk.shape[-1]}")
    if step.name == "einsum":
        return einsum(step.args[0], q, 0 if step.args[1] is k else 1, pk, keys=True)
    columns = q @ laid(pk.to(q.dtype), k.shape[:-2], heads).transpose(-1, -2)
    if step.name != "baddbmm":
        return columns
    return step.kwargs.get("beta", 1) * first_seen(step.args[0]) + step.kwargs.get("alpha", 1) * columns


def values(args: Any, at: int, weights: Tensor, pv: Tensor, heads: int | None) -> Tensor:
    """The sum of a prefix's values by these weights, in the layout of the module's own."""
    if isinstance(args[0], str):  # an einsum
        return einsum(args[0], weights.to(args[3 - at].dtype), 2 - at, pv, keys=False)
    v = args[1 - at]
    if v.shape[-1] != pv.shape[-1]:
        raise NotReached(f"the module's values have size {v.shape[-1]}, and the prefix's {pv.shape[-1]}")
    return weights.to(v.dtype) @ laid(pv.to(v.dtype), v.shape[:-2], heads)


def laid(p: Tensor, lead: torch.Size, queries: int | None = None) -> Tensor:
    """(H_kv, L, D) with these dimensions in front of (L, D): heads stand where their number does, behind the batch; in
    a batch of heads as one dimension, of so many query heads, they go round within a row. Raises NotReached where
    they stand nowhere.
    """
    heads = p.shape[0]
    if len(lead) == 1 and lead[0] % (queries or heads) == 0:  # rows of heads, one after the other
        return by_head(p, queries or heads).repeat(lead[0] // (queries or heads), 1, 1)
    if not lead and heads == 1:
        return p[0]
    behind = range(1, len(lead))
    fits = [i for i in behind if lead[i] == heads] + [i for i in behind if lead[i] % heads == 0]
    where = next(iter(fits), None)
    if where is None:
        raise NotReached(f"the module's keys are laid out as {tuple(lead)}, in which {heads} heads have no place")
    p = by_head(p, lead[where])
    return p.reshape(*(lead[i] if i == where else 1 for i in range(len(lead))), *p.shape[1:])


def einsum(equation: str, tensor: Tensor, place: int, p: Tensor, keys: bool) -> Tensor:
    """The module's einsum of `tensor` and, at this place (0, 1), p (H_kv, L, D) instead of its keys or values."""
    names, out = terms(equation)
    if len(names) == 2 and "." not in equation:
        mine, other = names[place], names[1 - place]
        sizes = dict(zip(other, tensor.shape))
        heads = [n for n in out if n in mine and n in other and sizes[n] % p.shape[0] == 0]
        contracted = [n for n in mine if n in other and n not in out]
        kept = [n for n in mine if n in out and n not in other]
        if heads and len(contracted) == len(kept) == 1 and not (keys and heads[-1] == out[-2]):
            order = heads[-1] + (kept[0] + contracted[0] if keys else contracted[0] + kept[0])
            both = [(other, tensor), (order, by_head(p.to(tensor.dtype), sizes[heads[-1]]))]
            (left, a), (right, b) = both if place else both[::-1]
            return torch.einsum(f"{left},{right}->{out}", a, b)
    raise NotReached(
        f"the module attends by einsum {equation!r}, in which {p.shape[0]} heads of a prefix have no place"
    )


def first_seen(bias: Tensor) -> Tensor:
    """Of a bias, or mask, over keys (..., S) its value at the first key of each row that it does not hide, (..., 1)."""
    seen = bias > HIDDEN
    at = seen.to(torch.uint8).argmax(-1, keepdim=True)
    return bias.gather(-1, at).masked_fill(~seen.any(-1, keepdim=True), 0)


def plain_layout(path: tuple[Step, ...], args: Any, at: int, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as a delta is called with them, (B, H, S, D), if it is one that starts from them.

    args, at: of the product that sums values by shares; heads: the query heads where nothing in the path tells them.
    """
    (q, k), heads = operands(path[0]), heads_of(path) or heads
    v = next(t for i, t in enumerate(args) if i != at and isinstance(t, Tensor))
    if path[0].name == "einsum":
        names, out = terms(path[0].args[0])
        k = turned(k, names[1 if path[0].args[2] is k else 0], out)
    else:
        k = k.transpose(-1, -2)
    if isinstance(args[0], str):
        names, _ = terms(args[0])
        v = turned(v, names[2 - at], names[at - 1])
    if k.dim() < 4 and (k.dim() < 3 or len(k) % heads):
        raise NotReached(
            f"the module's keys are laid out as {tuple(k.shape[:-2])}, in which {heads} heads have no place"
        )
    q, k, v = (t.unflatten(0, (-1, heads)) if t.dim() == 3 else t for t in (q, k, v))
    return q, k, v


def turned(t: Tensor, names: str, order: str) -> Tensor:
    """A tensor with its indices in this order, the ones that are not in it last."""
    return t.permute([names.index(n) for n in order if n in names] + [i for i, n in enumerate(names) if n not in order])
