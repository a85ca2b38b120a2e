"""The mathematics of `functional` with hand-written backwards: fewer passes over memory, less kept for the backward.

Made for the CPU, where a layer with a delta costs little more than the frozen one if its skinny products are laid out
well. On SmolLM2's 576 × 576 layers, 512 tokens in bf16, rank 16, one thread of an AVX-512 core: S Bᵀ added into the
frozen layer's own output takes 86 µs, S Bᵀ and a sum 131.

Legend: x (M, K), W (N, K) frozen, b (N,), A (R, K), B (N, R), S = s · drop(x) Aᵀ (M, R), y (M, N).
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.backends.cuda import SDPAParams, can_use_flash_attention
from torch.nn.attention import SDPBackend, sdpa_kernel

aten: Any = torch.ops.aten
LEVELS = 1 << 15  # of a dropout probability: 15 random bits an element
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def refuse_second_order() -> None:
    """Raise in a backward that is itself recorded: it is no function of torch's own that could be differentiated."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "this backward is not differentiable (create_graph=True); set DELTATUNE_KERNELS=off for the plain path, "
            "which is"
        )


def drawn_seed() -> int:
    """A seed from torch's generator, so that activation checkpointing, which restores it, draws the same mask again."""
    return int(torch.randint(2**63 - 1, ()))


def keep_mask(shape: torch.Size, p: float, seed: int, dtype: torch.dtype) -> tuple[Tensor, float]:
    """What dropout keeps, as all bits (keep) or none of integers as wide as the dtype, and the probability of keeping.

    A function of its arguments alone, so the backward makes the mask again. Four elements share 64 bits of SFC64: a
    fifth of the time of torch's Bernoulli draw. Probabilities are multiples of 2⁻¹⁵. One thread draws: a second one
    would fight with OpenMP's, which spins while it waits.
    """
    dropped = min(round(p * LEVELS), LEVELS - 1)
    words = np.random.SFC64(seed).random_raw(-(-shape.numel() // 4))
    bits = torch.from_numpy(words.view(np.int16))[: shape.numel()].view(shape)
    bits.bitwise_and_(LEVELS - 1).neg_().add_(dropped - 1)  # negative for what is kept
    return bits.bitwise_right_shift_(15).to(BITS[dtype.itemsize]), 1 - dropped / LEVELS


def masked(x: Tensor, keep: Tensor, out: Tensor) -> Tensor:
    """x where the mask keeps it, else zero, by its bits and in the memory of x or of the mask.

    Of 512 × 1536 values in bf16 that takes 0.03 ms, in new memory 0.5, with a bool mask 1.5.
    """
    kind = keep.dtype
    return torch.bitwise_and(x.view(kind), keep, out=out.view(kind)).view(x.dtype)


def attention_kernel(n_tokens: int, device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """A context that picks the kernel of scaled_dot_product_attention for training on so many tokens.

    torch's fused attention on the CPU is slow backwards in half precision where sequences are short: 8 × 9 heads of 64
    tokens in bf16 take 13.0 ms forward and backward, its plain form, which computes in fp32, 7.2 ms (one thread); at
    256 tokens they are equal. In fp32 the fused one is the faster, 6.0 ms to 8.1.
    """
    short = device.type == "cpu" and n_tokens <= 128 and dtype.itemsize == 2 and torch.is_grad_enabled()
    return sdpa_kernel(SDPBackend.MATH) if short and not torch.compiler.is_compiling() else nullcontext()


def keep_freed() -> None:
    """Let glibc keep freed memory for the next tensor; by default it gives the blocks of a training step back to the
    system and takes them again, page by page.

    A step of SmolLM2-135M, bf16, 8 × 64 tokens on two cores: LoRA 1.65 s before, 1.38 s after, at the same peak; full
    fine-tuning 1.95 s and 1.74 s, at a peak 7 % higher. It holds for the whole process, and cannot be undone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # another C library has none
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def scaled_product(a: Tensor, b: Tensor, s: float) -> Tensor:
    """s · a b in one call: the scale is part of the product."""
    return a @ b if s == 1 else torch.addmm(a.new_empty(()), a, b, beta=0, alpha=s)


def narrow_product(x: Tensor, a: Tensor, s: float = 1.0) -> Tensor:
    """s · x aᵀ, (M, R) for few rows R of a.

    Under 16 columns in fp32 torch takes a quarter of the time for the transposed product (512 × 576, R 8, one thread:
    86 µs, not 336); from 16 on, and in bf16, the plain one is as fast or faster, on two threads by up to 30 %.
    """
    if x.dtype is torch.float32 and len(a) < 16:
        return scaled_product(a, x.t(), s).t()
    return scaled_product(x, a.t(), s)


class LoRALinears(torch.autograd.Function):
    """yᵢ = x Wᵢᵀ + bᵢ + sᵢ · drop(x) Aᵢᵀ Bᵢᵀ for layers that read one x: one product with all A, one with all dS.

    With S = drop(x) Aᵀ, all A as rows of one: dSᵢ = sᵢ · dYᵢ Bᵢ;  dX = Σ dYᵢ Wᵢ + mask ⊙ (dS A);  dBᵢ = sᵢ · dYᵢᵀ Sᵢ;
    dA = dSᵀ drop(x). Keeps x, S (M, Σ Rᵢ), the factors in x's dtype and a seed for the backward: no mask, no masked
    copy. layers: Wᵢ, bᵢ, Aᵢ, Bᵢ in turn, one such four for each of the scales.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, scales: tuple[float, ...], *layers: Any) -> tuple[Tensor, ...]:
        ctx.p, ctx.scales, dropped = p, scales, x
        if p:
            ctx.seed = drawn_seed()
            keep, rate = keep_mask(x.shape, p, ctx.seed, x.dtype)
            dropped, ctx.scales = masked(x, keep, out=keep), tuple(s / rate for s in scales)
        Ws, bs, As, Bs = (layers[i::4] for i in range(4))
        ctx.ranks, ctx.dtypes = [len(A) for A in As], [(A.dtype, B.dtype) for A, B in zip(As, Bs)]
        a = (As[0] if len(As) == 1 else torch.cat(As)).to(x.dtype)
        Bs = [B.to(x.dtype) for B in Bs]
        S = narrow_product(dropped, a)
        ys = []
        for W, b, B, s, own in zip(Ws, bs, Bs, ctx.scales, S.split(ctx.ranks, 1)):
            ys.append(F.linear(x, W, b).addmm_(own, B.t(), alpha=s))
        wants_A, wants_B = any(ctx.needs_input_grad[5::4]), any(ctx.needs_input_grad[6::4])
        ctx.save_for_backward(x if wants_A else None, S if wants_B else None, a, *Ws, *Bs)
        return tuple(ys)

    @staticmethod
    def backward(ctx: Any, *dYs: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_order()
        n, ranks, scales = len(dYs), ctx.ranks, ctx.scales
        x, S, a, *rest = ctx.saved_tensors
        Ws, Bs = rest[:n], rest[n:]
        wants_A, wants_B = ctx.needs_input_grad[5::4], ctx.needs_input_grad[6::4]
        dX: Tensor | None = None
        dAs: list[Tensor | None] = [None] * n
        dBs: list[Tensor | None] = [None] * n
        if any(wants_B):
            for i, own in enumerate(S.split(ranks, 1)):
                if wants_B[i]:  # as Sᵀ dY: of 512 × 1536 in fp32 at R 8, one thread, 0.24 ms, where dYᵀ S takes 2.17
                    dBs[i] = scaled_product(own.t(), dYs[i], scales[i]).t().to(ctx.dtypes[i][1])
        if ctx.needs_input_grad[0] or any(wants_A):
            parts = [narrow_product(dY, B.t(), s) for dY, B, s in zip(dYs, Bs, scales)]
            dS = torch.cat(parts, 1) if n > 1 else parts[0]
            keep = keep_mask(torch.Size((len(dS), a.shape[1])), ctx.p, ctx.seed, a.dtype)[0] if ctx.p else None
        if ctx.needs_input_grad[0]:
            d = dYs[0] @ Ws[0]
            for dY, W in zip(dYs[1:], Ws[1:]):
                d.addmm_(dY, W)
            if keep is None:
                dX = d.addmm_(dS, a)
            else:
                change = dS @ a
                dX = d.add_(masked(change, keep, out=change))
        if any(wants_A):
            dropped = x if keep is None else masked(x, keep, out=keep)  # the mask's last use
            dA = (dS.t() @ dropped).to(ctx.dtypes[0][0])
            dAs = [d.to(kind[0]) if w else None for d, kind, w in zip(dA.split(ranks), ctx.dtypes, wants_A)]
        return dX, None, None, *(g for pair in zip(dAs, dBs) for g in (None, None, *pair))


class Rescale(torch.autograd.Function):
    """y = h + h ⊙ g, g (N,) over the last axis; dh = dY + dY ⊙ g in one pass, dg = Σ dY ⊙ h over rows."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, g: Tensor) -> Tensor:
        small = g.detach().to(h.dtype)
        ctx.save_for_backward(h if g.requires_grad else None, g)
        return torch.addcmul(h, h, small)

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, Tensor | None]:
        refuse_second_order()
        h, g = ctx.saved_tensors
        dh = torch.addcmul(dY, dY, g.to(dY.dtype)) if ctx.needs_input_grad[0] else None
        dg = None
        if ctx.needs_input_grad[1]:
            dg = (dY * h).flatten(0, -2).sum(0).to(g.dtype)  # summed in fp32; fp32 products take ten times as long
        return dh, dg


def returns_log_sum_exp(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether torch's flash attention, which tells it, takes these (B, H, T, D)."""
    if not q.is_cuda:
        return True
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
