"""The steps of a LoRA layer, each on the path that `choose` names; the plain path is the definition.

The low-rank term comes first and cuBLAS adds the big product to it: added afterwards it reads and writes the output
once more (8192 x 4096 -> 14336 in bf16 on an H200: 1525 µs, not 1646).

Legend: M rows, N outputs, K inputs, R rank; x (M, K), W (N, K), b (N,), A (R, K), B (N, R), S and dS (M, R). All of
one dtype, that of x; fp32 masters are cast once, by the caller.
"""

import torch
from torch import Tensor

from . import backward, products, shrink
from .dispatch import Choice, arch_of, choose
from .mask import keep, rescale, threshold


class Drop:
    """The dropout of one call: a seed (None: no dropout) and the threshold that p stands for."""

    def __init__(self, seed: Tensor | None, p: float):
        self.seed = seed
        self.t = threshold(p) if seed is not None else 0

    def __call__(self, x: Tensor) -> Tensor:
        """keep ⊙ x / (1-p), in plain torch."""
        if self.seed is None:
            return x
        return torch.where(keep(self.seed, x.shape[0], x.shape[1], self.t), x * rescale(self.t), 0)


UNMASKED = Drop(None, 0.0)  # stands for the layer's dropout in steps that no mask takes part in


def way(kernel: str, x: Tensor, N: int, K: int, R: int, drop: Drop, path: str | None) -> Choice:
    return choose(kernel, arch_of(x.device), x.dtype, x.shape[0], N, K, R, drop.seed is not None, path)


def low(x: Tensor, A: Tensor, N: int, drop: Drop, path: str | None) -> Tensor:
    """S = drop(x) Aᵀ -> (M, R)."""
    to = way("shrink", x, N, x.shape[1], len(A), drop, path)
    if to.tile is None or to.path == "plain":
        return drop(x) @ A.T
    return shrink.shrink(x, A, to.tile, drop.seed, drop.t)


def output(x: Tensor, W: Tensor, b: Tensor | None, S: Tensor, B: Tensor, s: float, path: str | None) -> Tensor:
    """y = x Wᵀ + b + s · S Bᵀ -> (M, N)."""
    to = way("linear_expand", x, W.shape[0], W.shape[1], B.shape[1], UNMASKED, path)
    if to.tile is None or to.path != "triton":
        low = S.new_empty(1) if b is None else b  # addmm reads what it adds only where beta is not 0
        return torch.addmm(low, S, B.T, beta=int(b is not None), alpha=s).addmm_(x, W.T)
    return products.linear_expand(x, W, b, S, B, s, to.tile)


def low_gradients(
    dY: Tensor, S: Tensor | None, B: Tensor | None, s: float, K: int, drop: Drop, path: str | None, deterministic: bool
) -> tuple[Tensor | None, Tensor | None]:
    """dS = s · dY B -> (M, R) and dB = s · dYᵀ S -> (N, R); without B no dS, without S no dB."""
    given = S if S is not None else B
    if given is None:
        return None, None
    to = way("bwd_s", dY, dY.shape[1], K, given.shape[1], UNMASKED, path)
    if to.tile is None or to.path != "triton":
        dS, dB = None if B is None else dY @ B, None if S is None else dY.T @ S
        if s != 1:
            for gradient in (dS, dB):
                if gradient is not None:
                    gradient.mul_(s)
        return dS, dB
    return backward.bwd_s(dY, S, B, s, to.tile, deterministic)


def input_gradient(dY: Tensor, W: Tensor, dS: Tensor, A: Tensor, drop: Drop, path: str | None) -> Tensor:
    """dX = dY W + keep ⊙ (dS A) / (1-p) -> (M, K)."""
    to = way("bwd_dx", dY, W.shape[0], W.shape[1], len(A), drop, path)
    if to.tile is None or to.path != "triton":
        return low_rank(dS, A, dY.shape[1], drop, path).addmm_(dY, W)
    return products.bwd_dx(dY, W, dS, A, to.tile, drop.seed, drop.t)


def low_rank(dS: Tensor, A: Tensor, N: int, drop: Drop, path: str | None) -> Tensor:
    """keep ⊙ (dS A) / (1-p) -> (M, K)."""
    to = way("low_rank", dS, N, A.shape[1], len(A), drop, path)
    if drop.seed is None or to.tile is None or to.path == "plain":
        return drop(dS @ A)
    return products.low_rank(dS, A, to.tile, drop.seed, drop.t)


def factor_gradient(dS: Tensor, x: Tensor, N: int, drop: Drop, path: str | None) -> Tensor:
    """dA = dSᵀ drop(x) -> (R, K)."""
    to = way("bwd_a", x, N, x.shape[1], dS.shape[1], drop, path)
    if to.tile is None or to.path == "plain":
        return dS.T @ drop(x)
    return backward.bwd_a(dS, x, to.tile, drop.seed, drop.t)
