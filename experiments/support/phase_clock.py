"""The clock of a run's phases: every second lies in exactly one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

PHASES = (
    "start",  # the interpreter and its imports, where the run has a process of its own
    *("data", "load", "inject", "forward", "backward", "optimizer", "checkpoint", "save", "evaluate", "forgetting"),
    *("cost", "other"),
)


class PhaseClock:
    """Seconds of wall time by phase, from the moment it is made; "other" is what no phase covers.

    start: seconds that had passed before it was made.
    A phase inside a phase stops the outer one's clock, so no second is counted twice. On CUDA, where calls return
    before their work is done, a phase that says `wait` ends when the device has finished: the forward and the
    optimizer do. It costs little, since the loss is read from the device after the backward, and the next batch's
    labels are counted on it before the next forward.
    """

    def __init__(self, device: torch.device | None = None, start: float = 0.0) -> None:
        self.device = device
        self.spent = dict.fromkeys(PHASES, 0.0)
        self.earlier_s = 0.0  # the whole time of earlier processes of this run
        self.spent["start"] = start
        self.since = time.perf_counter()
        self.began = self.since - start
        self.open = "other"

    @contextmanager
    def __call__(self, phase: str, wait: bool = False) -> Iterator[None]:
        outer = self.enter(phase)
        try:
            yield
            if wait and self.device is not None and self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        finally:
            self.enter(outer)

    def enter(self, phase: str) -> str:
        """Stop the running phase's clock and start this one's; the phase that was running."""
        if phase not in self.spent:
            raise KeyError(f"no phase {phase!r}; there are: {', '.join(PHASES)}")
        now, outer = time.perf_counter(), self.open
        self.spent[outer] += now - self.since
        self.since, self.open = now, phase
        return outer

    def seconds(self) -> dict[str, float]:
        """By phase up to now, and "total", the wall clock of this process's work and of the earlier ones'."""
        self.enter(self.open)
        return {**self.spent, "total": self.earlier_s + self.since - self.began}

    def add(self, earlier: Mapping[str, float]) -> None:
        """Add the seconds of an earlier process of the same run, as its `seconds` gave them."""
        for phase in PHASES:
            self.spent[phase] += earlier.get(phase, 0.0)
        self.earlier_s += earlier.get("total", 0.0)
