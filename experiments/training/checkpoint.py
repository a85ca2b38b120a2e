"""Checkpoints of a training: all it needs to go on as if it had never stopped.

A file's name carries the hash of its contents, so that a torn or changed file is known for one; it gets that name
only when it is whole. The newest two are kept, and a bad newest falls back to the one before it.
"""

from __future__ import annotations

import hashlib
import random
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.support.files import settle, temporary
from experiments.training.optimizer import Optimizer

KEPT = 2


class CheckpointError(RuntimeError):
    """A checkpoint that belongs to another run."""


@dataclass
class State:
    """Where a training stands. The step is also the position in the data, which is a function of it and the seed."""

    step: int = 0  # steps done
    tokens: int = 0  # real tokens seen, without padding
    wall_s: float = 0.0  # spent in steps, over all processes of a resumed run
    seconds: dict[str, float] = field(default_factory=dict)  # the clock's, over all processes of a resumed run
    peak_bytes: int = 0  # high-water mark of the process in training
    device_peak_bytes: int = 0  # the same of an accelerator's memory
    increase_bytes: int = 0  # peak of training over the size with the model loaded
    metrics: list[dict[str, float]] = field(default_factory=list)  # a row a step
    curve: list[dict[str, Any]] = field(default_factory=list)  # a point where the model was scored

    def advance(self, loss: float, lr: float, grad_norm: float, n_tokens: int, step_s: float) -> dict[str, float]:
        """Count a step that is done; its row of metrics, whose tokens and wall_s count from the first step."""
        self.step += 1
        self.tokens += n_tokens
        self.wall_s += step_s
        row = {
            "step": self.step,
            "loss": loss,
            "lr": lr,
            "grad_norm": grad_norm,
            "tokens": self.tokens,
            "wall_s": self.wall_s,
        }
        self.metrics.append(row)
        return row


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in a run's directory. identity: hashes of the configuration and the data they belong to."""

    directory: Path
    identity: str

    def save(self, optimizer: Optimizer, state: State) -> None:
        """Write, then drop all but the newest. An error (a full disk) leaves the older ones as they were."""
        self.directory.mkdir(parents=True, exist_ok=True)
        content = {
            "identity": self.identity,
            "state": asdict(state),
            "optimizer": optimizer.state_dict(),
            "random": random_states(),
        }
        with temporary(self.directory / "step") as written:
            with written.open("wb") as file:  # given a path, torch would write its random name into the file
                torch.save(content, file)
            settle(written, self.directory / f"step-{state.step:08d}-{digest(written)}.pt")
        for old in self.newest_first()[KEPT:]:
            old.unlink()

    def restore(self, optimizer: Optimizer) -> State | None:
        """Put the newest valid checkpoint into the optimizer, its parameters and the random states.

        None where there is none. Raises CheckpointError for one of another configuration or other data.
        """
        for path in self.newest_first():
            if digest(path) != path.stem.rsplit("-", 1)[1]:
                warnings.warn(
                    f"{path}: damaged, its contents do not match its name; trying the one before", stacklevel=2
                )
                continue
            content = torch.load(path, weights_only=True)
            if content["identity"] != self.identity:
                raise CheckpointError(
                    f"{path}: made with another configuration or other data ({content['identity']}, this run is "
                    f"{self.identity}); move it away to start anew"
                )
            optimizer.load_state_dict(content["optimizer"])
            set_random_states(content["random"])
            return State(**content["state"])
        return None

    def newest_first(self) -> list[Path]:
        return sorted(self.directory.glob("step-*.pt"), reverse=True)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries draw from the global state
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (kind, [int(k) for k in keys], *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
