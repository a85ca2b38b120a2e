"""y = x Wᵀ + b + s · drop(x) Aᵀ Bᵀ with its gradients: a Function in eager, a custom op under torch.compile.

A custom op costs 67 µs a call and a Function 22, so the op serves torch.compile alone. Saved for backward: x itself,
S = drop(x) Aᵀ (M numbers a rank) and the seed; never a dropped-out copy of x, never a mask.

Legend: x (..., K) with M rows in all, W (N, K) frozen, b (N,), A (R, K), B (N, R), s scale, p dropout.
"""

import torch
from torch import Tensor

from . import steps
from .check import check_factors, check_layer, launching, refuse_second_order
from .launch import matrix, shaped
from .mask import draw_seed, threshold
from .steps import Drop


def lora_linear(
    x: Tensor, W: Tensor, b: Tensor | None, A: Tensor, B: Tensor, scale: float,
    p: float = 0.0, deterministic: bool = True, path: str | None = None,
) -> Tensor:  # fmt: skip
    """y = x Wᵀ + b + scale · drop(x) Aᵀ Bᵀ; x (..., K), W (N, K), b (N,) or None, A (R, K), B (N, R) -> (..., N).

    A and B may have any floating dtype (fp32 masters over a bf16 layer): they are computed with in x's dtype, their
    gradients come in their own. p drops elements of x on the low-rank way alone, by a seed from the generator of x's
    device; pass 0 outside training. `path` is "triton", "addmm", "plain", or None for the dispatch table's choice.
    """
    x, W, b = check_layer("lora_linear", x, W, b)
    check_factors("lora_linear", W, A, B)
    seed = draw_seed(x) if threshold(p) else None
    if torch.compiler.is_compiling():
        return lora_linear_op(x, W, b, A, B, seed, float(scale), float(p), deterministic, path)[0]
    return LoRALinear.apply(x, W, b, A, B, seed, (float(scale), float(p), deterministic, path))


def forward(
    x: Tensor, W: Tensor, b: Tensor | None, A: Tensor, B: Tensor, seed: Tensor | None, scale: float, p: float,
    path: str | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(y, S); y (..., N), S (M, R) in x's dtype."""
    rows, drop = matrix(x), Drop(seed, p)
    if rows.shape[0] == 0:
        return x.new_empty(*x.shape[:-1], len(W)), x.new_empty(0, len(A))
    with launching(x):
        S = steps.low(rows, like(A, x), len(W), drop, path)
        y = steps.output(rows, W, b, S, like(B, x), scale, path)
    return shaped(y, x.shape[:-1]), S


def backward(
    dY: Tensor, x: Tensor | None, W: Tensor, A: Tensor, B: Tensor, S: Tensor | None, seed: Tensor | None,
    scale: float, p: float, deterministic: bool, path: str | None, needs: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """(dx, db, dA, dB), those of x, b, A and B that `needs` asks for; x serves dA and S serves dB alone."""
    need_x, need_bias, need_a, need_b = needs
    rows, drop = matrix(dY), Drop(seed, p)
    dx = db = dA = dB = None
    if rows.shape[0] == 0:
        return (
            dY.new_zeros(*dY.shape[:-1], W.shape[1]) if need_x else None,
            dY.new_zeros(len(W)) if need_bias else None,
            torch.zeros_like(A) if need_a else None,
            torch.zeros_like(B) if need_b else None,
        )
    with launching(rows):
        if need_bias:
            db = rows.sum(0)
        dS, dB = steps.low_gradients(
            rows, S if need_b else None, like(B, rows) if need_x or need_a else None, scale, W.shape[1], drop,
            path, deterministic,
        )  # fmt: skip
        if dS is not None and need_x:
            dx = shaped(steps.input_gradient(rows, W, dS, like(A, rows), drop, path), dY.shape[:-1])
        if dS is not None and need_a and x is not None:
            dA = steps.factor_gradient(dS, matrix(x), len(W), drop, path).to(A.dtype)
    return dx, db, dA, None if dB is None else dB.to(B.dtype)


def like(master: Tensor, x: Tensor) -> Tensor:
    """A factor as the kernels read it: in x's dtype, rows one after the other."""
    return master.to(x.dtype).contiguous()


class LoRALinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, W, b, A, B, seed, rest):
        scale, p, _, path = ctx.rest = rest
        A, B = like(A, x), like(B, x)  # kept as they are cast; autograd casts their gradients back
        y, S = forward(x, W, b, A, B, seed, scale, p, path)
        _, _, _, need_a, need_b, *_ = ctx.needs_input_grad
        ctx.save_for_backward(x if need_a else None, W, A, B, S if need_b else None, seed)
        return y

    @staticmethod
    def backward(ctx, dY):  # pyright: ignore[reportIncompatibleMethodOverride]
        refuse_second_order()
        x, W, A, B, S, seed = ctx.saved_tensors
        need_x, _, need_bias, need_a, need_b, *_ = ctx.needs_input_grad
        needs = [need_x, need_bias, need_a, need_b]
        scale, p, deterministic, path = ctx.rest
        dx, db, dA, dB = backward(dY, x, W, A, B, S, seed, scale, p, deterministic, path, needs)
        return dx, None, db, dA, dB, None, None


@torch.library.custom_op("deltatune::lora_linear", mutates_args=())
def lora_linear_op(
    x: Tensor, W: Tensor, b: Tensor | None, A: Tensor, B: Tensor, seed: Tensor | None, scale: float, p: float,
    deterministic: bool, path: str | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return forward(x, W, b, A, B, seed, scale, p, path)


@lora_linear_op.register_fake
def _(x, W, b, A, B, seed, scale, p, deterministic, path):
    M = x.numel() // x.shape[-1]
    return x.new_empty(*x.shape[:-1], W.shape[0]), x.new_empty(M, A.shape[0])


@torch.library.custom_op("deltatune::lora_linear_backward", mutates_args=())
def lora_linear_backward_op(
    dY: Tensor, x: Tensor | None, W: Tensor, A: Tensor, B: Tensor, S: Tensor | None, seed: Tensor | None,
    scale: float, p: float, deterministic: bool, path: str | None, needs: list[bool],
) -> list[Tensor]:  # fmt: skip
    gradients = backward(dY, x, W, A, B, S, seed, scale, p, deterministic, path, needs)
    return [gradient for gradient in gradients if gradient is not None]


@lora_linear_backward_op.register_fake
def _(dY, x, W, A, B, S, seed, scale, p, deterministic, path, needs):
    of = dY.new_empty(*dY.shape[:-1], W.shape[1]), dY.new_empty(W.shape[0]), torch.empty_like(A), torch.empty_like(B)
    return [gradient for gradient, need in zip(of, needs) if need]


def save(ctx, inputs, output) -> None:
    x, W, _, A, B, seed, *ctx.rest = inputs
    ctx.save_for_backward(x, W, A, B, output[1], seed)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def op_backward(ctx, dY, _):
    x, W, A, B, S, seed = ctx.saved_tensors
    needs = [ctx.needs_input_grad[i] for i in (0, 2, 3, 4)]
    x, S = x if needs[2] else None, S if needs[3] else None  # what is not asked for need not be kept by the graph
    gradients = iter(lora_linear_backward_op(dY, x, W, A, B, S, seed, *ctx.rest, needs))
    dx, db, dA, dB = (next(gradients) if wanted else None for wanted in needs)
    return dx, None, db, dA, dB, None, None, None, None, None


lora_linear_op.register_autograd(op_backward, setup_context=save)
