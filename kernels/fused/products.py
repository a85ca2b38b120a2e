"""The two big products with the low-rank term inside: `linear_expand` and `bwd_dx`, one Triton kernel.

Y = b + f · keep ⊙ (L P) + X W, where the low-rank term is computed first and the big product accumulates onto it: no
second accumulator is ever alive, so the mask costs no spill (in an epilogue it did).

Legend: M rows, K reduced columns, N output columns, R rank; X (M, K), W (K, N) by strides, L (M, R), P (R, N) by
strides, b (N,), Y (M, N).
"""

import triton
import triton.language as tl
from torch import Tensor

from .launch import rank_block, settings
from .mask import keep_tile, rescale
from .tiles import Tile


@triton.jit
def masked(acc, key, rm, column, t, BM: tl.constexpr, BN: tl.constexpr):
    """keep ⊙ acc, by halves of the columns down to 2048 numbers: the random words of a whole block would spill."""
    if BM * BN <= 2048:
        return tl.where(keep_tile(key, rm, column, t, BN), acc, 0.0)
    else:
        left, right = tl.split(tl.permute(tl.reshape(acc, (BM, 2, BN // 2)), (0, 2, 1)))
        left = masked(left, key, rm, column, t, BM, BN // 2)
        tl.debug_barrier()  # holds the second half's words back until the first half's are used up
        right = masked(right, key, rm, column + BN // 2, t, BM, BN // 2)
        return tl.reshape(tl.permute(tl.join(left, right), (0, 2, 1)), (BM, BN))


@triton.jit(do_not_specialize=["threshold"])
def product_kernel(
    x, w, low, p, bias, y, seed,
    M, N, K, R, x_row, w_row, w_column, low_row, p_row, p_column, factor, threshold,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr, GROUP: tl.constexpr,
    BIAS: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    # neighbours in the grid share rows of X and columns of W: GROUP blocks of rows before the next column
    pid, across = tl.program_id(0), tl.cdiv(N, BN)
    first = pid // (GROUP * across) * GROUP
    height = min(tl.cdiv(M, BM) - first, GROUP)
    block_m = first + pid % (GROUP * across) % height
    block_n = pid % (GROUP * across) // height
    rm, rn, rk, rr = (
        block_m * BM + tl.arange(0, BM),
        block_n * BN + tl.arange(0, BN),
        tl.arange(0, BK),
        tl.arange(0, BR),
    )
    wide_rm = rm.to(tl.int64)
    in_m, in_n = (rm < M)[:, None], (rn < N)[None, :]

    acc = tl.zeros((BM, BN), tl.float32)
    for r in tl.range(0, R, BR, num_stages=1):  # pyright: ignore[reportGeneralTypeIssues]
        in_r = r + rr < R
        a = tl.load(low + wide_rm[:, None] * low_row + (r + rr)[None, :], mask=in_m & in_r[None, :], other=0.0)
        b = tl.load(p + (r + rr)[:, None] * p_row + rn[None, :] * p_column, mask=in_r[:, None] & in_n, other=0.0)
        if UPCAST:
            a, b = a.to(tl.float32), b.to(tl.float32)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    acc *= factor
    if MASKED:
        acc = masked(acc, tl.load(seed), rm, block_n * BN, threshold, BM, BN)
    if BIAS:
        acc += tl.load(bias + rn, mask=rn < N, other=0.0).to(tl.float32)[None, :]

    # rows and columns past the end wrap around: they are not stored, and the loop needs no mask for them
    x_at = x + (rm % M)[:, None].to(tl.int64) * x_row + rk[None, :]
    w_at = w + rk[:, None].to(tl.int64) * w_row + (rn % N)[None, :].to(tl.int64) * w_column
    for k in range(0, K, BK):
        a = tl.load(x_at, mask=rk[None, :] < K - k, other=0.0)
        b = tl.load(w_at, mask=rk[:, None] < K - k, other=0.0)
        if UPCAST:
            a, b = a.to(tl.float32), b.to(tl.float32)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
        x_at += BK
        w_at += BK * w_row
    tl.store(y + wide_rm[:, None] * N + rn[None, :], acc.to(y.dtype.element_ty), mask=in_m & in_n)


def product(
    x: Tensor, w: Tensor, low: Tensor, p: Tensor, bias: Tensor | None, factor: float, tile: Tile,
    seed: Tensor | None = None, t: int = 0,
) -> Tensor:  # fmt: skip
    """b + f · keep ⊙ (L P) + X W -> (M, N) in X's dtype; see the top of the file."""
    (M, K), N, R = x.shape, w.shape[1], low.shape[1]
    y = x.new_empty(M, N)
    grid = (triton.cdiv(M, tile.m) * triton.cdiv(N, tile.n),)
    product_kernel[grid](
        x, w, low, p, None if bias is None else bias.contiguous(), y, seed,
        M, N, K, R, x.stride(0), w.stride(0), w.stride(1), low.stride(0), p.stride(0), p.stride(1), factor, t,
        **settings(
            x, tile,
            BM=tile.m, BN=tile.n, BK=tile.k, BR=min(rank_block(R), 32), GROUP=8, BIAS=bias is not None,
            MASKED=seed is not None,
        ),
    )  # fmt: skip
    return y


def linear_expand(x: Tensor, W: Tensor, b: Tensor | None, S: Tensor, B: Tensor, s: float, tile: Tile) -> Tensor:
    """Y = X Wᵀ + b + s · S Bᵀ; X (M, K), W (N, K), S (M, R), B (N, R) -> (M, N)."""
    return product(x, W.T, S, B.T, b, s, tile)


def bwd_dx(dY: Tensor, W: Tensor, dS: Tensor, A: Tensor, tile: Tile, seed: Tensor | None = None, t: int = 0) -> Tensor:
    """dX = dY W + keep ⊙ (dS A) / (1-p); dY (M, N), W (N, K), dS (M, R), A (R, K) -> (M, K)."""
    return product(dY, W, dS, A, None, rescale(t) if seed is not None else 1.0, tile, seed, t)


@triton.jit(do_not_specialize=["threshold"])
def low_rank_kernel(
    low, p, y, seed, M, N, R, low_row, factor, threshold,
    BM: tl.constexpr, BN: tl.constexpr, BR: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(1) * BN
    rm, rn, rr = tl.program_id(0) * BM + tl.arange(0, BM), column + tl.arange(0, BN), tl.arange(0, BR)
    wide_rm = rm.to(tl.int64)
    in_m, in_n = (rm < M)[:, None], (rn < N)[None, :]
    acc = tl.zeros((BM, BN), tl.float32)
    for r in tl.range(0, R, BR, num_stages=1):  # pyright: ignore[reportGeneralTypeIssues]
        in_r = r + rr < R
        a = tl.load(low + wide_rm[:, None] * low_row + (r + rr)[None, :], mask=in_m & in_r[None, :], other=0.0)
        b = tl.load(p + (r + rr)[:, None].to(tl.int64) * N + rn[None, :], mask=in_r[:, None] & in_n, other=0.0)
        if UPCAST:
            a, b = a.to(tl.float32), b.to(tl.float32)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    acc *= factor
    if MASKED:
        acc = masked(acc, tl.load(seed), rm, column, threshold, BM, BN)
    tl.store(y + wide_rm[:, None] * N + rn[None, :], acc.to(y.dtype.element_ty), mask=in_m & in_n)


def low_rank(low: Tensor, p: Tensor, tile: Tile, seed: Tensor | None = None, t: int = 0) -> Tensor:
    """Y = keep ⊙ (L P) / (1-p); L (M, R), P (R, N) contiguous -> (M, N)."""
    M, N, R = low.shape[0], p.shape[1], low.shape[1]
    y = low.new_empty(M, N)
    low_rank_kernel[triton.cdiv(M, tile.m), triton.cdiv(N, tile.n)](
        low, p, y, seed, M, N, R, low.stride(0), rescale(t) if seed is not None else 1.0, t,
        **settings(y, tile, BM=tile.m, BN=tile.n, BR=min(rank_block(R), 32), MASKED=seed is not None),
    )  # fmt: skip
    return y
