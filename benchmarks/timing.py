"""Times of several providers taken in turn, A B C A B C …, so that a machine's drift meets all of them alike.

On a CPU with one thread the clock is the process's own time, which other processes do not stretch; with more, wall
time, of which the minimum counts. On a GPU, CUDA events around each call, with the L2 cache flushed before it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

FLUSH_BYTES = 256 << 20  # more than the 50 MB of L2 that an H100 has


@dataclass
class Timed:
    """What is timed of one provider, and what is known of it besides. before: what comes before each call, untimed;
    apart: run is given a clock's name and tells its milliseconds itself (`apart.Apart`)."""

    run: Callable[..., Any]
    before: Callable[[], Any] | None = None
    apart: bool = False
    tokens: int | None = None
    flops: float | None = None
    moved_bytes: float | None = None
    peak_bytes: int | None = None
    saved_bytes: int | None = None
    rel_error: float | None = None


@dataclass(frozen=True)
class Times:
    """Milliseconds of one provider: quantiles .5, .2 and .8, and the minimum."""

    y50: float
    y20: float
    y80: float
    y_min: float
    clock: str

    def best(self, median: bool) -> float:
        """The one that ratios are of: the minimum on the wall clock, unless the median is asked for."""
        return self.y_min if self.clock == "wall" and not median else self.y50


def reason(error: Exception) -> str:
    """What a row says of a provider that raised."""
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def attempt(make: Callable[[], Timed | str]) -> Timed | str:
    """What `make` makes, or why it could not: one provider that cannot run here must not end the others."""
    try:
        return make()
    except Exception as error:
        return reason(error)


CLOCKS = {"process": time.process_time, "wall": time.perf_counter}


def clock_of(device: torch.device) -> str:
    if device.type == "cuda":
        return "cuda"
    return "process" if torch.get_num_threads() == 1 else "wall"


def measure(
    providers: Mapping[str, Timed],
    device: torch.device,
    repeats: int,
    warmup: int = 2,
    graphs: bool = False,
    clock: str | None = None,
) -> dict[str, Times | str]:
    """Times by provider, or why there are none: what a provider raised in its warm-up."""
    clock = clock or clock_of(device)
    found: dict[str, Times | str] = {}
    live: dict[str, Timed] = {}
    for name, timed in providers.items():
        try:
            for _ in range(max(1, warmup)):
                once(timed, clock)
            if graphs and timed.before is None and not timed.apart:
                timed = Timed(graphed(timed.run))
            live[name] = timed
        except Exception as error:  # a provider that cannot run here is a row that says so
            found[name] = reason(error)
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=device) if device.type == "cuda" else None
    samples: dict[str, list[float]] = {name: [] for name in live}
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(repeats):
            for name, timed in live.items():
                samples[name].append(once(timed, clock, flush))
    finally:
        if collecting:
            gc.enable()
    for name, values in samples.items():
        y50, y20, y80 = (float(q) for q in np.quantile(values, (0.5, 0.2, 0.8)))
        found[name] = Times(y50, y20, y80, min(values), clock)
    return found


def once(timed: Timed, clock: str, flush: torch.Tensor | None = None) -> float:
    """Milliseconds of one call."""
    if timed.apart:
        return timed.run(clock)
    if timed.before is not None:
        timed.before()
    if clock in CLOCKS:
        began = CLOCKS[clock]()
        timed.run()
        return (CLOCKS[clock]() - began) * 1e3
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    if flush is not None:
        flush.zero_()
    start.record()
    timed.run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def graphed(run: Callable[[], Any]) -> Callable[[], Any]:
    """The call as a CUDA graph: the GPU's time alone, without Python's."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
