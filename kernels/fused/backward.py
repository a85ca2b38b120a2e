"""The skinny gradients: dS and dB from one pass over dY, and dA from one pass over X with its mask drawn again.

Sums over many programs are partial sums in fp32, added in a fixed order, so two runs agree to the bit; atomics are
the option where that does not matter.

Legend: M rows, N outputs, K inputs, R rank; dY (M, N), X (M, K), A (R, K), B (N, R), S and dS (M, R).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import parts, rank_block, settings
from .mask import keep_tile, rescale
from .tiles import Tile


@triton.jit
def bwd_s_kernel(
    dy, b, s, ds, db, M, N, R, dy_row, s_row, steps, factor,
    BM: tl.constexpr, BN: tl.constexpr, BR: tl.constexpr, DS: tl.constexpr, DB: tl.constexpr, ATOMIC: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    slab, part = tl.program_id(0), tl.program_id(1)
    rn, rr, rm = slab * BN + tl.arange(0, BN), tl.program_id(2) * BR + tl.arange(0, BR), tl.arange(0, BM)
    in_n, in_r = rn < N, rr < R
    if DS:
        bs = tl.load(b + rn[:, None].to(tl.int64) * R + rr[None, :], mask=in_n[:, None] & in_r[None, :], other=0.0)
        if UPCAST:
            bs = bs.to(tl.float32)
    acc = tl.zeros((BN, BR), tl.float32)
    first = part * steps * BM
    for m in range(first, min(first + steps * BM, M), BM):
        row = (m + rm).to(tl.int64)[:, None]
        in_m = (m + rm < M)[:, None]
        ys = tl.load(dy + row * dy_row + rn[None, :], mask=in_m & in_n[None, :], other=0.0)
        if UPCAST:
            ys = ys.to(tl.float32)
        if DS:
            out = tl.dot(ys, bs, input_precision=PRECISION) * factor
            if ATOMIC:
                tl.atomic_add(ds + row * R + rr[None, :], out, mask=in_m & in_r[None, :], sem="relaxed")
            else:
                tl.store(ds + (slab.to(tl.int64) * M + row) * R + rr[None, :], out, mask=in_m & in_r[None, :])
        if DB:
            ss = tl.load(s + row * s_row + rr[None, :], mask=in_m & in_r[None, :], other=0.0)
            if UPCAST:
                ss = ss.to(tl.float32)
            acc = tl.dot(tl.trans(ys), ss, acc, input_precision=PRECISION)
    if DB:
        inside = in_n[:, None] & in_r[None, :]
        if ATOMIC:
            tl.atomic_add(db + rn[:, None].to(tl.int64) * R + rr[None, :], acc * factor, mask=inside, sem="relaxed")
        else:
            at = db + (part.to(tl.int64) * N + rn[:, None]) * R + rr[None, :]
            tl.store(at, acc * factor, mask=inside)


def bwd_s(
    dY: Tensor, S: Tensor | None, B: Tensor | None, s: float, tile: Tile, deterministic: bool = True
) -> tuple[Tensor | None, Tensor | None]:
    """dS = s · dY B -> (M, R) in dY's dtype, and dB = s · dYᵀ S -> (N, R) in fp32; tile m rows a step, n columns.

    Without B no dS is made, without S no dB.
    """
    given = S if S is not None else B
    if given is None:
        return None, None
    (M, N), R = dY.shape, given.shape[1]
    BR = rank_block(R)
    slabs, ranks, rows = triton.cdiv(N, tile.n), triton.cdiv(R, BR), triton.cdiv(M, tile.m)
    steps = triton.cdiv(rows, parts(slabs * ranks, rows))
    split = triton.cdiv(rows, steps)
    new = dY.new_empty if deterministic else dY.new_zeros
    dS = new(slabs if deterministic else 1, M, R, dtype=torch.float32) if B is not None else None
    dB = new(split if deterministic else 1, N, R, dtype=torch.float32) if S is not None else None
    bwd_s_kernel[slabs, split, ranks](
        dY, B, S, dS, dB, M, N, R, dY.stride(0), 0 if S is None else S.stride(0), steps, s,
        **settings(
            dY, tile,
            BM=tile.m, BN=tile.n, BR=BR, DS=dS is not None, DB=dB is not None, ATOMIC=not deterministic,
        ),
    )  # fmt: skip
    return None if dS is None else total(dS, dY.dtype), None if dB is None else total(dB, torch.float32)


@triton.jit(do_not_specialize=["threshold"])
def bwd_a_kernel(
    ds, x, da, seed, M, K, R, ds_row, x_row, steps, factor, threshold,
    BM: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    column, part = tl.program_id(0) * BK, tl.program_id(1)
    rk, rr, rm = column + tl.arange(0, BK), tl.program_id(2) * BR + tl.arange(0, BR), tl.arange(0, BM)
    in_k, in_r = (rk < K)[None, :], rr < R
    acc = tl.zeros((BR, BK), tl.float32)
    if MASKED:
        key = tl.load(seed)
    first = part * steps * BM
    for m in range(first, min(first + steps * BM, M), BM):
        row = (m + rm).to(tl.int64)[:, None]
        in_m = (m + rm < M)[:, None]
        xs = tl.load(x + row * x_row + rk[None, :], mask=in_m & in_k, other=0.0)
        ss = tl.load(ds + row * ds_row + rr[None, :], mask=in_m & in_r[None, :], other=0.0)
        if UPCAST:
            xs, ss = xs.to(tl.float32), ss.to(tl.float32)
        if MASKED:
            xs = tl.where(keep_tile(key, m + rm, column, threshold, BK), xs, 0.0)
        acc = tl.dot(tl.trans(ss), xs, acc, input_precision=PRECISION)
    at = da + (part.to(tl.int64) * R + rr[:, None]) * K + rk[None, :]
    tl.store(at, acc * factor, mask=in_r[:, None] & in_k)


def bwd_a(dS: Tensor, x: Tensor, tile: Tile, seed: Tensor | None = None, t: int = 0) -> Tensor:
    """dA = dSᵀ (keep ⊙ X) / (1-p) -> (R, K) in fp32; tile m rows a step, n columns of X."""
    (M, K), R = x.shape, dS.shape[1]
    BR = rank_block(R)
    columns, ranks, rows = triton.cdiv(K, tile.n), triton.cdiv(R, BR), triton.cdiv(M, tile.m)
    steps = triton.cdiv(rows, parts(columns * ranks, rows))
    split = triton.cdiv(rows, steps)
    dA = x.new_empty(split, R, K, dtype=torch.float32)
    bwd_a_kernel[columns, split, ranks](
        dS, x, dA, seed, M, K, R, dS.stride(0), x.stride(0), steps, rescale(t) if seed is not None else 1.0, t,
        **settings(x, tile, BM=tile.m, BK=tile.n, BR=BR, MASKED=seed is not None),
    )  # fmt: skip
    return total(dA, torch.float32)


def total(partial: Tensor, dtype: torch.dtype) -> Tensor:
    """The partial sums (P, ...) added up."""
    return (partial[0] if len(partial) == 1 else partial.sum(0)).to(dtype)
