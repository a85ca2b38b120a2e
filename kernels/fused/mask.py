"""keep[m, c] = h ≥ t, h = 16 bits of Philox4x32-10 at (seed, m, c), t = round(65536 p): dropout without a stored mask.

One Philox call gives four words, hence eight decisions: the counter is (c // 8, m, 0, 0) and column c takes the half
word c % 8. A decision depends on its place alone, so every kernel, tile size and direction sees the same mask.

Legend: M rows, C columns, seed () int64 on x's device, t threshold in [0, 65535].
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LEVELS = 65536
LOW = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)


def threshold(p: float) -> int:
    """t: how many of the 65536 values are dropped; p is met to within 2⁻¹⁷."""
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p must be in [0, 1), not {p}; pass 0 outside training")
    return min(round(p * LEVELS), LEVELS - 1)


def rescale(t: int) -> float:
    """1 / (1 - t/65536): the factor that keeps the expectation, exact for the p that is in force."""
    return LEVELS / (LEVELS - t)


def draw_seed(x: Tensor) -> Tensor:
    """A seed from the generator of x's device, () int64: activation checkpointing replays it, no host waits for it."""
    return torch.randint(0, 2**63 - 1, (), device=x.device, dtype=torch.int64)


@triton.jit
def keep_tile(seed, rows, column, t, C: tl.constexpr):
    """The mask of (rows) x (column .. column + C), int1; `column` and C are multiples of 8."""
    groups = column // 8 + tl.arange(0, C // 8)
    c0 = groups[None, :] + tl.zeros_like(rows)[:, None]
    c1 = rows[:, None] + tl.zeros_like(groups)[None, :]
    w0, w1, w2, w3 = tl.philox(seed, c0, c1, tl.zeros_like(c0), tl.zeros_like(c0))
    # column 8g + j reads half word j: even j are low halves, odd j high ones, each compared at the top of its word
    least = t.to(tl.uint32) << 16
    low = tl.interleave(
        tl.interleave(w0 << 16 >= least, w2 << 16 >= least), tl.interleave(w1 << 16 >= least, w3 << 16 >= least)
    )
    high = tl.interleave(tl.interleave(w0 >= least, w2 >= least), tl.interleave(w1 >= least, w3 >= least))
    return tl.interleave(low, high)


def keep(seed: Tensor, rows: int | Tensor, columns: int, t: int) -> Tensor:
    """The whole mask in plain torch, (M, C) bool: the twin of `keep_tile`; rows is M or the row numbers themselves."""
    device = seed.device
    m = rows if isinstance(rows, Tensor) else torch.arange(rows, device=device)
    groups = torch.arange((columns + 7) // 8, device=device)
    words = philox(seed, groups[None, :], m[:, None].long())
    halves = torch.stack([half for word in words for half in (word & 0xFFFF, word >> 16)], -1)
    return halves.flatten(1)[:, :columns] >= t


def philox(seed: Tensor, c0: Tensor, c1: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 at the counter (c0, c1, 0, 0) (Salmon et al. 2011); 32-bit words held in int64."""
    c0, c1 = torch.broadcast_tensors(c0, c1)
    c2 = c3 = torch.zeros_like(c0)
    k0, k1 = seed & LOW, (seed >> 32) & LOW
    for _ in range(10):
        high0, low0 = wide_product(MULTIPLIERS[0], c0)
        high1, low1 = wide_product(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
    return c0, c1, c2, c3


def wide_product(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """The high and low 32-bit words of a·b; by halves, since int64 cannot hold 64 unsigned bits."""
    bottom, top = a * (b & 0xFFFF), a * (b >> 16)
    middle = top + (bottom >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (bottom & 0xFFFF)
