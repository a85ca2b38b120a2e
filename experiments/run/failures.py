"""Why a run failed, in one word: nan, oom or error. That it was killed, the pool notes (experiments/sweep/job.py)."""

from __future__ import annotations

import re
from typing import Literal

import torch

import deltatune as dt
from experiments.training.loop import NotFinite

Kind = Literal["error", "nan", "oom", "killed"]
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
