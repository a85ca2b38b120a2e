"""The kind of a failure."""

from __future__ import annotations

import pytest
import torch

import deltatune as dt
from experiments.run.failures import kind
from experiments.sweep.job import oom_kills
from experiments.training.loop import NotFinite


def test_kinds():
    assert kind(NotFinite("step 3")) == "nan"
    assert kind(dt.FormatError("x holds NaN or infinity, so the delta was not saved")) == "nan"
    assert kind(MemoryError()) == "oom"
    assert kind(torch.OutOfMemoryError("CUDA out of memory")) == "oom"
    assert kind(OSError(12, "Cannot allocate memory")) == "oom"
    assert kind(ValueError("out of memory")) == "error"
    assert kind(RuntimeError("shapes differ")) == "error"


def test_torch_says_on_the_cpu_that_memory_ran_out():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert kind(error.value) == "oom"


def test_the_systems_kills_are_counted_or_unknown(monkeypatch, tmp_path):
    (tmp_path / "events").write_text("low 0\noom 2\noom_kill 3\n")
    monkeypatch.setattr("experiments.sweep.job.COUNTERS", (tmp_path / "absent", tmp_path / "events"))
    assert oom_kills() == 3
    monkeypatch.setattr("experiments.sweep.job.COUNTERS", (tmp_path / "absent",))
    assert oom_kills() is None
