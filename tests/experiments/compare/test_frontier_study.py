"""A comparison with frontier=true: what is probed, and the frontier that comes of it; the runs' results are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments.compare import runs as comparison_runs
from experiments.compare.arms import Arms
from experiments.compare.config import check
from experiments.compare.study import Study
from experiments.store.tables import SWITCHED_OFF
from experiments.sweep.arm import Arm
from tests.support.pool import Pool, small_config
from tests.support.runs import own_cache_and_torch_settings  # noqa: F401 - a fixture

FORGETS = {"lora": 0.5, "bitfit": 0.5, "full": 2.0}
TEXTS = 8


class Probed(Pool):
    """Runs that forget as the square of what they learned, full fine-tuning four times as much as the others."""

    def result(self, arm: Arm, loss: float) -> dict[str, Any]:
        result = super().result(arm, loss)
        method = arm.config.method.name
        if method not in FORGETS:
            return result | {"validation": {"exact_match": 0.05, "loss": 3.0}}
        quality = result["validation"]["exact_match"]
        last = self.kl(arm, quality)
        corpus = {"sha256": "a", "n_texts": TEXTS, "n_text_tokens": 80, "n_written": TEXTS, "each": {"kl": last}}
        result["forgetting"] = {**result["forgetting"], "corpora": {"prose": corpus}}
        result["curve"] = [
            {**point, "score": quality * point["step"] / arm.config.optim.steps} for point in result["curve"]
        ]
        result["curve"] = [{**point, "kl": self.kl(arm, point["score"])} for point in result["curve"]]
        return result

    def kl(self, arm: Arm, quality: float) -> list[float]:
        luck = 1 + 0.02 * (arm.config.seed % 3)
        return [FORGETS[arm.config.method.name] * quality**2 * luck * (1 + 0.1 * i) for i in range(TEXTS)]


@pytest.fixture
def outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], str]:
    monkeypatch.setattr(comparison_runs, "carry_out", Probed())
    Study(small_config(tmp_path, frontier=True, seeds=3), Console(quiet=True)).run()
    folder = tmp_path / "small"
    comparison = json.loads((folder / "comparison.json").read_text())
    return comparison["tasks"]["ha_json"], (folder / "table.md").read_text()


def test_the_frontier_is_of_the_search_and_of_the_steps_along_the_training(outcome: tuple[dict[str, Any], str]) -> None:
    task, table = outcome
    points = task["frontier"]["points"]
    for method in FORGETS:
        own = [point for point in points if point["method"] == method]
        assert len({point["lr"] for point in own}) >= 3, "every rate of the search"
        assert len({point["step"] for point in own}) >= 4, "steps along the training"
    assert not any(point["method"] in ("none", "few_shot") for point in points)
    last = task["frontier"]["levels"][-1]
    assert [each["method"] for each in last["methods"]][-1] == "full"
    full, lora = (next(each["mean"] for each in last["methods"] if each["method"] == name) for name in ("full", "lora"))
    assert full / lora == pytest.approx(4, rel=0.05)
    verdicts = {frozenset((pair["a"], pair["b"])): pair["better"] for pair in last["pairs"]}
    assert verdicts[frozenset(("lora", "full"))] == "lora" and verdicts[frozenset(("lora", "bitfit"))] is None
    assert "### ha_json: forgetting at equal quality" in table and SWITCHED_OFF in table
    assert "lora forgets less" in table


def test_what_is_probed(tmp_path: Path) -> None:
    arms = Arms(small_config(tmp_path, frontier=True))
    searched, tested = arms.searched("ha_json", "lora").config, arms.tested("ha_json", "lora").config
    assert searched.forgetting.enabled and not searched.forgetting.along
    assert tested.forgetting.along and tested.eval.points == 12
    usual = Arms(small_config(tmp_path))
    assert not usual.searched("ha_json", "lora").config.forgetting.enabled
    assert not usual.tested("ha_json", "lora").config.forgetting.along


def test_without_it_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison_runs, "carry_out", Probed())
    Study(small_config(tmp_path), Console(quiet=True)).run()
    task = json.loads((tmp_path / "small" / "comparison.json").read_text())["tasks"]["ha_json"]
    assert task["frontier"] is None and "equal quality" not in (tmp_path / "small" / "table.md").read_text()


@pytest.mark.parametrize(("changes", "message"), [({"points": 0}, "points=12"), ({"kl_margin": 0.0}, "kl_margin=0.0")])
def test_values_that_make_no_sense(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(small_config(tmp_path, frontier=True, **changes))
