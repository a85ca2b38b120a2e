"""tune: time every path and shipped tile of every kernel on this GPU, and write the fastest into the dispatch table.

Legend: M rows, N outputs, K inputs, R rank.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from triton.testing import do_bench

from . import backward, products, shrink, steps
from .dispatch import BIG, TABLE, arch_of, choose, key, table
from .steps import Drop
from .tiles import Tile, tiles

KERNELS = ("shrink", "linear_expand", "bwd_s", "bwd_dx", "bwd_a", "low_rank")
# A launch of ours takes the host longer than torch's own (on an H200's slow virtual machine by 77 µs: five of them in
# 1532 µs, torch's in 1146), so that a smaller gain on the card is lost wherever the host is the slower one.
MARGIN_US = 20.0
ROUNDS = 2  # each times all candidates in turn: the first may find the card's clocks low
Shape = tuple[int, int, int, int]


def tune(
    shapes: Iterable[Shape], dtype: torch.dtype = torch.bfloat16, p: float = 0.0,
    device: torch.device | str = "cuda", to: Path = TABLE,
) -> dict[str, Any]:  # fmt: skip
    """{key: row} of the choices measured for each shape (M, N, K, R), also merged into the table at `to`.

    A row holds the path to take (`fastest`), its tile, and the µs of every candidate, the lowest median of its rounds.
    Needs the GPU for itself. The grouped kernels ship one tile each and torch has none, so there is nothing to choose.
    """
    device = torch.device(device)
    if device.type != "cuda":
        raise ValueError(f"tune: measures on a CUDA device, not on {device}")
    choices: dict[str, Any] = {}
    for shape in shapes:
        for kernel in KERNELS:
            masked = p > 0 and kernel in ("shrink", "bwd_dx", "bwd_a", "low_rank")
            if kernel == "low_rank" and not masked:
                continue  # it is a plain product where nothing is masked
            drop = Drop(torch.tensor(1, device=device), p) if masked else Drop(None, 0.0)
            arch = arch_of(device)
            ways = {name(path, tile): run for path, tile, run in candidates(kernel, arch, shape, dtype, device, drop)}
            rounds = [{way: median_us(run) for way, run in ways.items()} for _ in range(ROUNDS)]
            us = {way: min(times[way] for times in rounds) for way in ways}
            path, _, tile = fastest(us).partition(" ")
            choices[key(kernel, arch, dtype, *shape, masked)] = {
                "path": path,
                "tile": [int(size) for size in tile.split("x")] if tile else None,
                "us": us,
                "device": torch.cuda.get_device_name(device),
                "torch": torch.__version__,
            }
    write(choices, to)
    return choices


def fastest(us: dict[str, float]) -> str:
    """The way to take: ours where it saves MARGIN_US on torch's, or where torch has none."""
    best = min(us, key=us.__getitem__)
    torchs = [way for way in us if not way.startswith("triton")]
    return torchs[0] if torchs and us[torchs[0]] < us[best] + MARGIN_US else best


def write(choices: dict[str, Any], to: Path) -> None:
    """Merge measured rows into the table's file; the running process reads them from now on."""
    measured = json.loads(to.read_text(encoding="utf-8"))["measured"] if to.exists() else {}
    rows = ",\n".join(f"    {json.dumps(at)}: {json.dumps(row)}" for at, row in sorted({**measured, **choices}.items()))
    note = "Measured choices by card, dtype and shape, written by deltatune.kernels.tune."
    to.write_text(f'{{\n  "note": "{note}",\n  "measured": {{\n{rows}\n  }}\n}}\n', encoding="utf-8")
    table.cache_clear()
    choose.cache_clear()


def median_us(run: Callable[[], Any]) -> float:
    took_ms: Any = do_bench(run, warmup=10, rep=50, return_mode="median")
    return round(1000 * took_ms, 2)


def name(path: str, tile: Tile | None) -> str:
    return path if tile is None else f"{path} {'x'.join(map(str, tile))}"


def candidates(
    kernel: str, arch: int, shape: Shape, dtype: torch.dtype, device: torch.device, drop: Drop
) -> Iterator[tuple[str, Tile | None, Callable[[], Any]]]:
    """(path, tile, call) of every way to run one kernel; torch's first, but where it would have to draw a mask."""
    M, N, K, R = shape
    x, dY = torch.randn(M, K, device=device, dtype=dtype), torch.randn(M, N, device=device, dtype=dtype)
    W, S = torch.randn(N, K, device=device, dtype=dtype) / K**0.5, torch.randn(M, R, device=device, dtype=dtype)
    A, B = torch.randn(R, K, device=device, dtype=dtype), torch.randn(N, R, device=device, dtype=dtype)
    torch_way: dict[str, Callable[[], Any]] = {
        "shrink": lambda: steps.low(x, A, N, drop, "plain"),
        "linear_expand": lambda: steps.output(x, W, None, S, B, 1.0, "addmm"),
        "bwd_s": lambda: steps.low_gradients(dY, S, B, 1.0, K, drop, "plain", True),
        "bwd_dx": lambda: steps.input_gradient(dY, W, S, A, drop, "addmm"),
        "bwd_a": lambda: steps.factor_gradient(S, x, N, drop, "plain"),
    }
    ours: dict[str, Callable[[Tile], Any]] = {
        "shrink": lambda tile: shrink.shrink(x, A, tile, drop.seed, drop.t),
        "linear_expand": lambda tile: products.linear_expand(x, W, None, S, B, 1.0, tile),
        "bwd_s": lambda tile: backward.bwd_s(dY, S, B, 1.0, tile),
        "bwd_dx": lambda tile: products.bwd_dx(dY, W, S, A, tile, drop.seed, drop.t),
        "bwd_a": lambda tile: backward.bwd_a(S, x, tile, drop.seed, drop.t),
        "low_rank": lambda tile: products.low_rank(S, A, tile, drop.seed, drop.t),
    }
    if kernel in BIG or drop.seed is None:
        yield "addmm" if kernel in BIG else "plain", None, torch_way[kernel]
    for tile in tiles(kernel, arch, dtype):
        yield "triton", tile, lambda tile=tile: ours[kernel](tile)
