"""Three products for a batch whose rows use different adapters; each program works on rows of one adapter.

    gather_shrink   L[m] = f_g · (keep ⊙ X)[m] P_gᵀ          S from x and A; dS from dY and B
    gather_expand   Y[m] += f_g · keep ⊙ (L[m] P_g)           y from S and B; dX from dS and A
    gather_outer    D_g = f_g · Σ_m L[m]ᵀ (keep ⊙ X)[m]       dA from dS and x; dB from S and dY

over the rows m of adapter g. The mask is drawn at a row's own number, whatever the order of the rows.

Legend: M rows, C columns, G adapters, R rank; X and Y (M, C), L (M, width), P and D (Σ R, C) packed, f (G,) fp32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import rank_block, settings
from .mask import keep_tile
from .routes import Pack, Routes
from .tiles import Tile


@triton.jit
def gather_shrink_kernel(
    x, p, low, order, table, firsts, ranks, factors, thresholds, seed, C, x_row, width,
    BM: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    entry = table + tl.program_id(0) * 3
    g = tl.load(entry)
    if g >= 0:
        at = tl.load(entry + 1) + tl.arange(0, BM)
        in_m = at < tl.load(entry + 2)
        rm = tl.load(order + at, mask=in_m, other=0)
        rr, rk = tl.program_id(1) * BR + tl.arange(0, BR), tl.arange(0, BK)
        in_r = rr < tl.load(ranks + g)
        p_at = p + (tl.load(firsts + g) + rr)[:, None].to(tl.int64) * C
        x_at = x + rm[:, None].to(tl.int64) * x_row
        if MASKED:
            key, t = tl.load(seed), tl.load(thresholds + g)
        acc = tl.zeros((BM, BR), tl.float32)
        for k in range(0, C, BK):
            in_k = (k + rk < C)[None, :]
            xs = tl.load(x_at + (k + rk)[None, :], mask=in_m[:, None] & in_k, other=0.0)
            ps = tl.load(p_at + (k + rk)[None, :], mask=in_r[:, None] & in_k, other=0.0)
            if UPCAST:
                xs, ps = xs.to(tl.float32), ps.to(tl.float32)
            if MASKED:
                xs = tl.where(keep_tile(key, rm, k, t, BK), xs, 0.0)
            acc = tl.dot(xs, tl.trans(ps), acc, input_precision=PRECISION)
        acc *= tl.load(factors + g)
        to = low + rm[:, None].to(tl.int64) * width + rr[None, :]
        tl.store(to, acc.to(low.dtype.element_ty), mask=in_m[:, None] & in_r[None, :])


@triton.jit
def gather_expand_kernel(
    low, p, y, order, table, firsts, ranks, factors, thresholds, seed, C, width,
    BM: tl.constexpr, BN: tl.constexpr, BR: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    entry, column = table + tl.program_id(0) * 3, tl.program_id(1) * BN
    g = tl.load(entry)
    if g >= 0:
        at = tl.load(entry + 1) + tl.arange(0, BM)
        in_m = at < tl.load(entry + 2)
        rm = tl.load(order + at, mask=in_m, other=0)
        rn, rr = column + tl.arange(0, BN), tl.arange(0, BR)
        in_n = (rn < C)[None, :]
        first, R = tl.load(firsts + g), tl.load(ranks + g)
        acc = tl.zeros((BM, BN), tl.float32)
        for r in range(0, R, BR):
            in_r = r + rr < R
            to = low + rm[:, None].to(tl.int64) * width + (r + rr)[None, :]
            a = tl.load(to, mask=in_m[:, None] & in_r[None, :], other=0.0)
            b = tl.load(
                p + (first + r + rr)[:, None].to(tl.int64) * C + rn[None, :], mask=in_r[:, None] & in_n, other=0.0
            )
            if UPCAST:
                a, b = a.to(tl.float32), b.to(tl.float32)
            acc = tl.dot(a, b, acc, input_precision=PRECISION)
        acc *= tl.load(factors + g)
        if MASKED:
            acc = tl.where(keep_tile(tl.load(seed), rm, column, tl.load(thresholds + g), BN), acc, 0.0)
        to = y + rm[:, None].to(tl.int64) * C + rn[None, :]
        was = tl.load(to, mask=in_m[:, None] & in_n, other=0.0).to(tl.float32)
        tl.store(to, (was + acc).to(y.dtype.element_ty), mask=in_m[:, None] & in_n)


@triton.jit
def gather_outer_kernel(
    low, x, out, order, segments, firsts, ranks, factors, thresholds, seed, C, x_row, width,
    BM: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    column, g = tl.program_id(0) * BK, tl.program_id(1)
    rk, rr = column + tl.arange(0, BK), tl.program_id(2) * BR + tl.arange(0, BR)
    in_k, in_r = (rk < C)[None, :], rr < tl.load(ranks + g)
    start, stop = tl.load(segments + 2 * g), tl.load(segments + 2 * g + 1)
    if MASKED:
        key, t = tl.load(seed), tl.load(thresholds + g)
    acc = tl.zeros((BR, BK), tl.float32)
    for m in range(start, stop, BM):
        at = m + tl.arange(0, BM)
        in_m = at < stop
        rm = tl.load(order + at, mask=in_m, other=0)
        row = rm[:, None].to(tl.int64)
        xs = tl.load(x + row * x_row + rk[None, :], mask=in_m[:, None] & in_k, other=0.0)
        ss = tl.load(low + row * width + rr[None, :], mask=in_m[:, None] & in_r[None, :], other=0.0)
        if UPCAST:
            xs, ss = xs.to(tl.float32), ss.to(tl.float32)
        if MASKED:
            xs = tl.where(keep_tile(key, rm, column, t, BK), xs, 0.0)
        acc = tl.dot(tl.trans(ss), xs, acc, input_precision=PRECISION)
    to = out + (tl.load(firsts + g) + rr)[:, None].to(tl.int64) * C + rk[None, :]
    tl.store(to, acc * tl.load(factors + g), mask=in_r[:, None] & in_k)


def gather_shrink(
    x: Tensor, p: Tensor, factor: Tensor, of: Pack, to: Routes, width: int, tile: Tile, seed: Tensor | None = None
) -> Tensor:
    """L (M, width) in X's dtype; what no adapter's rank reaches stays unset. tile m rows (as in `to`), k columns."""
    (M, C), BR = x.shape, rank_block(width)
    low = x.new_empty(M, width)
    gather_shrink_kernel[len(to.table), triton.cdiv(width, BR)](
        x, p, low, to.order, to.table, of.first, of.rank, factor, of.threshold, seed, C, x.stride(0), width,
        **settings(x, tile, BM=tile.m, BK=tile.k, BR=BR, MASKED=seed is not None),
    )  # fmt: skip
    return low


def gather_expand(
    y: Tensor, low: Tensor, p: Tensor, factor: Tensor, of: Pack, to: Routes, tile: Tile, seed: Tensor | None = None
) -> Tensor:
    """Y, in place; Y (M, C) contiguous. tile m rows (as in `to`), n columns."""
    C, width = y.shape[1], low.shape[1]
    gather_expand_kernel[len(to.table), triton.cdiv(C, tile.n)](
        low, p, y, to.order, to.table, of.first, of.rank, factor, of.threshold, seed, C, width,
        **settings(y, tile, BM=tile.m, BN=tile.n, BR=min(rank_block(width), 32), MASKED=seed is not None),
    )  # fmt: skip
    return y


def gather_outer(
    low: Tensor, x: Tensor, rows: int, factor: Tensor, of: Pack, to: Routes, tile: Tile, seed: Tensor | None = None
) -> Tensor:
    """D (rows = Σ R, C) in fp32; the rows of an adapter are added in order. tile m rows a step, n columns."""
    C, width, BR = x.shape[1], low.shape[1], rank_block(low.shape[1])
    out = x.new_empty(rows, C, dtype=torch.float32)
    gather_outer_kernel[triton.cdiv(C, tile.n), len(to.segments), triton.cdiv(width, BR)](
        low, x, out, to.order, to.segments, of.first, of.rank, factor, of.threshold, seed, C, x.stride(0), width,
        **settings(x, tile, BM=tile.m, BK=tile.n, BR=BR, MASKED=seed is not None),
    )  # fmt: skip
    return out
