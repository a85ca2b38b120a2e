"""The mathematics of the methods in plain torch, the definition of every kernel, and the choice between the two.

`path` says how a call runs: "plain", as written here; "fast", by the hand-written backwards of `fast`; "triton", by
the fused kernels. All three agree to rounding. The environment variable DELTATUNE_KERNELS=off makes it plain always.

Legend: x (..., K) input, W (N, K) frozen weight, b (N,) bias, A (R, K) and B (N, R) low-rank factors, s scale.
Deltas keep fp32 parameters; they are computed in the dtype of their input, as the frozen layer is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn

from deltatune.fast import LoRALinears, PrefixedCausal, Rescale, attention_kernel, returns_log_sum_exp


def like(parameter: Tensor, x: Tensor) -> Tensor:
    """The parameter in x's dtype (under autocast the operators cast for themselves)."""
    return parameter.to(x.dtype)


def path(x: Tensor, *others: Tensor | None, trained: bool = False) -> str:
    """How to compute on x beside these other tensors, frozen unless trained: "plain", "fast" or "triton".

    Plain is whatever needs torch's own differentiation: a base that is trained too, autocast, functorch, tensor
    subclasses, mixed dtypes, torch.compile off CUDA; and everything with DELTATUNE_KERNELS=off.
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
    if switched_off():
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
    ys = LoRALinears.apply(x.reshape(-1, x.shape[-1]), p, tuple(layer.s for layer in layers), *flat)
    return tuple(y.view(*x.shape[:-1], y.shape[-1]) for y in ys)


def rescaled(h: Tensor, g: Tensor) -> Tensor:
    """h + h ⊙ g; h (..., N), g (N,). Not h ⊙ (1 + g): in bf16, 1 + g has steps of 0.4 %."""
    if path(h) == "plain" or torch.compiler.is_compiling():
        return torch.addcmul(h, h, like(g, h))
    return Rescale.apply(h, g)


def low_rank(x: Tensor, A: Tensor, B: Tensor, s: float) -> Tensor:
    """s · (x Aᵀ) Bᵀ; x (..., K), A (R, K), B (N, R) -> (..., N)."""
    return F.linear(F.linear(x, like(A, x)) * s, like(B, x))


def low_rank_rows(ids: Tensor, A: Tensor, B: Tensor, s: float) -> Tensor:
    """`low_rank` of one-hot rows, s · A[:, ids]ᵀ Bᵀ; ids (...), A (R, V), B (N, R) -> (..., N)."""
    return F.linear(F.embedding(ids, A.T) * s, B)


def dora_norm(W: Tensor, A: Tensor, B: Tensor, s: float) -> Tensor:
    """The row norms of W + s·BA without building it, (N,) in fp32 (fp64 for fp64).

    ‖W + sBA‖² = ‖W‖² + 2s · rowsum((W Aᵀ) ⊙ B) + s² · rowsum((B A Aᵀ) ⊙ B), row by row.
    """
    wide = A.dtype
    squares = torch.linalg.vector_norm(W, dim=1, dtype=wide) ** 2
    cross = (F.linear(W, like(A, W)).to(wide) * B).sum(1)
    delta = (B @ (A @ A.T) * B).sum(1)
    return (squares + 2 * s * cross + s * s * delta).clamp_min(0).sqrt()


def allowed(mask: Tensor | None, is_causal: bool, q: Tensor, k: Tensor) -> Tensor | None:
    """scaled_dot_product_attention's two kinds of mask as one: the mask given, or the top-left aligned causal one."""
    if not is_causal:
        return mask
    return torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()


def by_head(p: Tensor, heads: int) -> Tensor:
    """Key/value heads repeated for the query heads that share them: (H_kv, L, D) -> (heads, L, D)."""
    return p if p.shape[0] == heads else repeat(p, "h l d -> (h g) l d", g=heads // p.shape[0])


def attend_prefixed(
    base: Callable[..., Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pk: Tensor,
    pv: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **kwargs: Any,
) -> Tensor:
    """Attention over [P; K]: prefix keys and values in front, seen by every query.

    q (B, H, T, D), k and v (B, H or H_kv, S, D), pk and pv (H_kv, L, D) -> (B, H, T, D).
    """
    length = pk.shape[-2]
    way = "plain" if torch.compiler.is_compiling() else path(q, k, v, trained=True)
    if way != "plain" and base is F.scaled_dot_product_attention and is_causal and attn_mask is None and not dropout_p:
        long, scale = q.shape[-2] >= 256, kwargs.get("scale") or 1 / math.sqrt(q.shape[-1])
        if long and q.dim() == 4 and q.shape == k.shape == v.shape and returns_log_sum_exp(q, k, v):
            return PrefixedCausal.apply(q, k, v, *(by_head(like(p, q), q.shape[1]) for p in (pk, pv)), scale)
    mask = allowed(attn_mask, is_causal, q, k)
    if mask is not None:
        if mask.shape[-1] == 1:  # a mask that broadcasts over keys has to be spelt out before it is extended
            mask = mask.expand(*mask.shape[:-1], k.shape[-2])
        mask = F.pad(mask, (length, 0), value=True if mask.dtype is torch.bool else 0.0)

    def prepend(p: Tensor, to: Tensor) -> Tensor:
        p = by_head(like(p, to), to.shape[-3])
        return torch.cat([p.expand(*to.shape[:-3], *p.shape), to], -2)

    with attention_kernel(q.shape[-2], q.device, q.dtype) if way == "fast" else nullcontext():
        return base(q, prepend(pk, k), prepend(pv, v), attn_mask=mask, dropout_p=dropout_p, **kwargs)


def attend_gated(
    base: Callable[..., Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pk: Tensor,
    pv: Tensor,
    gate: Tensor | float,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **kwargs: Any,
) -> Tensor:
    """Attention with the prefix's share gated: attn(K) + g·λ·(attn(P) − attn(K)); gate g (H_kv,) or a number.

    λ = sigmoid(lse(P) − lse(K)) is the softmax mass on the prefix (He et al. 2022, eq. 7), so g = 1 is attention over
    [P; K] exactly and g = 0 the base exactly. Shapes as in `attend_prefixed`.
    """
    h = base(q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, scale=scale, **kwargs)
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    heads = q.shape[-3]
    keys = k if k.shape[-3] == heads else k.repeat_interleave(heads // k.shape[-3], -3)
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (q @ keys.transpose(-1, -2)).to(wide) * factor
    mask = allowed(attn_mask, is_causal, q, k)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype is torch.bool else scores + mask
    pk, pv = by_head(like(pk, q), heads), by_head(like(pv, q), heads)
    prefix_scores = (q @ pk.transpose(-1, -2)).to(wide) * factor
    share = torch.sigmoid(prefix_scores.logsumexp(-1, keepdim=True) - scores.logsumexp(-1, keepdim=True))
    share = share * (by_head(gate[:, None, None], heads) if isinstance(gate, Tensor) else gate)
    prefix = prefix_scores.softmax(-1).to(q.dtype) @ pv
    return h + (share * (prefix - h)).to(h.dtype)
