"""The training loop and its checkpoints: resumed after any step it ends with the same bits."""

from __future__ import annotations

import errno
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import deltatune as dt
from experiments.config.schema import OptimConfig
from experiments.data.batch import Batch, indices
from experiments.data.encode import Encoded
from experiments.objectives.token_loss import token_loss_sum
from experiments.support.memory import Memory
from experiments.support.phase_clock import PhaseClock
from experiments.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    State,
    random_states,
    seed_everything,
    set_random_states,
)
from experiments.training.loop import NotFinite, Record, train
from experiments.training.optimizer import Optimizer, groups
from tests.support.small import END, RESPONSES, llama, optim, reader, some_rows


def started(folder: Path, settings: OptimConfig, identity: str = "one") -> tuple[nn.Module, Optimizer, Checkpoints]:
    seed_everything(5)
    model = llama()
    model.to(torch.bfloat16).requires_grad_(False)
    dt.inject(model, dt.LoRA.on(rank=2, dropout=0.3))  # dropout, so that the random state matters
    return model, Optimizer(groups(model), settings), Checkpoints(folder / "checkpoints", identity)


def trained(folder: Path, settings: OptimConfig, identity: str = "one", rows: list[Encoded] | None = None):
    model, optimizer, checkpoints = started(folder, settings, identity)
    rows = rows or some_rows()
    memory = Memory()
    memory.begin()

    def order(step: int, size: int) -> list[int]:
        return indices(step, size, len(rows), seed=0)

    record = Record(checkpoints, folder / "metrics.jsonl", memory, PhaseClock(), 100, lambda step, row: None)
    state = train(reader(model), RESPONSES, optimizer, rows, order, settings, record)
    return state, [p.detach().clone() for _, p in dt.parameters(model)]


def values(state: State) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "wall_s"} for row in state.metrics]


def folder_in(path: Path, name: str) -> Path:
    (path / name).mkdir()
    return path / name


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", range(1, 6))
def test_resumed_after_any_step_is_bit_identical(tmp_path, monkeypatch, stop):
    whole, delta = trained(folder_in(tmp_path, "whole"), optim())
    broken = folder_in(tmp_path, "broken")

    def halt(model, batch):
        if len((broken / "metrics.jsonl").read_text().splitlines()) == stop:
            raise Stopped
        return token_loss_sum(model, batch)

    with monkeypatch.context() as patch:
        patch.setattr("experiments.objectives.language_modelling.token_loss_sum", halt)
        with pytest.raises(Stopped):
            trained(broken, optim())
    resumed, again = trained(broken, optim())
    assert values(resumed) == values(whole)
    assert len(resumed.metrics) == 6
    assert all(torch.equal(a, b) for a, b in zip(delta, again, strict=True))
    lines = (broken / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 6


def test_the_loss_falls(tmp_path):
    rows = [Encoded([3 + i], [5 + i, 7, 9, END]) for i in range(4)]
    state, _ = trained(tmp_path, optim(lr=0.1, steps=40), rows=rows)
    losses = [row["loss"] for row in state.metrics]
    assert losses[-1] < losses[0] - 0.2  # the frozen head, a random one, allows about 0.6


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    whole, delta = trained(tmp_path, optim())
    files = sorted((tmp_path / "checkpoints").iterdir())
    assert [f.name[:13] for f in files] == ["step-00000004", "step-00000006"]  # two kept of three
    data = bytearray(files[1].read_bytes())
    data[len(data) // 2] ^= 1
    files[1].write_bytes(data)
    with pytest.warns(UserWarning, match="step-00000006.*damaged"):
        resumed, again = trained(tmp_path, optim())
    assert values(resumed) == values(whole)
    assert all(torch.equal(a, b) for a, b in zip(delta, again, strict=True))


def test_a_truncated_only_checkpoint_means_a_fresh_start(tmp_path):
    whole, _ = trained(tmp_path, optim())
    older, newest = sorted((tmp_path / "checkpoints").iterdir())
    older.unlink()
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="damaged"):
        resumed, _ = trained(tmp_path, optim())
    assert values(resumed) == values(whole)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    trained(tmp_path, optim())
    with pytest.raises(CheckpointError, match=r"another configuration.*one, this run is two"):
        trained(tmp_path, optim(), identity="two")


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    _, optimizer, checkpoints = started(tmp_path, optim())
    checkpoints.save(optimizer, State(step=2))

    def full(content, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(optimizer, State(step=4))
    assert [f.name[:13] for f in checkpoints.directory.iterdir()] == ["step-00000002"]
    assert checkpoints.restore(optimizer) == State(step=2)


def test_random_states_go_round():
    def draws() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002

    seed_everything(1)
    draws()
    states = random_states()
    first = draws()
    assert draws() != first
    set_random_states(states)
    assert draws() == first


def test_a_loss_that_is_not_finite_stops_at_its_step(tmp_path, monkeypatch):
    calls = []

    def third_is_nan(model: nn.Module, batch: Batch) -> torch.Tensor:
        calls.append(1)
        return token_loss_sum(model, batch) * (math.nan if len(calls) == 3 else 1.0)

    monkeypatch.setattr("experiments.objectives.language_modelling.token_loss_sum", third_is_nan)
    with pytest.raises(NotFinite, match="step 3: the loss is nan"):
        trained(tmp_path, optim())
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
