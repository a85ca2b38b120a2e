"""y[m] = x[m] Wᵀ + b + s_g · drop(x[m]) A_gᵀ B_gᵀ with g = index[m]: many adapters in one batch, -1 for none.

The frozen layer is one product for all rows; the adapters, packed into one A and one B, are one grouped product each
way, whatever their number and ranks. Saved for backward: x, S and the index, which is sorted again.

Legend: x (..., K) with M rows in all, W (N, K) frozen, b (N,), index (M,), A_g (R_g, K), B_g (N, R_g), width the
largest rank; packed A (Σ R, K), packed Bᵀ (Σ R, N), S (M, width).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from . import grouped
from .check import check_factors, check_layer, check_lengths, launching, refuse_second_order
from .dispatch import arch_of, choose
from .launch import matrix, shaped
from .mask import draw_seed, keep, threshold
from .routes import Pack, Routes, pack, routes
from .tiles import Tile


def lora_linear_routed(
    x: Tensor, W: Tensor, b: Tensor | None, As: Sequence[Tensor], Bs: Sequence[Tensor], scales: Sequence[float],
    index: Tensor, p: float | Sequence[float] = 0.0, path: str | None = None,
) -> Tensor:  # fmt: skip
    """y (..., N); `index` (M,) names the adapter of each row of x flattened, -1 for none; p may differ by adapter.

    Two runs agree to the bit. `path` is "triton" (also "addmm": cuBLAS serves the frozen layer either way) or "plain".
    """
    call = "lora_linear_routed"
    ps = [float(p)] * len(As) if isinstance(p, int | float) else [float(one) for one in p]
    check_lengths(call, As=As, Bs=Bs, scales=scales, p=ps)
    x, W, b = check_layer(call, x, W, b)
    for g, (A, B) in enumerate(zip(As, Bs)):
        check_factors(f"{call}, adapter {g}", W, A, B)
    M = x.shape[:-1].numel()
    if index.shape != (M,) or index.dtype not in (torch.int32, torch.int64) or index.device != x.device:
        raise ValueError(
            f"{call}: index is {tuple(index.shape)} {index.dtype} on {index.device}; x {tuple(x.shape)} on {x.device} "
            f"needs one int32 or int64 a row, ({M},), beside it"
        )
    dropped = [threshold(one) for one in ps]
    seed = draw_seed(x) if any(dropped) else None
    scales = [float(s) for s in scales]
    if torch.compiler.is_compiling():
        return lora_linear_routed_op(x, W, b, list(As), list(Bs), index, seed, scales, ps, path)[0]
    return RoutedLoRALinear.apply(x, W, b, index, seed, scales, ps, path, *As, *Bs)


class Group:
    """One call's adapters and rows, and the three products on the path that was chosen."""

    def __init__(
        self, x: Tensor, index: Tensor, seed: Tensor | None, ranks: Sequence[int], scales: Sequence[float],
        ps: Sequence[float], path: str | None,
    ):  # fmt: skip
        self.index, self.seed, self.ranks, self.path, self.x = index, seed, tuple(ranks), path, x
        self.width, self.rows = max(self.ranks), sum(self.ranks)
        self.pack: Pack = pack(self.ranks, tuple(scales), tuple(ps), x.device)
        first = self.tile("gather_shrink", x)
        self.to: Routes = routes(index, len(self.ranks), first.m if first is not None else len(x))

    def tile(self, kernel: str, x: Tensor) -> Tile | None:
        """None for the plain path, which is the default only where no kernel runs: torch has no grouped product."""
        path = "triton" if self.path == "addmm" else self.path
        choice = choose(kernel, arch_of(x.device), x.dtype, len(x), x.shape[1], x.shape[1], self.width, True, path)
        return None if choice.path == "plain" else choice.tile

    def plain(self, x: Tensor, seed: Tensor | None):
        """Yield each adapter's number, its rows, those rows of x dropped out unscaled, and its place in the pack."""
        for g, (start, stop) in enumerate(self.to.segments.tolist()):
            rows, first = self.to.order[start:stop].long(), sum(self.ranks[:g])
            xs = x[rows]
            if seed is not None:
                xs = torch.where(keep(seed, rows, x.shape[1], int(self.pack.threshold[g])), xs, 0)
            yield g, rows, xs, slice(first, first + self.ranks[g])

    def shrink(self, x: Tensor, P: Tensor, factor: Tensor, seed: Tensor | None) -> Tensor:
        """L[m] = f_g · (keep ⊙ x)[m] P_gᵀ -> (M, width)."""
        tile = self.tile("gather_shrink", x)
        if tile is not None:
            return grouped.gather_shrink(x, P, factor, self.pack, self.to, self.width, tile, seed)
        low = x.new_zeros(len(x), self.width)
        for g, rows, xs, own in self.plain(x, seed):
            low[rows, : self.ranks[g]] = (xs @ P[own].T * factor[g]).to(x.dtype)
        return low

    def expand(self, y: Tensor, low: Tensor, P: Tensor, factor: Tensor, seed: Tensor | None) -> Tensor:
        """y[m] += f_g · keep ⊙ (L[m] P_g), in place."""
        tile = self.tile("gather_expand", y)
        if tile is not None:
            return grouped.gather_expand(y, low, P, factor, self.pack, self.to, tile, seed)
        for g, rows, kept, own in self.plain(torch.ones_like(y), seed):
            y[rows] += (kept * (low[rows, : self.ranks[g]] @ P[own]) * factor[g]).to(y.dtype)
        return y

    def outer(self, low: Tensor, x: Tensor, factor: Tensor, seed: Tensor | None) -> Tensor:
        """D_g = f_g · Σ_m L[m]ᵀ (keep ⊙ x)[m] -> (Σ R, columns of x)."""
        tile = self.tile("gather_outer", x)
        if tile is not None:
            return grouped.gather_outer(low, x, self.rows, factor, self.pack, self.to, tile, seed)
        out = x.new_zeros(self.rows, x.shape[1])
        for g, rows, xs, own in self.plain(x, seed):
            out[own] = (low[rows, : self.ranks[g]].T @ xs * factor[g]).to(x.dtype)
        return out


def pack_rows(factors: Sequence[Tensor], x: Tensor) -> Tensor:
    """The A, or the Bᵀ, one below the other in x's dtype."""
    return torch.cat([factor.to(x.dtype) for factor in factors])


def forward(
    x: Tensor, W: Tensor, b: Tensor | None, As: Sequence[Tensor], Bs: Sequence[Tensor], index: Tensor,
    seed: Tensor | None, scales: Sequence[float], ps: Sequence[float], path: str | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(y, S)."""
    rows = matrix(x)
    if rows.shape[0] == 0:
        return x.new_empty(*x.shape[:-1], len(W)), x.new_empty(0, max(len(A) for A in As))
    with launching(x):
        group = Group(rows, index, seed, [len(A) for A in As], scales, ps, path)
        S = group.shrink(rows, pack_rows(As, x), group.pack.rescale, seed)
        y = group.expand(F.linear(rows, W, b), S, pack_rows([B.T for B in Bs], x), group.pack.scale, None)
    return shaped(y, x.shape[:-1]), S


def backward(
    dY: Tensor, x: Tensor | None, W: Tensor, As: Sequence[Tensor], Bs: Sequence[Tensor], S: Tensor | None,
    index: Tensor, seed: Tensor | None, scales: Sequence[float], ps: Sequence[float], path: str | None,
    need_x: bool, need_bias: bool, need_as: Sequence[bool], need_bs: Sequence[bool],
) -> list[Tensor | None]:  # fmt: skip
    """[dx, db, every dA, every dB], None for those not asked for."""
    G, rows, lead = len(As), matrix(dY), dY.shape[:-1]
    gradients: list[Tensor | None] = [None] * (2 + 2 * G)
    if rows.shape[0] == 0:
        of = [dY.new_empty(*lead, W.shape[1]), dY.new_empty(len(W)), *As, *Bs]
        needs = [need_x, need_bias, *need_as, *need_bs]
        return [torch.zeros_like(t) if need else None for t, need in zip(of, needs)]
    with launching(rows):
        group = Group(rows, index, seed, [len(A) for A in As], scales, ps, path)
        stops = [sum(group.ranks[: g + 1]) for g in range(G)]
        own = [slice(stop - rank, stop) for stop, rank in zip(stops, group.ranks)]
        if need_bias:
            gradients[1] = rows.sum(0)
        if need_x or any(need_as):
            dS = group.shrink(rows, pack_rows([B.T for B in Bs], rows), group.pack.scale, None)
            if need_x:
                dx = group.expand(rows @ W, dS, pack_rows(As, rows), group.pack.rescale, seed)
                gradients[0] = shaped(dx, lead)
            if x is not None and any(need_as):
                dA = group.outer(dS, matrix(x), group.pack.rescale, seed)
                for g in range(G):
                    gradients[2 + g] = dA[own[g]].to(As[g].dtype, copy=True) if need_as[g] else None
        if S is not None and any(need_bs):
            dB = group.outer(S, rows, group.pack.scale, None)
            for g in range(G):
                gradients[2 + G + g] = dB[own[g]].T.to(Bs[g].dtype).contiguous() if need_bs[g] else None
    return gradients


class RoutedLoRALinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, W, b, index, seed, scales, ps, path, *factors):
        G = len(scales)
        As, Bs = factors[:G], factors[G:]
        y, S = forward(x, W, b, As, Bs, index, seed, scales, ps, path)
        need = ctx.needs_input_grad[8:]
        ctx.save_for_backward(x if any(need[:G]) else None, S if any(need[G:]) else None, W, index, seed, *factors)
        ctx.rest = scales, ps, path
        return y

    @staticmethod
    def backward(ctx, dY):  # pyright: ignore[reportIncompatibleMethodOverride]
        refuse_second_order()
        x, S, W, index, seed, *factors = ctx.saved_tensors
        scales, ps, path = ctx.rest
        G, need = len(scales), ctx.needs_input_grad
        dx, db, *rest = backward(
            dY, x, W, factors[:G], factors[G:], S, index, seed, scales, ps, path,
            need[0], need[2], need[8 : 8 + G], need[8 + G :],
        )  # fmt: skip
        return dx, None, db, None, None, None, None, None, *rest


@torch.library.custom_op("deltatune::lora_linear_routed", mutates_args=())
def lora_linear_routed_op(
    x: Tensor, W: Tensor, b: Tensor | None, As: Sequence[Tensor], Bs: Sequence[Tensor], index: Tensor,
    seed: Tensor | None, scales: Sequence[float], ps: Sequence[float], path: str | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return forward(x, W, b, As, Bs, index, seed, scales, ps, path)


@lora_linear_routed_op.register_fake
def _(x, W, b, As, Bs, index, seed, scales, ps, path):
    M = x.numel() // x.shape[-1]
    return x.new_empty(*x.shape[:-1], W.shape[0]), x.new_empty(M, max(A.shape[0] for A in As))


@torch.library.custom_op("deltatune::lora_linear_routed_backward", mutates_args=())
def lora_linear_routed_backward_op(
    dY: Tensor, x: Tensor | None, W: Tensor, As: Sequence[Tensor], Bs: Sequence[Tensor], S: Tensor | None,
    index: Tensor, seed: Tensor | None, scales: Sequence[float], ps: Sequence[float], path: str | None,
    need_x: bool, need_bias: bool, need_as: Sequence[bool], need_bs: Sequence[bool],
) -> list[Tensor]:  # fmt: skip
    found = backward(dY, x, W, As, Bs, S, index, seed, scales, ps, path, need_x, need_bias, need_as, need_bs)
    return [gradient for gradient in found if gradient is not None]


@lora_linear_routed_backward_op.register_fake
def _(dY, x, W, As, Bs, S, index, seed, scales, ps, path, need_x, need_bias, need_as, need_bs):
    of = [dY.new_empty(*dY.shape[:-1], W.shape[1]), dY.new_empty(W.shape[0])]
    of += [*map(torch.empty_like, As), *map(torch.empty_like, Bs)]
    return [gradient for gradient, need in zip(of, [need_x, need_bias, *need_as, *need_bs]) if need]


def save(ctx, inputs, output) -> None:
    x, W, _, As, Bs, index, seed, *ctx.rest = inputs
    ctx.G = len(As)
    ctx.save_for_backward(x, output[1], W, index, seed, *As, *Bs)


def op_backward(ctx, dY, _):
    G = ctx.G
    x, S, W, index, seed, *factors = ctx.saved_tensors
    need_x, _, need_bias, need_as, need_bs, *_ = ctx.needs_input_grad
    needs = [need_x, need_bias, *need_as, *need_bs]
    gradients = lora_linear_routed_backward_op(
        dY, x if any(need_as) else None, W, factors[:G], factors[G:], S if any(need_bs) else None, index, seed,
        *ctx.rest, need_x, need_bias, list(need_as), list(need_bs),
    )  # fmt: skip
    found = iter(gradients)
    dx, db, *rest = [next(found) if need else None for need in needs]
    return dx, None, db, rest[:G], rest[G:], None, None, None, None, None


lora_linear_routed_op.register_autograd(op_backward, setup_context=save)
