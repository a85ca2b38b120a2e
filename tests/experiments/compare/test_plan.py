"""What is planned before the first run, what departs from it, and runs that other sources made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments.compare import runs as comparison_runs
from experiments.compare import study as comparison_study
from experiments.compare.config import CompareConfig, Sources
from experiments.compare.plan import smallest_difference
from experiments.compare.study import Study
from experiments.config import identity
from experiments.store.files import read
from tests.support import pool as made_up_pool
from tests.support.pool import Pool, small_config
from tests.support.runs import own_cache_and_torch_settings  # noqa: F401


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    made = Pool()
    monkeypatch.setattr(comparison_runs, "carry_out", made)
    return made


def run(made: CompareConfig) -> dict[str, Any]:
    Study(made, Console(quiet=True)).run()
    return json.loads((Path(made.results) / "comparison.json").read_text())


def departures(comparison: dict[str, Any]) -> list[tuple[Any, Any, Any]]:
    return [(each["what"], each["from"], each["to"]) for each in comparison["departures"]]


def test_the_plan_is_there_before_the_first_run(tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[dict[str, Any]] = []

    def at_first(arms: Any, slots: int, **more: Any) -> Any:
        plans.append(json.loads((tmp_path / "small" / "plan.json").read_text()))
        return pool(arms, slots, **more)

    monkeypatch.setattr(comparison_runs, "carry_out", at_first)
    shared = [f"forgetting.texts=[{tmp_path}/mine.jsonl]"]
    comparison = run(small_config(tmp_path, margin={"ha_json": 0.02}, expected_sd=0.03, shared=shared))
    assert plans[0] == plans[-1] == comparison["plan"]
    plan = plans[0]["tasks"]["ha_json"]
    assert (plan["margin"], plan["most_trials"], plan["test_runs"]) == (0.02, 15, 10)
    assert plan["methods"]["lora"]["axes"] == {"optim.lr": {"default": 0.003, "factor": 3.0}}
    assert "12555fc" in plan["methods"]["lora"]["lr_from"]
    assert plan["smallest_difference_expected"] > 0.03
    assert plan["data"]["name"] == "ha_json" and plan["data"]["n_test"] == 200
    assert plans[0]["settings"]["search_seeds"] == [101, 102, 103]
    text = (tmp_path / "small" / "plan.md").read_text()
    assert "- lora: optim.lr around 0.003, by factors of 3. Default from: 1e-3 at first" in text
    assert "margin: 0.02" in text
    assert str(tmp_path) not in text


def test_another_plan_later_overwrites_nothing_and_its_departures_stay(tmp_path: Path, pool: Pool) -> None:
    run(small_config(tmp_path))
    plan = (tmp_path / "small" / "plan.json").read_text()
    comparison = run(small_config(tmp_path, seeds=3, margin=0.05))
    assert (tmp_path / "small" / "plan.json").read_text() == plan
    assert departures(comparison) == [
        ("settings.margin", None, 0.05),
        ("settings.seeds", 2, 3),
        ("tasks.ha_json.margin", None, 0.05),
        ("tasks.ha_json.test_runs", 10, 15),
    ]
    assert len(departures(run(small_config(tmp_path, seeds=3, margin=0.05)))) == 4, "a departure is logged once"
    back = departures(run(small_config(tmp_path)))
    assert ("settings.seeds", 3, 2) in back, "and so is the way back, with the runs that it leaves over"
    assert any(what == "a run that the plan does not have" and "-s3-" in to for what, _, to in back)
    table = (tmp_path / "small" / "table.md").read_text()
    assert "departures from it:" in table and "| settings.seeds | 2 | 3 |" in table


def test_where_it_runs_is_no_part_of_the_plan(tmp_path: Path, pool: Pool) -> None:
    run(small_config(tmp_path))
    assert departures(run(small_config(tmp_path, out=str(tmp_path / "other"), slots=2))) == []


def test_a_run_that_nobody_planned_is_a_departure(tmp_path: Path, pool: Pool) -> None:
    run(small_config(tmp_path))
    (file,) = (tmp_path / "small" / "ha_json" / "test").glob("lora-lr0.003-s1-*")
    file.with_name("lora-lr0.5-s1-ffffffffffff.result.json").write_text(file.read_text())
    for _ in range(2):
        comparison = run(small_config(tmp_path))
        what = ("a run that the plan does not have", None, "ha_json/test/lora-lr0.5-s1-ffffffffffff.result.json")
        assert departures(comparison) == [what]


def other_sources(monkeypatch: pytest.MonkeyPatch, sha256: str) -> None:
    """Let every place that asks for the hash of the sources get this one."""
    for module in (identity, comparison_study, made_up_pool):
        monkeypatch.setattr(module, "sources_sha256", lambda config: sha256)


def test_runs_of_other_sources_are_listed_and_run_again(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_sources(monkeypatch, "a" * 16)
    run(small_config(tmp_path))
    n = len(pool.ran)
    old = {file: file.read_text() for file in (tmp_path / "small").rglob("*.result.json")}
    other_sources(monkeypatch, "b" * 16)
    comparison = run(small_config(tmp_path))
    assert pool.ran[n:] == pool.ran[:n], "every run is carried out again"
    assert all(file.read_text() == text for file, text in old.items()), "and no file of the others is touched"
    keys = {key for item in comparison["tasks"]["ha_json"]["methods"] for key in item["keys"]}
    assert not keys & {read(file).key for file in old}
    assert ("tasks.ha_json.sources_sha256", "a" * 16, "b" * 16) in departures(comparison)
    listed = {to for what, _, to in departures(comparison) if what == "a run that the plan does not have"}
    assert listed == {str(file.relative_to(tmp_path / "small")) for file in old}


def test_runs_of_other_sources_are_refused_with_the_list(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_sources(monkeypatch, "a" * 16)
    run(small_config(tmp_path))
    run(small_config(tmp_path, sources=Sources.refuse))
    n = len(pool.ran)
    other_sources(monkeypatch, "b" * 16)
    with pytest.raises(ValueError, match=r"sources=refuse: other versions") as refused:
        run(small_config(tmp_path, sources=Sources.refuse))
    assert len(pool.ran) == n
    files = [str(file.relative_to(tmp_path / "small")) for file in (tmp_path / "small").rglob("*.result.json")]
    assert all(name in str(refused.value) for name in files)


def test_the_smallest_difference_is_that_of_a_t_test(tmp_path: Path) -> None:
    two = small_config(tmp_path, methods=["lora", "full"], seeds=5, expected_sd=0.02)
    # t(0.975; 8) = 2.306, t(0.8; 8) = 0.889, from a table; √(2 / 5) = 0.632.
    assert smallest_difference(two, "ha_json") == pytest.approx((2.306 + 0.889) * 0.02 * 0.632, rel=1e-2)
    assert smallest_difference(small_config(tmp_path), "ha_json") is None


def test_a_study_without_a_plan_is_not_written_into(tmp_path: Path, pool: Pool) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "comparison.json").write_text("{}")
    with pytest.raises(ValueError, match=r"there lies a study without a plan; give this one another name="):
        run(small_config(tmp_path))
    assert (tmp_path / "small" / "comparison.json").read_text() == "{}"
