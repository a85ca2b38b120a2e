"""What every launch needs: rows of a tensor as a matrix, padded ranks, and how the interpreter differs.

Legend: M rows, C columns, R rank.
"""

from typing import Any

import torch
import triton
from torch import Tensor
from triton import knobs

from .tiles import Tile

WIDEST_RANK_BLOCK = 64


def matrix(x: Tensor) -> Tensor:
    """x (..., C) -> (M, C) with unit column stride; a view where the strides allow one."""
    x = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous()


def shaped(y: Tensor, lead: torch.Size) -> Tensor:
    """(M, C) -> (..., C), y itself: autograd allows no in-place change of a view that a Function made."""
    return y if len(lead) == 1 else y.resize_(*lead, y.shape[1])


def rank_block(R: int) -> int:
    """The block that holds a rank: a power of two, at least 16 (tl.dot's least reduction), at most 64 (then a loop)."""
    return min(max(16, triton.next_power_of_2(R)), WIDEST_RANK_BLOCK)


def interpreted() -> bool:
    """Whether Triton's interpreter stands in for a GPU (TRITON_INTERPRET=1 before triton is imported)."""
    return bool(knobs.runtime.interpret)


def tf32() -> bool:
    """Whether torch multiplies fp32 matrices as TF32, by its newer setting; once that is set the older raises."""
    matmul = torch.backends.cuda.matmul
    return bool(matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32)


def settings(x: Tensor, tile: Tile, **constants: Any) -> dict[str, Any]:
    """A kernel's constants, the tile's warps and stages, and how tl.dot reads x's dtype.

    fp32 is multiplied as torch is set to; bf16 is widened first in the interpreter, whose bf16 products are wrong.
    """
    return {
        **constants,
        "PRECISION": "tf32" if tf32() else "ieee",
        "num_warps": tile.warps,
        "num_stages": tile.stages,
        "UPCAST": interpreted() and x.dtype == torch.bfloat16,
    }


def parts(blocks: int, steps: int, programs: int = 256) -> int:
    """The number of parts, 16 at most, of a reduction of `steps` steps, so that about `programs` programs run."""
    return max(1, min(steps, programs // max(1, blocks), 16))
