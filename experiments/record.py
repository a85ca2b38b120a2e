"""What a run leaves behind: files written whole or not at all, its environment, its memory and its times."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers

import deltatune

ROOT = Path(__file__).resolve().parents[1]


def write_text(path: Path, text: str) -> None:
    """The text in place of the file, or, on any error, the file as it was."""
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def environment(device: torch.device) -> dict[str, Any]:
    status = _git("status", "--porcelain")
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "deltatune": deltatune.__version__,
        "python": platform.python_version(),
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(status),
        "platform": platform.platform(),
    }


def _git(*arguments: str) -> str | None:
    """None outside a checkout, or without git."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


class Phases:
    """Seconds of wall time by phase, in the order they came."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


class Memory:
    """Resident memory of this process in bytes: its high-water mark, and the rise of that over a start.

    Linux can reset the mark; where it may not be reset, a thread samples the resident size 100 times a second.
    """

    def __init__(self) -> None:
        self.earlier = 0  # the mark before the reset, which the kernel forgets
        self.start = 0
        self.sampled: int | None = None

    def begin(self) -> None:
        """Measure the rise from here."""
        self.earlier = max(self.earlier, _high_water())
        self.start = resident_bytes()
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self.sampled = self.start
            threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while True:
            self.sampled = max(self.sampled or 0, resident_bytes())
            time.sleep(0.01)

    def increase_bytes(self) -> int:
        """The peak since `begin`, over the size at `begin`."""
        return max(0, (_high_water() if self.sampled is None else self.sampled) - self.start)

    def peak_bytes(self) -> int:
        """The high-water mark of the process."""
        return max(self.earlier, _high_water())


def resident_bytes() -> int:
    return psutil.Process().memory_info().rss


def _high_water() -> int:
    """Of this program alone: getrusage's mark may be that of the process which started it."""
    status = Path("/proc/self/status")
    if status.is_file():
        (kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
        return int(kib) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
