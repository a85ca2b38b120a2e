"""Why a run failed, in one word: nan, oom or error; and whether the system killed a process for its memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import torch

import deltatune as dt
from experiments.train import NotFinite

Kind = Literal["error", "nan", "oom", "killed"]
COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))
WITHOUT_MEMORY = r"(can't|cannot) allocate memory|out of memory"


def kind(error: BaseException) -> Kind:
    """The failure kind of an exception. torch on the CPU says it is out of memory by a plain RuntimeError."""
    if isinstance(error, NotFinite) or (isinstance(error, dt.FormatError) and "holds NaN" in str(error)):
        return "nan"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "oom"
    if isinstance(error, (RuntimeError, OSError)) and re.search(WITHOUT_MEMORY, str(error), re.IGNORECASE):
        return "oom"
    return "error"


def oom_kills() -> int | None:
    """How many processes the system has killed for want of memory, in this control group or, failing that, at all.

    Take it before and after a process that ended by SIGKILL. None where the system does not say.
    """
    for file in COUNTERS:
        try:
            found = re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return int(found[1])
    return None
