"""choose(kernel, …) -> Choice(path, tile): which way one step of a layer is computed.

Three paths: "triton" is our kernel, "addmm" is cuBLAS for the big product and our kernels only where a mask has to be
drawn, "plain" is torch alone. What was measured on a card is in dispatch.json (`tune` writes it). Where nothing was
measured cuBLAS is trusted, because a fused product pays only if it loses less than about 467/K of cuBLAS's time (11 %
at K = 4096, 3 % at 14336), and that is not known. The low-rank term is then written first, and cuBLAS adds the big
product to it: y = b + s · S Bᵀ; y += x Wᵀ. Our kernels run only where torch has nothing: a mask that is drawn again
instead of stored.

Legend: M rows, N outputs, K inputs, R rank.
"""

import json
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .launch import interpreted
from .tiles import Tile, tiles

TABLE = Path(__file__).with_name("dispatch.json")
PATHS = ("triton", "addmm", "plain")
BIG = ("linear_expand", "bwd_dx")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
OLDEST = 80


class Choice(NamedTuple):
    path: str
    tile: Tile | None


@cache
def table() -> dict[str, Any]:
    """The measured choices: key -> {"path": …, "tile": [m, n, k, warps, stages] or null, and how it was measured}."""
    return json.loads(TABLE.read_text(encoding="utf-8"))["measured"]


def key(kernel: str, arch: int, dtype: torch.dtype, M: int, N: int, K: int, R: int, masked: bool) -> str:
    """The table's key: sizes are rounded to the nearest power of two, so that near shapes share a measurement."""
    sizes = " ".join(f"{name}{bucket(size)}" for name, size in (("M", M), ("N", N), ("K", K), ("R", R)))
    return f"{kernel} sm_{arch} {str(dtype).removeprefix('torch.')} {sizes} {'dropout' if masked else 'p0'}"


def bucket(size: int) -> int:
    """The nearest power of two, by ratio."""
    low = 1 << (max(1, size).bit_length() - 1)
    return low if size * size <= 2 * low * low else 2 * low


@lru_cache(maxsize=4096)  # asked five times a layer and step
def choose(
    kernel: str, arch: int, dtype: torch.dtype, M: int, N: int, K: int, R: int,
    masked: bool = False, path: str | None = None,
) -> Choice:  # fmt: skip
    """The path and tile of one kernel; `arch` is 10 · major + minor, 0 without a GPU; `path` overrides the table."""
    if path not in (None, *PATHS):
        raise ValueError(f"{kernel}: no path {path!r}; choose one of {', '.join(PATHS)}, or None for the measured one")
    if not runs(arch, dtype):
        if path == "triton":
            raise ValueError(
                f"{kernel}: no Triton kernel for {dtype} on {f'sm_{arch}' if arch else 'this device'}; they take "
                f"fp32, fp16 and bf16 on sm_{OLDEST} and later. Use path='plain', or deltatune.functional"
            )
        return Choice("plain", None)
    first = tiles(kernel, arch, dtype)[0]
    row = None if path else table().get(key(kernel, arch, dtype, M, N, K, R, masked))
    if row is not None:
        return Choice(row["path"], Tile(*row["tile"]) if row["tile"] else first)
    path = path or ("addmm" if arch else "plain")
    if path == "addmm" and kernel not in BIG:
        path = "triton" if masked else "plain"
    return Choice(path, first)


def runs(arch: int, dtype: torch.dtype) -> bool:
    return dtype in DTYPES and (arch >= OLDEST or (arch == 0 and interpreted()))


def arch_of(device: torch.device) -> int:
    """10 · major + minor of a card, 0 for another device."""
    return capability(device.index) if device.type == "cuda" else 0


@lru_cache
def capability(index: int | None) -> int:
    major, minor = torch.cuda.get_device_capability(index)
    return 10 * major + minor
