"""The memory of this process, and what a part of its work adds to it."""

from __future__ import annotations

import ctypes
import gc
import re
import resource
import sys
import threading
import time
from pathlib import Path

import psutil


class Memory:
    """Resident memory of this process in bytes: its high-water mark since this was made, and since `begin`.

    Linux can reset the mark; where it may not be reset, a thread samples the resident size 100 times a second.
    """

    def __init__(self) -> None:
        self.earlier = 0  # the highest mark before the last reset, which the kernel forgets
        self.start = 0
        self.sampled: int | None = None
        self.stopped = threading.Event()
        self.reset()

    def begin(self, start: int | None = None) -> None:
        """Measure from here; the rise counts from `start`, by default the size now."""
        self.earlier = max(self.earlier, self.since_begin())
        self.start = resident_bytes() if start is None else start
        self.reset()

    def reset(self) -> None:
        if self.sampled is not None:
            self.sampled = resident_bytes()
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self.sampled = resident_bytes()
            threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while not self.stopped.is_set():
            self.sampled = max(self.sampled or 0, resident_bytes())
            time.sleep(0.01)

    def end(self) -> None:
        """No more is measured."""
        self.stopped.set()

    def since_begin(self) -> int:
        """The peak since `begin`."""
        return _high_water() if self.sampled is None else self.sampled

    def increase_bytes(self) -> int:
        """The peak since `begin`, over the size at its start."""
        return max(0, self.since_begin() - self.start)

    def peak_bytes(self) -> int:
        """The peak since this was made."""
        return max(self.earlier, self.since_begin())


def resident_bytes() -> int:
    return psutil.Process().memory_info().rss


def release() -> None:
    """Give memory that is free inside the process back to the system, so that it does not stand in a later figure."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _high_water() -> int:
    """Of this program alone: getrusage's mark may be that of the process which started it."""
    status = Path("/proc/self/status")
    if status.is_file():
        (kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
        return int(kib) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
