"""The mathematics of the methods in plain torch, the definition of every kernel, and the choice between the two.

`path` says how a call runs: "plain", as written here; "fast", by the hand-written backwards of `fast`; "triton", by
the fused kernels. All three agree to rounding. The environment variable DELTATUNE_KERNELS=off makes it plain always.

Legend: x (..., K) input, W (N, K) frozen weight, b (N,) bias, A (R, K) and B (N, R) low-rank factors, s scale.
Deltas keep fp32 parameters; they are computed in the dtype of their input, as the frozen layer is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from deltatune.fast import LoRALinears, Rescale


def like(parameter: Tensor, x: Tensor) -> Tensor:
    """The parameter in x's dtype (under autocast the operators cast for themselves)."""
    return parameter.to(x.dtype)


def path(x: Tensor, *others: Tensor | None, trained: bool = False) -> str:
    """How to compute on x beside these other tensors, frozen unless trained: "plain", "fast" or "triton".

    Plain is whatever needs torch's own differentiation: a base that is trained too, autocast, functorch, forward-mode
    AD, torch.jit.trace, tensor subclasses, mixed dtypes, torch.compile off CUDA; and everything with
    DELTATUNE_KERNELS=off.
    """
    if not x.is_cuda and (torch.compiler.is_compiling() or x.device.type != "cpu"):
        return "plain"
    for t in (x, *others):
        known = t is None or type(t) in (Tensor, nn.Parameter)
        if not known or (t is not None and t.dtype != x.dtype) or not x.is_floating_point():
            return "plain"
    wants = not trained and any(t is not None and t.requires_grad for t in others)
    if wants or torch.is_autocast_enabled(x.device.type) or torch._C._are_functorch_transforms_active():
        return "plain"
    if switched_off() or forward_ad._current_level >= 0 or torch._C._get_tracing_state() is not None:
        return "plain"
    if not x.is_cuda:
        return "fast"
    from deltatune import kernels  # type: ignore[attr-defined]  # kernels/fused

    return "triton" if kernels.available(x.device) else "plain"


def switched_off() -> bool:
    """Whether DELTATUNE_KERNELS says "off"; unset or "auto" is on, any other word a ValueError."""
    word = os.environ.get("DELTATUNE_KERNELS", "auto")
    if word not in ("auto", "off"):
        raise ValueError(f"DELTATUNE_KERNELS={word!r}: say off for the plain path, or auto")
    return word == "off"


class LoRALayer(NamedTuple):
    """One frozen linear layer and its low-rank change at scale s."""

    W: Tensor
    b: Tensor | None
    A: Tensor
    B: Tensor
    s: float


def lora_linear(x: Tensor, W: Tensor, b: Tensor | None, A: Tensor, B: Tensor, s: float, p: float = 0.0) -> Tensor:
    """x Wᵀ + b + s · drop(x) Aᵀ Bᵀ, drop with probability p and scaled by 1 / (1 − p); x (..., K) -> (..., N)."""
    way = path(x, W, b)
    if way == "plain":
        return F.linear(x, W, b) + low_rank(F.dropout(x, p), A, B, s)
    return lora_linears(x, [LoRALayer(W, b, A, B, s)], p, way)[0]


def lora_linears(x: Tensor, layers: Sequence[LoRALayer], p: float, way: str) -> tuple[Tensor, ...]:
    """`lora_linear` of several layers that read one x, with one dropout mask and one pass over x for all A.

    way: what `path` says of every layer, "fast" or "triton".
    """
    if way == "triton":
        from deltatune import kernels  # type: ignore[attr-defined]  # kernels/fused

        if len(layers) == 1:
            return (kernels.lora_linear(x, *layers[0], p),)
        return kernels.lora_linear_stacked(x, *zip(*layers), p)
    flat = [t for layer in layers for t in layer[:4]]
    return LoRALinears.apply(x, p, tuple(layer.s for layer in layers), *flat)


def along(v: Tensor, h: Tensor, axis: int) -> Tensor:
    """v (C,) shaped to broadcast along an axis of h."""
    return v.view([-1 if i == axis % h.dim() else 1 for i in range(h.dim())]) if axis != -1 else v


def rescaled(h: Tensor, g: Tensor, axis: int = -1) -> Tensor:
    """h + h ⊙ g; h (..., N, ...) with N at the axis, g (N,). Not h ⊙ (1 + g): in bf16, 1 + g has steps of 0.4 %."""
    if axis != -1 or path(h) == "plain" or torch.compiler.is_compiling():
        return torch.addcmul(h, h, along(like(g, h), h, axis))
    return Rescale.apply(h, g)


def low_rank(x: Tensor, A: Tensor, B: Tensor, s: float) -> Tensor:
    """s · (x Aᵀ) Bᵀ; x (..., K), A (R, K), B (N, R) -> (..., N)."""
    return F.linear(F.linear(x, like(A, x)) * s, like(B, x))


def low_rank_rows(ids: Tensor, A: Tensor, B: Tensor, s: float, padding: int | None = None) -> Tensor:
    """`low_rank` of one-hot rows, s · A[:, ids]ᵀ Bᵀ; ids (...), A (R, V), B (N, R) -> (..., N).

    padding: an id whose column gets no gradient.
    """
    return F.linear(F.embedding(ids, A.T, padding) * s, B)


def dora_norm(W: Tensor, A: Tensor, B: Tensor, s: float) -> Tensor:
    """The row norms of W + s·BA without building it, (N,) in fp32 (fp64 for fp64).

    ‖W + sBA‖² = ‖W‖² + rowsum((2s W Aᵀ + s² B A Aᵀ) ⊙ B), row by row.
    """
    wide = A.dtype
    squares = torch.linalg.vector_norm(W, dim=1, dtype=wide) ** 2
    rows = torch.addmm(F.linear(W, like(A, W)).to(wide), B, A @ A.T, beta=2 * s, alpha=s * s)
    return (squares + (rows * B).sum(1)).clamp_min(0).sqrt()
