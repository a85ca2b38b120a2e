"""S = (keep ⊙ X) Aᵀ / (1-p): the input read once, dropped out on the way, onto all the ranks that share it.

Legend: M rows, K columns, R rank (of one layer, or of several stacked); X (M, K), A (R, K), S (M, R).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import parts, rank_block, settings
from .mask import keep_tile, rescale
from .tiles import Tile


@triton.jit(do_not_specialize=["threshold"])
def shrink_kernel(
    x, a, s, seed, M, K, R, x_row, steps, factor, threshold,
    BM: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(2)
    rm, rr = tl.program_id(0) * BM + tl.arange(0, BM), tl.program_id(1) * BR + tl.arange(0, BR)
    rk = tl.arange(0, BK)
    wide_rm = rm.to(tl.int64)
    acc = tl.zeros((BM, BR), tl.float32)
    if MASKED:
        key = tl.load(seed)
    first = part * steps * BK
    for k in range(first, min(first + steps * BK, K), BK):
        in_k = (k + rk < K)[None, :]
        xs = tl.load(x + wide_rm[:, None] * x_row + (k + rk)[None, :], mask=(rm < M)[:, None] & in_k, other=0.0)
        ws = tl.load(a + rr[:, None].to(tl.int64) * K + (k + rk)[None, :], mask=(rr < R)[:, None] & in_k, other=0.0)
        if UPCAST:
            xs, ws = xs.to(tl.float32), ws.to(tl.float32)
        if MASKED:
            xs = tl.where(keep_tile(key, rm, k, threshold, BK), xs, 0.0)
        acc = tl.dot(xs, tl.trans(ws), acc, input_precision=PRECISION)
    at = s + (part.to(tl.int64) * M + wide_rm)[:, None] * R + rr[None, :]
    tl.store(at, (acc * factor).to(s.dtype.element_ty), mask=(rm < M)[:, None] & (rr < R)[None, :])


def shrink(x: Tensor, A: Tensor, tile: Tile, seed: Tensor | None = None, t: int = 0) -> Tensor:
    """S = (keep ⊙ X) Aᵀ / (1-p) -> (M, R) in X's dtype; tile m rows, k columns a step.

    Few rows leave most of a GPU idle, so K is split into parts then, each with its own fp32 sum, added in order.
    """
    (M, K), R = x.shape, A.shape[0]
    BR = rank_block(R)
    blocks = triton.cdiv(M, tile.m), triton.cdiv(R, BR)
    steps = triton.cdiv(triton.cdiv(K, tile.k), parts(blocks[0] * blocks[1], triton.cdiv(K, tile.k)))
    split = triton.cdiv(triton.cdiv(K, tile.k), steps)
    S = x.new_empty(split, M, R, dtype=x.dtype if split == 1 else torch.float32)
    shrink_kernel[(*blocks, split)](
        x, A, S, seed, M, K, R, x.stride(0), steps, rescale(t) if seed is not None else 1.0, t,
        **settings(x, tile, BM=tile.m, BK=tile.k, BR=BR, MASKED=seed is not None),
    )  # fmt: skip
    return S[0] if split == 1 else S.sum(0).to(x.dtype)
