"""Attention with and without a prefix: the mathematics in plain torch, and what is faster than torch's own.

Legend: q (B, H, T, D) queries, k and v (B, H or H_kv, S, D) keys and values, pk and pv (H_kv, L, D) those of a prefix;
o (B, H, T, D); p (B, H, T, S) the softmax of the scores, lse (B, H, T) their log-sum-exp.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypedDict, Unpack

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor
from torch.backends.cuda import SDPAParams, can_use_flash_attention

from deltatune.fast import refuse_second_order
from deltatune.functional import like, path

aten: Any = torch.ops.aten
SDPA = F.scaled_dot_product_attention  # torch's own, also where `attend` stands in for it
SHORT = 128  # queries and keys, up to which p is worth keeping
displaced: list[Any] = []  # one function a block; the last to close puts back the first
installing = threading.Lock()


class How(TypedDict, total=False):
    """The keyword arguments of scaled_dot_product_attention, as a host gave them."""

    attn_mask: Tensor | None
    dropout_p: float
    is_causal: bool
    scale: float | None
    enable_gqa: bool


def allowed(mask: Tensor | None, is_causal: bool, q: Tensor, k: Tensor) -> Tensor | None:
    """scaled_dot_product_attention's two kinds of mask as one: the mask given, or the top-left aligned causal one."""
    if not is_causal:
        return mask
    return torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()


def by_head(p: Tensor, heads: int) -> Tensor:
    """Key/value heads repeated for the query heads that share them: (H_kv, L, D) -> (heads, L, D)."""
    return p if p.shape[0] == heads else repeat(p, "h l d -> (h g) l d", g=heads // p.shape[0])


class ShortAttention(torch.autograd.Function):
    """(o, lse or None) of softmax(scale · q kᵀ + bias) v with p kept for the backward; heads that share keys as one.

    ds = p ⊙ (do vᵀ − Σ do ⊙ o + dlse);  dq = scale · ds k, dk = scale · dsᵀ q, dv = pᵀ do. Scores and softmax in fp32,
    as bf16 scores would double the error of o. A query that may see no key gets zeros, as from torch.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, tell: bool
    ) -> tuple[Tensor, Tensor | None]:
        shape, S = q.shape, k.shape[2]
        ctx.shapes, ctx.scale = (shape, k.shape, v.shape), scale
        q, k, v = (t.reshape(k.shape[0] * k.shape[1], -1, t.shape[-1]) for t in (q, k, v))
        scores = torch.bmm(q.float(), k.float().transpose(1, 2)).view(*shape[:3], S)
        scores = scores.mul_(scale) if bias is None else torch.add(bias, scores, alpha=scale)
        p = scores.softmax(-1)
        if bias is not None and bias.dim() == 4:  # a row without a key, where softmax is no number; causal has none
            p.masked_fill_(bias == -math.inf, 0)
        # the largest score less the log of its share: logsumexp itself takes three times as long
        lse = scores.amax(-1) - p.amax(-1).clamp_min(1e-30).log() if tell else None
        p = p.to(q.dtype).view(len(q), -1, S)
        ctx.save_for_backward(q, k, v, p)
        return torch.bmm(p, v).resize_(*shape[:3], v.shape[-1]), lse  # no view, as in `LoRALinears`

    @staticmethod
    def backward(ctx: Any, do: Tensor, dlse: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_order()
        q, k, v, p = ctx.saved_tensors
        do = do.reshape(len(q), -1, do.shape[-1])
        ds = aten._softmax_backward_data(torch.bmm(do, v.transpose(1, 2)).float(), p.float(), -1, torch.float32)
        if dlse is not None:
            ds.addcmul_(dlse.reshape(len(q), -1, 1), p)
        ds = ds.mul_(ctx.scale).to(q.dtype)
        grads = torch.bmm(ds, k), torch.bmm(ds.transpose(1, 2), q), torch.bmm(p.transpose(1, 2), do)
        return *(g.view(shape) for g, shape in zip(grads, ctx.shapes)), None, None, None


def attend_short(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool, scale: float | None, tell: bool = False
) -> tuple[Tensor, Any] | None:
    """`ShortAttention` where it fits and is the faster one: training on short sequences on a CPU. None elsewhere.

    8 × 9 heads that share 3 of 64 tokens, forward and backward on two threads: in bf16 1.5 ms, torch's fused kernel
    6.5, its plain form 3.4; in fp32 2.2, 2.8 and 3.2. At 128 tokens 6.4, 20.6 and 10.7; 8.6, 11.3 and 11.9.
    """
    if q.device.type != "cpu" or not torch.is_grad_enabled() or q.dtype not in (torch.bfloat16, torch.float32):
        return None
    if q.dim() != 4 or k.dim() != 4 or v.dim() != 4 or max(q.shape[2], k.shape[2]) > SHORT:
        return None
    if k.shape[:3] != v.shape[:3] or k.shape[0] != q.shape[0] or not k.shape[1] or q.shape[1] % k.shape[1]:
        return None
    if (mask is not None and (is_causal or mask.requires_grad)) or 0 in q.shape + k.shape + v.shape:
        return None
    if torch.compiler.is_compiling() or path(q, k, v, trained=True) != "fast":
        return None
    bias = allowed(mask, is_causal, q, k)
    if bias is not None and bias.dtype is torch.bool:
        bias = torch.zeros(bias.shape).masked_fill_(~bias, -math.inf)
    if bias is not None and not is_causal:
        bias = bias.float().view(*[1] * (4 - bias.dim()), *bias.shape)
    return ShortAttention.apply(q, k, v, bias, 1 / math.sqrt(q.shape[-1]) if scale is None else scale, tell)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """torch's scaled_dot_product_attention, by `ShortAttention` where that is the faster one."""
    watched = torch._C._len_torch_function_stack() > 0  # an attention delta looks for torch's own
    if not watched and not dropout_p and (enable_gqa or query.shape[-3] == key.shape[-3]):
        short = attend_short(query, key, value, attn_mask, is_causal, scale)
        if short is not None:
            return short[0]
    return SDPA(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)


@contextmanager
def fast_attention() -> Iterator[None]:
    """A block in which whoever calls scaled_dot_product_attention gets `attend`, in every thread.

    The backward belongs inside too: activation checkpointing computes the forward again there.
    """
    with installing:
        displaced.append(F.scaled_dot_product_attention)
        F.scaled_dot_product_attention = attend  # type: ignore[assignment]
    try:
        yield
    finally:
        with installing:
            F.scaled_dot_product_attention = displaced.pop()


def returns_log_sum_exp(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether torch's flash attention, which tells it, takes these (B, H, T, D); the CPU's takes D as dense unasked."""
    if not q.is_cuda:
        return q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
    return q.shape[-1] % 8 == 0 and can_use_flash_attention(SDPAParams(q, k, v, None, 0.0, True, False))


def causal_flash(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
    """(o, log-sum-exp (B, H, T), what `causal_flash_backward` needs beside them)."""
    if not q.is_cuda:
        return *aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True, scale=scale), ()
    o, lse, first, last, T, S, seed, offset, _ = aten._scaled_dot_product_flash_attention(
        q, k, v, 0.0, True, scale=scale
    )
    return o, lse, (first, last, T, S, 0.0, True, seed, offset)


def causal_flash_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, rest: tuple[Any, ...], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv); o and lse may be those of more keys than k, the gradients are then exactly this part's."""
    if not q.is_cuda:
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(do, q, k, v, o, lse, 0.0, True, scale=scale)
    return aten._scaled_dot_product_flash_attention_backward(do, q, k, v, o, lse, *rest, scale=scale)


class PrefixedCausal(torch.autograd.Function):
    """Causal attention over [P; K], every query seeing all of P, without a mask; q, k, v (B, H, T, D), p (H, L, D).

    Both parts attend apart and join by their log-sum-exps: with l = log Σ exp of all scores, o = exp(l_K − l) o_K +
    exp(s_P − l) p_v. The fused kernel's backward, given o and l of the whole, is that of its own part exactly.
    At 16 prefix tokens in bf16 on one thread, 0.67 of the time of a mask at 1,024 tokens, 0.82 at 512, 0.98 at 256.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, pk: Tensor, pv: Tensor, scale: float) -> Tensor:
        o, lse, ctx.rest = causal_flash(q, k, v, scale)
        scores = (q @ pk.transpose(-1, -2)).to(lse.dtype) * scale
        whole = torch.logaddexp(lse, scores.logsumexp(-1))
        o = o * (lse - whole).exp()[..., None].to(o.dtype) + (scores - whole[..., None]).exp().to(pv.dtype) @ pv
        ctx.save_for_backward(q, k, v, pk, pv, o, whole)
        ctx.scale = scale
        return o

    @staticmethod
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_order()
        q, k, v, pk, pv, o, whole = ctx.saved_tensors
        dq, dk, dv = causal_flash_backward(do, q, k, v, o, whole, ctx.rest, ctx.scale)
        scores = (q @ pk.transpose(-1, -2)).to(whole.dtype) * ctx.scale
        share = (scores - whole[..., None]).exp()
        mean = (do * o).sum(-1, keepdim=True, dtype=whole.dtype)
        ds = (share * ((do @ pv.transpose(-1, -2)).to(whole.dtype) - mean) * ctx.scale).to(q.dtype)
        dpk = (ds.transpose(-1, -2) @ q).sum(0)
        dpv = (share.to(do.dtype).transpose(-1, -2) @ do).sum(0)
        return dq + ds @ pk, dk, dv, dpk, dpv, None


def attend_prefixed(
    base: Callable[..., Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pk: Tensor,
    pv: Tensor,
    **how: Unpack[How],
) -> Tensor:
    """Attention over [P; K]: prefix keys and values in front, seen by every query.

    q (B, H, T, D), k and v (B, H or H_kv, S, D), pk and pv (H_kv, L, D) -> (B, H, T, D).
    """
    length, mask, is_causal = pk.shape[-2], how.pop("attn_mask", None), how.pop("is_causal", False)
    way = "plain" if torch.compiler.is_compiling() else path(q, k, v, trained=True)
    if way != "plain" and base is SDPA and is_causal and mask is None and not how.get("dropout_p"):
        long, scale = q.shape[-2] >= 256, how.get("scale") or 1 / math.sqrt(q.shape[-1])
        if long and q.dim() == 4 and q.shape == k.shape == v.shape and returns_log_sum_exp(q, k, v):
            return PrefixedCausal.apply(q, k, v, *(by_head(like(p, q), q.shape[1]) for p in (pk, pv)), scale)
    mask = allowed(mask, is_causal, q, k)
    if mask is not None:
        if mask.shape[-1] == 1:  # a mask that broadcasts over keys has to be spelt out before it is extended
            mask = mask.expand(*mask.shape[:-1], k.shape[-2])
        mask = F.pad(mask, (length, 0), value=True if mask.dtype is torch.bool else 0.0)

    def prepend(p: Tensor, to: Tensor) -> Tensor:
        p = by_head(like(p, to), to.shape[-3])
        return torch.cat([p.expand(*to.shape[:-3], *p.shape), to], -2)

    if base is SDPA:
        base = attend
    how["attn_mask"] = mask
    return base(q, prepend(pk, k), prepend(pv, v), **how)


def attend_gated(
    base: Callable[..., Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pk: Tensor,
    pv: Tensor,
    gate: Tensor | float,
    **how: Unpack[How],
) -> Tensor:
    """Attention with the prefix's share gated: attn(K) + g·λ·(attn(P) − attn(K)); gate g (H_kv,) or a number.

    λ = sigmoid(lse(P) − lse(K)) is the softmax mass on the prefix (He et al. 2022, eq. 7), so g = 1 is attention over
    [P; K] exactly and g = 0 the base exactly (to rounding where `ShortAttention` stands for it). Shapes as in
    `attend_prefixed`.
    """
    mask, is_causal, scale = how.get("attn_mask"), how.get("is_causal", False), how.get("scale")
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    heads, wide = q.shape[-3], torch.promote_types(q.dtype, torch.float32)
    both = None
    if base is SDPA and not how.get("dropout_p"):
        both = attend_short(q, k, v, mask, is_causal, factor, tell=True)
    if both is not None:
        h, lse = both
    else:
        h = base(q, k, v, **how)
        keys = k if k.shape[-3] == heads else k.repeat_interleave(heads // k.shape[-3], -3)
        scores = (q @ keys.transpose(-1, -2)).to(wide) * factor
        mask = allowed(mask, is_causal, q, k)
        if mask is not None:
            if mask.dtype is torch.bool:
                scores = scores.masked_fill(~mask, -math.inf)
            else:  # the gradient of a row of -inf alone is no number, and nothing masks it for q and k
                scores = (scores + mask).clamp_min(torch.finfo(wide).min)
        lse = scores.logsumexp(-1)
    pk, pv = by_head(like(pk, q), heads), by_head(like(pv, q), heads)
    prefix_scores = (q @ pk.transpose(-1, -2)).to(wide) * factor
    share = torch.sigmoid(prefix_scores.logsumexp(-1) - lse)[..., None]
    share = share * (by_head(gate[:, None, None], heads) if isinstance(gate, Tensor) else gate)
    prefix = prefix_scores.softmax(-1).to(q.dtype) @ pv
    return h + (share * (prefix - h)).to(h.dtype)
