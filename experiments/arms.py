"""One arm of a comparison: a run in a process of its own, so that its memory is its own, done at most once."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.config import Config, register, run_name
from experiments.rows import Row, read, row

ROOT = Path(__file__).resolve().parents[1]
LAST_LINES = 15  # of what a process wrote to its error stream, kept for the message when it dies


@dataclass(frozen=True)
class Arm:
    """A run by its Hydra overrides, `out` among them; what `python -m experiments.run *overrides` does."""

    overrides: tuple[str, ...]

    @cached_property
    def config(self) -> Config:
        """The run's configuration. Raises Hydra's error for an override that does not fit."""
        register()
        with initialize_config_dir(str(ROOT / "experiments" / "conf"), version_base=None):
            composed = compose("config", overrides=list(self.overrides))
        config = OmegaConf.to_object(composed)
        assert isinstance(config, Config)
        return config

    @property
    def result(self) -> Path:
        """Where the run leaves its result."""
        return ROOT / self.config.out / run_name(self.config) / "result.json"

    @property
    def complete(self) -> bool:
        return self.result.is_file() and read(self.result)["status"] == "complete"

    def run(self) -> Row:
        """The run's row: out of its result file where it is complete already, else after running it.

        A run that fails gives a row with its failure, whether it wrote a result or died before it could.
        """
        if self.complete:
            return row(self.result)
        self.result.unlink(missing_ok=True)  # of an attempt that failed: it must not stand for this one
        command = [sys.executable, "-m", "experiments.run", *self.overrides]
        last: deque[str] = deque(maxlen=LAST_LINES)
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, errors="replace") as process:
            assert process.stderr is not None
            for line in process.stderr:
                sys.stderr.write(line)
                last.append(line)
        if self.result.is_file():
            return row(self.result)
        code = process.returncode
        ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return self._failed(f"no result, {ended}: {''.join(last).strip() or 'nothing on its error stream'}")

    def _failed(self, failure: str) -> Row:
        config = self.config
        return Row(
            method=config.method.name,
            model=config.model.name,
            task=config.task.name,
            seed=config.seed,
            lr=config.optim.lr,
            steps=config.optim.steps,
            batch_size=config.optim.batch_size,
            failure=failure,
        )
