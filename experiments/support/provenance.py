"""Where a number comes from: versions, machine, commit."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
import transformers

import deltatune
from experiments import ROOT


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
