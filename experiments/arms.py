"""One arm of a comparison: a run by its Hydra overrides. experiments/pool.py carries arms out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from omegaconf import OmegaConf

from experiments.config import Config, check, register, run_name
from experiments.rows import Row, read, row

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Arm:
    """A run by its overrides, `out` among them: what `python -m experiments.run *overrides` does."""

    overrides: tuple[str, ...]

    @cached_property
    def config(self) -> Config:
        """The run's configuration. Raises Hydra's error for an override that does not fit, ValueError for its value."""
        register()
        outer = get_gh_backup()  # Hydra's own state, where this is called in its multirun; it allows no second one
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(str(ROOT / "experiments" / "conf"), version_base="1.3"):
                config = OmegaConf.to_object(compose("config", overrides=list(self.overrides)))
        finally:
            restore_gh_from_backup(outer)
        assert isinstance(config, Config)
        check(config)
        return config

    @property
    def command(self) -> tuple[str, ...]:
        """What carries the run out."""
        return (sys.executable, "-m", "experiments.run", *self.overrides)

    @cached_property
    def directory(self) -> Path:
        """Where the run leaves its files."""
        return Path(self.config.out).absolute() / run_name(self.config)

    @property
    def result(self) -> Path:
        """Where the run leaves its result."""
        return self.directory / "result.json"

    @property
    def complete(self) -> bool:
        """Whether the run is done and its result can be read."""
        return self.result.is_file() and read(self.result)["status"] == "complete"

    def run(self) -> Row:
        """The run's row, from its result file where it is complete already."""
        if self.complete:
            return row(self.result)
        self.result.unlink(missing_ok=True)  # of an attempt that failed: it must not stand for this one
        code = subprocess.call([sys.executable, "-m", "experiments.run", *self.overrides], cwd=ROOT)
        if self.result.is_file():
            return row(self.result)
        if code == 0:
            failure = f"no result at {self.result}: was the code changed while it ran? Start again"
        else:
            ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            failure = f"the process {ended} before it wrote a result; its output says why"
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
