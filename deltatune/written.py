"""Attention that a module writes out itself, with more keys and values in it: o = softmax(f(q kᵀ)) v.

Watched are the products, the softmax, and what happens between them. f is whatever the module does to its scores:
scales, caps, position biases, masks, a sink. Columns of a prefix go the same way from q pkᵀ on. No mask hides them, and
of a bias they get what the first key that a query sees gets: a prefix stands in front, and a cache changes nothing.

Legend: B batch, H heads, T queries, S keys, D head size; a prefix has L keys pk and L values pv, each (H_kv, L, D).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deltatune.core import NotReached
from deltatune.products import Step, first_seen, heads_of, laid, product, values

PRODUCTS = {"matmul", "__matmul__", "bmm", "baddbmm", "einsum"}
SHIFTS = {"add", "add_", "sub", "sub_"}
SCALES = {"mul", "mul_", "div", "div_", "true_divide"}
MASKS = {"masked_fill", "masked_fill_", "where", "maximum", "max", "clamp", "clamp_min", "cat", "dropout", "dropout_"}
ALONE = {"tanh", "to", "float", "type", "type_as", "half", "double", "bfloat16", "contiguous", "clone", "neg"}
SHAPES = {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand"}
TURNS = {"transpose", "permute", "swapaxes"}
SOFTMAX = {"softmax", "_softmax"}
FOLLOWED = SHIFTS | SCALES | MASKS | ALONE | SHAPES | TURNS | SOFTMAX | {"__getitem__"}
Part = tuple[Tensor, Tensor]  # weights (..., T, L) and values (H_kv, L, D)


@dataclass(frozen=True)
class Written:
    """One attention before its values are summed: what the shares of the module's own keys are multiplied by, and the
    parts of prefixes. lse (..., T, 1) of the scores that compete with a prefix; path: the steps from q kᵀ on."""

    path: tuple[Step, ...]
    lse: Tensor
    own: Tensor | float = 1.0
    parts: tuple[Part, ...] = ()

    def share(self, pk: Tensor) -> tuple[Tensor, Tensor]:
        """(λ, softmax over the prefix alone): its part of the whole mass (..., T, 1), and its shares (..., T, L)."""
        scores = scores_of(self.path, pk).to(self.lse.dtype)
        return torch.sigmoid(scores.logsumexp(-1, keepdim=True) - self.lse), scores.softmax(-1)

    def mixed(self, share: Tensor, weights: Tensor, pv: Tensor) -> Written:
        """(1 − share) of what there is, and share of the prefix."""
        parts = tuple(((1 - share) * w, v) for w, v in self.parts)
        return replace(self, own=(1 - share) * self.own, parts=(*parts, (share * weights, pv)))

    def joined(self, pk: Tensor, pv: Tensor) -> Written:
        """With the prefix as more keys and values: what is mixed in later competes with it too."""
        share, weights = self.share(pk)
        lse = self.lse - torch.log1p(-share)
        return replace(self.mixed(share, weights, pv), lse=lse)

    def gated(self, written: Written, gate: Tensor | float, pk: Tensor, pv: Tensor) -> Written:
        """This, what a base made of `written`, with the prefix's part of that scaled by a gate, (H_kv,) or a number."""
        share, weights = written.share(pk)
        if isinstance(gate, Tensor):
            gate = laid(gate[:, None, None], share.shape[:-2], heads_of(written.path))
        return self.mixed(share * gate, weights, pv)


class Watch:
    """What one forward of a host has done so far, as far as it leads from a product of queries and keys to values."""

    def __init__(self) -> None:
        self.paths: dict[int, tuple[Step, ...]] = {}  # the keys are tensors, which the last step keeps alive

    def begins(self, func: Any, args: Any) -> tuple[tuple[Step, ...], int] | None:
        """The path to the shares that this product sums values by, and their place among args; None for others."""
        if self.paths and getattr(func, "__name__", "") in PRODUCTS:
            for i, t in enumerate(args):
                path = self.paths.get(id(t), ()) if isinstance(t, Tensor) else ()
                if any(step.name in SOFTMAX for step in path):
                    return path, i
        return None

    def note(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Keep what this call did to scores or shares that are on their way."""
        name = getattr(func, "__name__", "")
        if not (self.paths or name in PRODUCTS) or not isinstance(out, Tensor):
            return
        at, before = next(((i, p) for i, t in enumerate(args) if (p := self.path(t))), (-1, ()))
        if name in PRODUCTS and not (name == "einsum" and len(args) != 3):
            self.paths[id(out)] = (Step(func, args, kwargs, -1, out),)
        elif before and name in FOLLOWED:
            if name in SOFTMAX and kwargs.get("dim", args[1] if len(args) > 1 else None) not in (-1, out.dim() - 1):
                return
            self.paths[id(out)] = (*before, Step(func, args, kwargs, at, out))

    def path(self, value: Any) -> tuple[Step, ...]:
        """The path to a tensor, or to the first of a list that has one."""
        if isinstance(value, (list, tuple)):
            return next((p for t in value if (p := self.path(t))), ())
        return self.paths.get(id(value), ()) if isinstance(value, Tensor) else ()


def scores_of(path: tuple[Step, ...], pk: Tensor) -> Tensor:
    """f(q pkᵀ), (..., T, L): what the module's own steps make of a prefix's keys, up to its softmax."""
    columns = product(path[0], pk, heads_of(path))
    for step in path[1:]:
        if step.name in SOFTMAX:
            break
        columns = followed(step, columns)
    return columns


def summed(written: Written, func: Any, args: Any, kwargs: Any, at: int) -> Tensor:
    """The product of shares and values, with what prefixes add; `at` is the place of the shares among args."""
    ends = [step.name in SOFTMAX for step in written.path].index(True)
    after = written.path[ends + 1 :]

    if isinstance(written.own, Tensor):
        own = written.own
        for step in after:  # what was multiplied in or dropped out is in the shares already
            own = own if step.name in SCALES | ALONE else followed(step, own)
        args = (*args[:at], (args[at] * own).to(args[at].dtype), *args[at + 1 :])
    out = func(*args, **kwargs)
    for weights, pv in written.parts:
        for step in after:
            weights = weights if over_keys(step) else followed(step, weights)
        out = out + values(args, at, weights, pv, heads_of(written.path)).to(out.dtype)
    return out


def followed(step: Step, columns: Tensor) -> Tensor:
    """What a step of the module makes of a prefix's columns (..., T, L). Raises NotReached where it cannot be told."""
    name, out = step.name, step.out
    if name in MASKS:
        return columns
    if name in SHIFTS and over_keys(step):
        args = tuple(a if i == step.at or not isinstance(a, Tensor) else first_seen(a) for i, a in enumerate(step.args))
        return plainly(step._replace(args=args), columns)
    if name in SCALES and over_keys(step):
        raise NotReached(
            "the module multiplies its scores by a tensor over its own keys, of which a prefix has no part"
        )
    if name in SHIFTS | SCALES | ALONE:
        return plainly(step, columns)
    if name in SHAPES:
        return columns.reshape(*out.shape[:-1], columns.shape[-1])
    if name in TURNS:
        turned = plainly(step, columns)
        if turned.shape[-1] == columns.shape[-1] and turned.shape[:-1] == out.shape[:-1]:
            return turned
    if name == "__getitem__" and columns.shape[:-1] == out.shape[:-1]:  # some of the keys alone
        return columns
    raise NotReached(f"the module does {name} to its scores, which a prefix's cannot follow")


def over_keys(step: Step) -> bool:
    """Whether a step combines the scores with a tensor that has a number of its own for each of the module's keys."""
    others = [a for i, a in enumerate(step.args) if i != step.at and isinstance(a, Tensor)]
    return step.name in SHIFTS | SCALES and any(t.dim() > 0 and t.shape[-1] != 1 for t in others)


def plainly(step: Step, columns: Tensor) -> Tensor:
    """The step itself on other columns; one that writes in place writes to a copy."""
    if step.name.endswith("_"):
        columns = columns.clone()
    return step.func(*(columns if i == step.at else a for i, a in enumerate(step.args)), **step.kwargs)


def log_sum_exp(scores: Tensor) -> Tensor:
    """(..., T, 1) in at least fp32; of a row that sees no key the least number, so that gradients stay numbers."""
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return wide.clamp_min(torch.finfo(wide.dtype).min).logsumexp(-1, keepdim=True)


def written_of(path: tuple[Step, ...]) -> Written:
    """The attention whose steps these are, before any prefix."""
    ends = next(i for i, step in enumerate(path) if step.name in SOFTMAX)
    return Written(path, log_sum_exp(path[ends].args[path[ends].at]))
