"""The tile configurations that ship, as data: per kernel, architecture and kind of number, the best guess first.

Every row passes the ahead-of-time gate (tests/kernels/test_kernels_aot.py): no spills, no stack, shared memory
within the card's. Which row is fastest cannot be known without a GPU: `tune` measures, `dispatch.json` remembers.

    shrink                  m rows of x, k columns a step
    bwd_s                   m rows of dY a step, n columns
    bwd_a                   m rows of x a step, n columns
    linear_expand, bwd_dx   m x n of the output, k the step of the big product
    low_rank                m x n of the output
    gather_shrink, gather_expand, gather_outer    as shrink, low_rank and bwd_a, on rows of one adapter
"""

from typing import NamedTuple

import torch

HALF, SINGLE = "half", "single"


class Tile(NamedTuple):
    """Block sizes m, n, k (0: the kernel has no such block), then Triton's warps and pipeline stages."""

    m: int
    n: int
    k: int
    warps: int
    stages: int


SKINNY = {
    "shrink": {
        HALF: [Tile(64, 0, 128, 4, 3), Tile(32, 0, 128, 4, 4)],
        SINGLE: [Tile(32, 0, 32, 4, 2)],
    },
    "bwd_s": {
        HALF: [Tile(64, 128, 0, 4, 3), Tile(32, 256, 0, 8, 3), Tile(32, 128, 0, 4, 4)],
        SINGLE: [Tile(16, 64, 0, 8, 2)],
    },
    "bwd_a": {
        HALF: [Tile(64, 128, 0, 4, 3), Tile(32, 256, 0, 8, 3)],
        SINGLE: [Tile(16, 64, 0, 8, 2)],
    },
    "low_rank": {
        HALF: [Tile(64, 128, 0, 4, 1), Tile(32, 128, 0, 4, 1)],
        SINGLE: [Tile(32, 64, 0, 4, 1)],
    },
    # one m for the first two: the table of blocks is cut once for both
    "gather_shrink": {
        HALF: [Tile(32, 0, 128, 4, 3)],
        SINGLE: [Tile(32, 0, 32, 4, 2)],
    },
    "gather_expand": {
        HALF: [Tile(32, 128, 0, 4, 1)],
        SINGLE: [Tile(32, 64, 0, 8, 1)],
    },
    "gather_outer": {
        HALF: [Tile(64, 128, 0, 4, 3)],
        SINGLE: [Tile(16, 64, 0, 8, 2)],
    },
}
AMPERE = [Tile(128, 128, 32, 8, 4), Tile(128, 128, 64, 8, 3), Tile(64, 128, 64, 4, 4)]
SMALL = [Tile(128, 128, 32, 8, 3), Tile(64, 128, 32, 4, 4), Tile(64, 64, 64, 4, 3)]
HOPPER = [Tile(128, 256, 64, 8, 3), Tile(128, 128, 64, 8, 4), Tile(256, 128, 64, 8, 3)]
FLOAT = [Tile(64, 64, 16, 4, 3), Tile(64, 32, 16, 4, 3)]

BIG = {80: AMPERE, 86: SMALL, 90: HOPPER}

TILES: dict[int, dict[str, dict[str, list[Tile]]]] = {
    arch: {**SKINNY, **{kernel: {HALF: half, SINGLE: FLOAT} for kernel in ("linear_expand", "bwd_dx")}}
    for arch, half in BIG.items()
}


def tiles(kernel: str, arch: int, dtype: torch.dtype) -> list[Tile]:
    """The shipped tiles of a kernel: those of the newest listed architecture that is not newer than the card's.

    arch 120 (consumer Blackwell) and 89 have the small shared memory of 86; anything else from 90 on has that of 90.
    """
    known = 86 if arch in (86, 87, 89) or arch >= 120 else 90 if arch >= 90 else 80
    return TILES[known][kernel][SINGLE if dtype == torch.float32 else HALF]
