"""Bytes: what a call holds at its peak, and what it keeps for the backward."""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler import profile


def call_peak_bytes(run: Callable[[], Any], device: torch.device) -> int:
    """The most that a call has allocated at one time, over what was there before it.

    CPU: torch's allocations in their order, and numpy's peak added, so an upper bound where a call uses both.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    tracemalloc.start()
    try:
        profiled: Any = profile(profile_memory=True)
        with quiet(), profiled:
            run()
        outside = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    held = peak = 0
    events = [e for e in profiled.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak + outside


@contextmanager
def quiet() -> Iterator[None]:
    """The standard error switched off inside: torch's profiler reports its starts and stops there."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def saved_for_backward(forward: Callable[[], Any], apart: Sequence[Tensor] = ()) -> int:
    """Bytes of the storages that the forward's graph keeps, each once, without those of `apart` (the weights)."""
    skipped = {t.untyped_storage().data_ptr() for t in apart}
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in skipped:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = forward()  # held until the count is done, so that no storage is freed and its address used again
    total = sum(kept.values())
    del out
    return total
