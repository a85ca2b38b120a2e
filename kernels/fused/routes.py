"""Which rows of a batch use which adapter, and the adapters packed as one: all of it on the device, nothing waits.

Rows are sorted by adapter; a block is at most BM rows of one adapter, and the block table says which. The number of
blocks is not known to the host, so the grid has its upper bound ⌈M / BM⌉ + G, and blocks past the end do nothing.

Legend: M rows, G adapters, R rank of an adapter, width the largest rank; index (M,) the adapter of each row, -1 none.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .mask import rescale, threshold


class Pack(NamedTuple):
    """What is known of each adapter, (G,) on the device; its A and Bᵀ are rows first .. first + rank of the packed."""

    first: Tensor
    rank: Tensor
    scale: Tensor
    rescale: Tensor
    threshold: Tensor


class Routes(NamedTuple):
    """order (M,) the rows by adapter; table (blocks, 3) adapter, start and stop in `order`; segments (G, 2) the same
    for a whole adapter. int32; a block past the end has adapter -1."""

    order: Tensor
    table: Tensor
    segments: Tensor


@lru_cache(maxsize=256)
def pack(ranks: tuple[int, ...], scales: tuple[float, ...], ps: tuple[float, ...], device: torch.device) -> Pack:
    """The description of some adapters; kept, so that a training step copies nothing to the device for it."""
    firsts = [sum(ranks[:g]) for g in range(len(ranks))]
    thresholds = [threshold(p) for p in ps]

    def on_device(values: list, dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return Pack(
        on_device(firsts, torch.int32),
        on_device(list(ranks), torch.int32),
        on_device(list(scales), torch.float32),
        on_device([rescale(t) for t in thresholds], torch.float32),
        on_device(thresholds, torch.int32),
    )


def routes(index: Tensor, G: int, BM: int) -> Routes:
    """Sort the rows and cut them into blocks; index (M,) integers in [-1, G)."""
    fits = ((index >= -1) & (index < G)).all()
    wrong = f"lora_linear_routed: index must name one of {G} adapters, or -1 for none; it holds others"
    if index.device.type == "cpu" and not fits:
        raise ValueError(wrong)
    torch._assert_async(fits, wrong)  # pyright: ignore[reportPrivateImportUsage] - on a GPU, without waiting for it
    M, device = len(index), index.device
    adapter = torch.where(index < 0, G, index).long()
    counts = torch.zeros(G + 1, dtype=torch.int64, device=device).scatter_add_(0, adapter, torch.ones_like(adapter))[:G]
    stops = counts.cumsum(0)
    blocks = (counts + BM - 1) // BM
    last = blocks.cumsum(0)
    i = torch.arange((M + BM - 1) // BM + G, device=device)
    g = torch.searchsorted(last, i, right=True)
    inside = g < G
    g = g.clamp_max(G - 1)
    start = (stops - counts)[g] + (i - (last - blocks)[g]) * BM
    table = torch.stack([torch.where(inside, g, -1), start, torch.minimum(start + BM, stops[g])], 1)
    segments = torch.stack([stops - counts, stops], 1)
    return Routes(*(t.to(torch.int32).contiguous() for t in (adapter.argsort(stable=True), table, segments)))
