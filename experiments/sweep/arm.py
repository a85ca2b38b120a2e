"""One arm of a comparison: a run by its Hydra overrides. experiments/sweep/pool.py carries arms out."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from experiments.config.compose import composed
from experiments.config.identity import run_name
from experiments.config.schema import Config, check
from experiments.store.files import read
from experiments.store.result import Complete


@dataclass(frozen=True)
class Arm:
    """A run by its overrides, `out` among them: what `python -m experiments.run *overrides` does."""

    overrides: tuple[str, ...]

    @cached_property
    def config(self) -> Config:
        """The run's configuration. Raises Hydra's error for an override that does not fit, ValueError for its value."""
        config = composed(self.overrides)
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
        return self.result.is_file() and isinstance(read(self.result), Complete)

    def at(
        self,
        *,
        seed: int | None = None,
        lr: float | None = None,
        head_lr: float | None = None,
        steps: int | None = None,
    ) -> Arm:
        """The same run with another seed, learning rate, rate of the task head, or number of steps.

        Nothing is composed again, which takes Hydra 0.1 s: no value of conf/ hangs on these.
        """
        given = {"lr": lr, "head_lr": head_lr, "steps": steps}
        optim = {name: value for name, value in given.items() if value is not None}
        words = [f"optim.{name}={value!r}" for name, value in optim.items()]
        words += [] if seed is None else [f"seed={seed}"]
        other = Arm((*self.overrides, *words))
        config = replace(self.config, optim=replace(self.config.optim, **optim))
        config = config if seed is None else replace(config, seed=seed)
        check(config)
        other.__dict__["config"] = config  # where cached_property looks for it
        return other
