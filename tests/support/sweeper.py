"""Sweeps in processes of their own, to be killed: of doubles, or of real runs of the tiny model.

python -m tests.support.sweeper doubles SLOTS FOLDER STEPS STEP_S HOW ...      an arm for each HOW
python -m tests.support.sweeper runs SLOTS OVERRIDES ... -- ARM ...            an arm for each word after the dashes
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import psutil

from experiments import ROOT
from experiments.config.schema import Config, MethodConfig, ModelConfig, OptimConfig
from experiments.config.tasks import TaskConfig
from experiments.sweep.arm import Arm
from experiments.sweep.pool import carry_out

WAIT_S = 60.0  # the longest wait for what comes in a moment


@dataclass(frozen=True)
class Double(Arm):
    """An arm whose run is tests/support/double.py; overrides: directory, steps, seconds a step, how it goes."""

    @cached_property
    def config(self) -> Config:
        method = MethodConfig(name=self.directory.name, lr=1e-3)
        optim = OptimConfig(lr=1e-3, steps=int(self.overrides[1]))
        return Config(model=ModelConfig(name="double"), method=method, task=TaskConfig(name="none"), optim=optim)

    @cached_property
    def directory(self) -> Path:
        return Path(self.overrides[0])

    @property
    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "tests.support.double", *self.overrides)


def doubles(folder: Path, hows: Sequence[str], steps: int = 4, step_s: float = 0.01) -> list[Arm]:
    return [Double((str(folder / f"{i}-{how}"), str(steps), str(step_s), how)) for i, how in enumerate(hows)]


def start(*argv: str) -> subprocess.Popen[str]:
    """A sweep in a process group of its own, with what it prints."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.sweeper", *argv],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def start_doubles(
    folder: Path, hows: Sequence[str], slots: int = 2, steps: int = 4, step_s: float = 0.01
) -> subprocess.Popen[str]:
    return start("doubles", str(slots), str(folder), str(steps), str(step_s), *hows)


def starts(folder: Path) -> list[int]:
    """The process ids of a run's attempts."""
    file = folder / "starts"
    return [int(line.split()[0]) for line in file.read_text().splitlines()] if file.is_file() else []


def until(what: Callable[[], object], message: str) -> None:
    """Wait for it, WAIT_S at most."""
    late = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < late, message
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether the process is over, be it that nobody has asked for its exit code yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def intact(folder: Path, steps: int) -> int:
    """Checks every run in the folder: a whole result or none, and of a complete one each step once; how many are."""
    n = 0
    for directory in folder.iterdir():
        file = directory / "result.json"
        if file.is_file() and json.loads(file.read_text())["status"] == "complete":
            rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
            assert [row["step"] for row in rows] == list(range(1, steps + 1)), directory
            n += 1
    return n


def main(kind: str, slots: int, given: Sequence[str]) -> int:
    if kind == "doubles":
        folder, steps, step_s, *hows = given
        arms = doubles(Path(folder), hows, int(steps), float(step_s))
    else:
        dashes = given.index("--")
        arms = [Arm((*given[:dashes], *word.split())) for word in given[dashes + 1 :]]
    return sum(row.failure is not None for row in carry_out(arms, slots))


if __name__ == "__main__":
    # A terminal's ways: what a shell starts in the background ignores them, and so do its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    raise SystemExit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
