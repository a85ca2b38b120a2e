"""The mathematics of `functional` with hand-written backwards: fewer passes over memory, less kept for the backward.

Made for the CPU, where a layer with a delta costs little more than the frozen one if its skinny products are laid out
well. On SmolLM2's 576 × 576 layers, 512 tokens in bf16, rank 16, one thread of an AVX-512 core: S Bᵀ added into the
frozen layer's own output takes 86 µs, S Bᵀ and a sum 131.

Legend: x (M, K), W (N, K) frozen, b (N,), A (R, K), B (N, R), S = s · drop(x) Aᵀ (M, R), y (M, N).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Places = np.ndarray[Any, np.dtype[np.int64]]
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


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


def dropped(n: int, p: float, seed: int) -> Places:
    """Where dropout with probability p falls among n elements, in no order and some of them several times.

    A function of its arguments alone, so the backward draws the places again. A Poisson number of uniform draws, of
    mean −n log(1 − p): how often an element is met is then Poisson too, independent of the others, and never with
    probability 1 − p. At p = 0.05 that is a tenth of the random numbers that a mask takes, and the change to a tensor
    is as small: 512 × 576 values take 0.05 ms to draw, torch's Bernoulli mask 0.9 (one thread).
    """
    generator = np.random.Generator(np.random.SFC64(seed))
    draws = generator.random(generator.poisson(-n * math.log1p(-p)))
    draws *= n
    return draws.astype(np.int64)


def memory(x: Tensor) -> np.ndarray[Any, Any]:
    """The elements of a contiguous tensor as integers of their bits, in one row: numpy knows no bfloat16."""
    return x.view(-1).view(BITS[x.dtype.itemsize]).numpy()


def zeroed(x: Tensor, places: Places) -> Tensor:
    """A copy of x, zero at these places."""
    out = x.clone(memory_format=torch.contiguous_format)
    memory(out)[places] = 0
    return out


def narrow_product(x: Tensor, a: Tensor) -> Tensor:
    """x aᵀ, (M, R) for few rows R of a.

    Under 16 columns in fp32 torch takes a quarter of the time for the transposed product (512 × 576, R 8, one thread:
    86 µs, not 336); from 16 on, and in bf16, the plain one is as fast or faster, on two threads by up to 30 %.
    """
    return torch.mm(a, x.t()).t() if x.dtype is torch.float32 and len(a) < 16 else torch.mm(x, a.t())


class LoRALinears(torch.autograd.Function):
    """yᵢ = x Wᵢᵀ + bᵢ + sᵢ · drop(x) Aᵢᵀ Bᵢᵀ for layers that read one x (..., K): one product with all A, one with dS.

    Sᵢ = sᵢ · drop(x) Aᵢᵀ and dSᵢ = sᵢ · dYᵢ Bᵢ with 1 / (1 − p) in sᵢ and mask for drop without it:
    dX = Σ dYᵢ Wᵢ + mask ⊙ (dS A);  dBᵢ = dYᵢᵀ Sᵢ;  dA = dSᵀ (mask ⊙ x), all Aᵢ as rows of one. Keeps x, S (M, Σ Rᵢ),
    the factors in x's dtype and a seed for the backward: no mask, no masked copy. layers: Wᵢ, bᵢ, Aᵢ, Bᵢ in turn, one
    such four for each of the scales.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, scales: tuple[float, ...], *layers: Any) -> tuple[Tensor, ...]:
        Ws, bs, As, Bs = layers[::4], layers[1::4], layers[2::4], layers[3::4]
        ctx.p, ctx.scales = p, [s / (1 - p) for s in scales]
        rows = x.reshape(-1, x.shape[-1])
        a = (As[0] if len(As) == 1 else torch.cat(As)).to(x.dtype)
        Bs = [B.to(x.dtype) for B in Bs]
        kept = rows
        if p:
            ctx.seed = drawn_seed()
            kept = zeroed(rows, dropped(x.numel(), p, ctx.seed))
        S = scaled(narrow_product(kept, a), ctx.scales, Bs)
        ys = []
        for W, b, B, own in zip(Ws, bs, Bs, by_layer(S, Bs)):
            y = F.linear(rows, W, b)
            y.addmm_(own, B.t())
            # autograd lets nobody change a view made here in place, as nn.ReLU(inplace=True) does; this is none, and
            # as quick (a layer's call 32 µs; 38 by aten._unsafe_view)
            ys.append(y.resize_(*x.shape[:-1], len(W)))
        wants_A, wants_B = any(ctx.needs_input_grad[5::4]), any(ctx.needs_input_grad[6::4])
        ctx.save_for_backward(x if wants_A else None, S if wants_B else None, a, *Ws, *Bs)
        return tuple(ys)

    @staticmethod
    def backward(ctx: Any, *dYs: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_order()
        x, S, a, *rest = ctx.saved_tensors
        Ws, Bs = rest[: len(dYs)], rest[len(dYs) :]
        wants_x, wants_A, wants_B = ctx.needs_input_grad[0], ctx.needs_input_grad[5::4], ctx.needs_input_grad[6::4]
        shape, ds = dYs[0].shape[:-1], [dY.reshape(-1, dY.shape[-1]) for dY in dYs]
        dX: Tensor | None = None
        grads: list[Tensor | None] = [None] * (4 * len(ds))
        if any(wants_B):
            for i, own in enumerate(by_layer(S, Bs)):
                if wants_B[i]:  # Sᵀ dY takes a ninth of the time of dYᵀ S (512 × 1536, fp32, R 8, one thread)
                    grads[4 * i + 3] = torch.mm(own.t(), ds[i]).t()
        if wants_x or any(wants_A):
            parts = [narrow_product(dY, B.t()) for dY, B in zip(ds, Bs)]
            dS = scaled(torch.cat(parts, 1) if len(parts) > 1 else parts[0], ctx.scales, Bs)
            places = dropped(len(dS) * a.shape[1], ctx.p, ctx.seed) if ctx.p else None
        if wants_x:
            dX = torch.mm(ds[0], Ws[0])
            for dY, W in zip(ds[1:], Ws[1:]):
                dX.addmm_(dY, W)
            if places is None:
                dX.addmm_(dS, a)
            else:  # nothing of S comes from a dropped element
                there = memory(dX)
                before = there.take(places)
                dX.addmm_(dS, a)
                there[places] = before
            dX = dX.view(*shape, dX.shape[-1])
        if any(wants_A):
            rows = x.reshape(-1, x.shape[-1])
            dA = torch.mm(dS.t(), rows if places is None else zeroed(rows, places))
            for i, own in enumerate(dA.split([B.shape[1] for B in Bs]) if len(Bs) > 1 else [dA]):
                grads[4 * i + 2] = own if wants_A[i] else None
        return dX, None, None, *grads


def by_layer(S: Tensor, Bs: Sequence[Tensor]) -> Sequence[Tensor]:
    """The columns of S that belong to each layer."""
    return S.split([B.shape[1] for B in Bs], 1) if len(Bs) > 1 else (S,)


def scaled(S: Tensor, scales: Sequence[float], Bs: Sequence[Tensor]) -> Tensor:
    """S with each layer's columns multiplied by its scale, in place."""
    if len(set(scales)) > 1:
        for own, s in zip(by_layer(S, Bs), scales):
            own.mul_(s)
    elif scales[0] != 1:
        S.mul_(scales[0])
    return S


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
            dg = (dY * h).reshape(-1, len(g)).sum(0).to(g.dtype)  # summed in fp32; fp32 products take ten times as long
        return dh, dg
