"""Sweeps in processes of their own, to be killed: of doubles, or of real runs of the tiny model.

python -m tests.sweeper doubles SLOTS FOLDER STEPS STEP_S HOW ...      an arm for each HOW
python -m tests.sweeper runs SLOTS OVERRIDES ... -- ARM ...            an arm for each word after the dashes
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from experiments.arms import ROOT, Arm
from experiments.config import Config, MethodConfig, ModelConfig, OptimConfig, TaskConfig
from experiments.pool import carry_out


@dataclass(frozen=True)
class Double(Arm):
    """An arm whose run is tests/double.py; overrides: directory, steps, seconds a step, how it goes."""

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
        return (sys.executable, "-m", "tests.double", *self.overrides)


def doubles(folder: Path, hows: Sequence[str], steps: int = 4, step_s: float = 0.01) -> list[Arm]:
    return [Double((str(folder / f"{i}-{how}"), str(steps), str(step_s), how)) for i, how in enumerate(hows)]


def start(*argv: str) -> subprocess.Popen[str]:
    """A sweep in a process group of its own, with what it prints."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweeper", *argv],
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


def main(kind: str, slots: int, given: Sequence[str]) -> int:
    if kind == "doubles":
        folder, steps, step_s, *hows = given
        arms = doubles(Path(folder), hows, int(steps), float(step_s))
    else:
        dashes = given.index("--")
        arms = [Arm((*given[:dashes], *word.split())) for word in given[dashes + 1 :]]
    return sum(row.failure is not None for row in carry_out(arms, slots))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
