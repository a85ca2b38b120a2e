"""y_i = x W_iᵀ + b_i + s_i · drop(x) A_iᵀ B_iᵀ for layers that read one x: q, k and v, or gate and up.

Their A are stacked, so that forward reads x once for all of them, and backward once for all their dA. They share one
dropout mask. The products with W_i stay apart, as they are without LoRA.

Legend: x (..., K) with M rows in all, W_i (N_i, K) frozen, b_i (N_i,), A_i (R_i, K), B_i (N_i, R_i), S (M, Σ R).
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from . import steps
from .check import check_factors, check_layer, check_lengths, launching, refuse_second_order
from .launch import matrix, shaped
from .lora import like
from .mask import draw_seed, threshold
from .steps import Drop


def lora_linear_stacked(
    x: Tensor, Ws: Sequence[Tensor], bs: Sequence[Tensor | None], As: Sequence[Tensor], Bs: Sequence[Tensor],
    scales: Sequence[float], p: float = 0.0, deterministic: bool = True, path: str | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """(x W_iᵀ + b_i + s_i · drop(x) A_iᵀ B_iᵀ)_i; shapes at the top of the file, the rest as in `lora_linear`."""
    call = "lora_linear_stacked"
    check_lengths(call, Ws=Ws, bs=bs, As=As, Bs=Bs, scales=scales)
    layers = [check_layer(f"{call}, layer {i}", x, W, b) for i, (W, b) in enumerate(zip(Ws, bs))]
    for i, (W, A, B) in enumerate(zip(Ws, As, Bs)):
        check_factors(f"{call}, layer {i}", W, A, B)
    x, Ws, bs = layers[0][0], [layer[1] for layer in layers], [layer[2] for layer in layers]
    seed = draw_seed(x) if threshold(p) else None
    scales = [float(s) for s in scales]
    if torch.compiler.is_compiling():
        given, biased = [b for b in bs if b is not None], [b is not None for b in bs]
        found = lora_linear_stacked_op(
            x, Ws, given, list(As), list(Bs), seed, biased, scales, float(p), deterministic, path
        )
        return tuple(found[:-1])
    return StackedLoRALinear.apply(x, seed, (scales, float(p), deterministic, path), *Ws, *bs, *As, *Bs)


def bounds(As: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Where each layer's ranks lie among all."""
    stops = list(accumulate(len(A) for A in As))
    return list(zip([0, *stops], stops))


def forward(
    x: Tensor, Ws: Sequence[Tensor], bs: Sequence[Tensor | None], As: Sequence[Tensor], Bs: Sequence[Tensor],
    seed: Tensor | None, scales: Sequence[float], p: float, path: str | None,
) -> tuple[list[Tensor], Tensor]:  # fmt: skip
    """The outputs and S."""
    rows, drop, lead = matrix(x), Drop(seed, p), x.shape[:-1]
    if rows.shape[0] == 0:
        return [x.new_empty(*lead, len(W)) for W in Ws], x.new_empty(0, sum(len(A) for A in As))
    with launching(x):
        S = steps.low(rows, torch.cat([like(A, x) for A in As]), sum(len(W) for W in Ws), drop, path)
        ys = [
            shaped(steps.output(rows, W, b, S[:, start:stop], like(B, x), s, path), lead)
            for W, b, B, s, (start, stop) in zip(Ws, bs, Bs, scales, bounds(As))
        ]
    return ys, S


def backward(
    dYs: Sequence[Tensor], x: Tensor | None, Ws: Sequence[Tensor], As: Sequence[Tensor], Bs: Sequence[Tensor],
    S: Tensor | None, seed: Tensor | None, scales: Sequence[float], p: float, deterministic: bool, path: str | None,
    need_x: bool, need_biases: Sequence[bool], need_as: Sequence[bool], need_bs: Sequence[bool],
) -> list[Tensor | None]:  # fmt: skip
    """[dx, every db, every dA, every dB], None for those not asked for."""
    n, lead, K = len(Ws), dYs[0].shape[:-1], Ws[0].shape[1]
    rows, drop = [matrix(dY) for dY in dYs], Drop(seed, p)
    found: list[Tensor | None] = [None] * (1 + 3 * n)
    if rows[0].shape[0] == 0:
        like_all = [dYs[0].new_empty(*lead, K), *(dY.new_empty(dY.shape[-1]) for dY in dYs), *As, *Bs]
        needs = [need_x, *need_biases, *need_as, *need_bs]
        return [torch.zeros_like(t) if need else None for t, need in zip(like_all, needs)]
    with launching(dYs[0]):
        low = []
        for i, (start, stop) in enumerate(bounds(As)):
            if need_biases[i]:
                found[1 + i] = rows[i].sum(0)
            own = S[:, start:stop] if S is not None and need_bs[i] else None
            B = like(Bs[i], rows[i]) if need_x or any(need_as) else None
            dS, dB = steps.low_gradients(rows[i], own, B, scales[i], K, drop, path, deterministic)
            low.append(dS)
            found[1 + 2 * n + i] = None if dB is None else dB.to(Bs[i].dtype)
        if need_x or any(need_as):
            dS = torch.cat(low, 1)
            if need_x:
                A = torch.cat([like(A, dS) for A in As])
                dx = steps.input_gradient(rows[0], Ws[0], dS, A, drop, path)
                for dY, W in zip(rows[1:], Ws[1:]):
                    dx.addmm_(dY, W)
                found[0] = shaped(dx, lead)
            if x is not None and any(need_as):
                dA = steps.factor_gradient(dS, matrix(x), sum(len(W) for W in Ws), drop, path)
                for i, (start, stop) in enumerate(bounds(As)):
                    if need_as[i]:  # a copy of its own: gradients that share memory surprise an optimizer
                        found[1 + n + i] = dA[start:stop].to(As[i].dtype, copy=True)
    return found


class StackedLoRALinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, seed, rest, *tensors):
        scales, p, _, path = ctx.rest = rest
        n = len(scales)
        Ws, bs, As, Bs = (tensors[i * n : (i + 1) * n] for i in range(4))
        As, Bs = [like(A, x) for A in As], [like(B, x) for B in Bs]
        ys, S = forward(x, Ws, bs, As, Bs, seed, scales, p, path)
        need = ctx.needs_input_grad[3:]
        ctx.save_for_backward(
            x if any(need[2 * n : 3 * n]) else None, S if any(need[3 * n :]) else None, seed, *Ws, *As, *Bs
        )
        return tuple(ys)

    @staticmethod
    def backward(ctx, *dYs):
        refuse_second_order()
        scales, p, deterministic, path = ctx.rest
        n = len(scales)
        x, S, seed, *tensors = ctx.saved_tensors
        Ws, As, Bs = (tensors[i * n : (i + 1) * n] for i in range(3))
        need = ctx.needs_input_grad[3:]
        need_biases, need_as, need_bs = (need[i * n : (i + 1) * n] for i in (1, 2, 3))
        dx, *rest = backward(
            dYs, x, Ws, As, Bs, S, seed, scales, p, deterministic, path, ctx.needs_input_grad[0],
            need_biases, need_as, need_bs,
        )  # fmt: skip
        return dx, None, None, *[None] * n, *rest


@torch.library.custom_op("deltatune::lora_linear_stacked", mutates_args=())
def lora_linear_stacked_op(
    x: Tensor, Ws: Sequence[Tensor], given: Sequence[Tensor], As: Sequence[Tensor], Bs: Sequence[Tensor],
    seed: Tensor | None, biased: Sequence[bool], scales: Sequence[float], p: float, deterministic: bool,
    path: str | None,
) -> list[Tensor]:  # fmt: skip
    """Every y, then S. `given` are the biases there are, those of the layers marked in `biased`: autograd takes no
    list of an op that has holes."""
    biases = iter(given)
    ys, S = forward(x, Ws, [next(biases) if has else None for has in biased], As, Bs, seed, scales, p, path)
    return [*ys, S]


@lora_linear_stacked_op.register_fake
def _(x, Ws, given, As, Bs, seed, biased, scales, p, deterministic, path):
    S = x.new_empty(x.numel() // x.shape[-1], sum(A.shape[0] for A in As))
    return [*(x.new_empty(*x.shape[:-1], W.shape[0]) for W in Ws), S]


@torch.library.custom_op("deltatune::lora_linear_stacked_backward", mutates_args=())
def lora_linear_stacked_backward_op(
    dYs: Sequence[Tensor], x: Tensor | None, Ws: Sequence[Tensor], As: Sequence[Tensor], Bs: Sequence[Tensor],
    S: Tensor | None, seed: Tensor | None, scales: Sequence[float], p: float, deterministic: bool, path: str | None,
    need_x: bool, need_biases: Sequence[bool], need_as: Sequence[bool], need_bs: Sequence[bool],
) -> list[Tensor]:  # fmt: skip
    found = backward(dYs, x, Ws, As, Bs, S, seed, scales, p, deterministic, path, need_x, need_biases, need_as, need_bs)
    return [gradient for gradient in found if gradient is not None]


@lora_linear_stacked_backward_op.register_fake
def _(dYs, x, Ws, As, Bs, S, seed, scales, p, deterministic, path, need_x, need_biases, need_as, need_bs):
    dx = dYs[0].new_empty(*dYs[0].shape[:-1], Ws[0].shape[1])
    of = [dx, *(dY.new_empty(dY.shape[-1]) for dY in dYs), *map(torch.empty_like, As), *map(torch.empty_like, Bs)]
    return [gradient for gradient, need in zip(of, [need_x, *need_biases, *need_as, *need_bs]) if need]


def save(ctx, inputs, output) -> None:
    x, Ws, _, As, Bs, seed, ctx.biased, *ctx.rest = inputs
    ctx.save_for_backward(x, output[-1], seed, *Ws, *As, *Bs)


def op_backward(ctx, dYs):
    n = len(ctx.biased)
    x, S, seed, *tensors = ctx.saved_tensors
    Ws, As, Bs = (tensors[i * n : (i + 1) * n] for i in range(3))
    need_x, _, need_given, need_as, need_bs, *_ = ctx.needs_input_grad
    needed = iter(need_given)
    need_biases = [has and next(needed) for has in ctx.biased]
    gradients = lora_linear_stacked_backward_op(
        dYs[:-1], x if any(need_as) else None, Ws, As, Bs, S if any(need_bs) else None, seed, *ctx.rest,
        need_x, need_biases, list(need_as), list(need_bs),
    )  # fmt: skip
    found = iter(gradients)
    dx, *rest = [next(found) if need else None for need in [need_x, *need_biases, *need_as, *need_bs]]
    dbs = [db for db, has in zip(rest[:n], ctx.biased) if has]
    return dx, [None] * n, dbs, rest[n : 2 * n], rest[2 * n :], *[None] * 6


lora_linear_stacked_op.register_autograd(op_backward, setup_context=save)
