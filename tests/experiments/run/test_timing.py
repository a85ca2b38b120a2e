"""What a run will cost, timed on the tiny model."""

from __future__ import annotations

from pathlib import Path

from experiments.run import timing
from tests.support.runs import (
    overrides,
    own_cache_and_torch_settings,  # noqa: F401 - a fixture
)


def test_steps_and_evaluation_are_timed_and_a_run_that_fails_is_left_out(tmp_path: Path, capfd) -> None:
    capfd.readouterr()
    runs = {"lora": overrides(tmp_path), "none at all": overrides(tmp_path, "model=hf", f"model.path={tmp_path}")}
    costs = timing.costs(runs)
    assert list(costs) == ["lora"]
    step_s, around_s, evaluation_s = costs["lora"]
    assert 0 < step_s < 60
    assert 0 < around_s < 60
    assert 0 < evaluation_s < 60
    assert not (tmp_path / "runs").exists()  # nothing stays of them


def test_products_in_bf16_are_taken_where_they_are_not_much_slower(monkeypatch) -> None:
    assert timing.precision() in ("bf16", "fp32")
    seconds = iter([3.0] * 5 + [2.0] * 5 + [5.0] * 5 + [2.0] * 5)
    monkeypatch.setattr(timing, "timed", lambda work, device: next(seconds))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert (timing.precision(), timing.precision()) == ("bf16", "fp32")
