"""The command: what runs, in which order, what is kept, and what is read when; the runs' results are made up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks.made_up import UNTRAINED, made_up
from experiments import ROOT
from experiments.compare import __main__ as command
from experiments.compare import study
from experiments.compare.config import CompareConfig, check
from experiments.compare.decision_log import DecisionLog
from experiments.compare.study import Study
from experiments.config.identity import key
from experiments.config.schema import Part, plain
from experiments.store.files import read
from experiments.store.result import Result
from experiments.support.files import locked
from experiments.sweep.arm import Arm
from tests.support.runs import own_cache_and_torch_settings, words  # noqa: F401

SKILL = {"none": 0.0, "lora": 0.7, "bitfit": 0.4, "full": 0.75}
SMALL = {
    "model": "tiny",
    "tasks": ["ha_json"],
    "methods": ["lora", "bitfit", "full"],
    "seeds": 2,
    "steps": 9,
    "search_steps": 4,
}


class Pool:
    """Runs nothing: writes made-up results that are best at the default rate, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.failing: set[str] = set()  # "method lr seed"
        self.best_factor = 1.0
        self.ledger: Path | None = None
        self.ledger_before_tests: list[str] = []

    def __call__(self, arms: Sequence[Arm], slots: int, *, console: Any = None, ended: Any) -> list[Result]:
        rows = []
        for arm in arms:
            rows.append(self.run(arm))
            ended(arm, rows[-1])
        return rows

    def run(self, arm: Arm) -> Result:
        config = arm.config
        method, lr = config.method.name, config.optim.lr
        assert (config.eval.part is Part.val) == (config.seed == 0)  # the search never sees the test set
        self.ran.append(f"{method} {lr:g} {config.seed} {config.optim.steps}")
        if config.seed and self.ledger is not None and not self.ledger_before_tests:
            self.ledger_before_tests = self.ledger.read_text().splitlines()
        head = {"config": plain(config), "key": key(config), "task": config.task.name, "seed": config.seed, "lr": lr}
        off = abs(np.log(lr / (config.method.lr * self.best_factor)))
        scores = (np.random.default_rng(config.seed).random(80) < SKILL[method]).astype(float).tolist()
        result = made_up(method, **head, scores=scores, n_test=80)
        result |= {"quality": {"exact_match": float(np.mean(scores))}}
        result |= {"validation": {"exact_match": 0.5, "loss": 1.0 + off}}
        if method == "none":
            result |= UNTRAINED
        if f"{method} {lr:g} {config.seed}" in self.failing:
            result |= {"status": "failed", "error": "a made-up failure", "failure_kind": "oom"}
        arm.result.parent.mkdir(parents=True, exist_ok=True)
        arm.result.write_text(json.dumps(result))
        return read(arm.result)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    made = Pool()
    monkeypatch.setattr(study, "carry_out", made)
    return made


def config(tmp_path: Path, **changes: Any) -> CompareConfig:
    places = {"out": str(tmp_path / "runs"), "name": "made-up", "results": str(tmp_path / "small")}
    return CompareConfig(**SMALL | places | {"resamples": 500} | changes)


def run(made: CompareConfig) -> tuple[int, dict[str, Any]]:
    code = Study(made, Console(quiet=True)).run()
    return code, json.loads((Path(made.results) / "comparison.json").read_text())


def events(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "small" / "ledger.jsonl").read_text().splitlines()]


def test_every_method_has_as_many_trials_and_then_its_seeds(tmp_path: Path, pool: Pool) -> None:
    pool.ledger = tmp_path / "small" / "ledger.jsonl"
    code, found = run(config(tmp_path))
    assert code == 0
    assert pool.ran[:3] == ["lora 0.003 0 4", "bitfit 0.02 0 4", "full 0.0002 0 4"]
    assert sorted(pool.ran[3:9]) == sorted(
        [
            "lora 0.001 0 4",
            "lora 0.009 0 4",
            "bitfit 0.0067 0 4",
            "bitfit 0.06 0 4",
            "full 6.7e-05 0 4",
            "full 0.0006 0 4",
        ]
    )
    assert pool.ran[9:] == [
        "none 0.001 1 9",
        *("lora 0.003 1 9", "bitfit 0.02 1 9", "full 0.0002 1 9"),
        *("lora 0.003 2 9", "bitfit 0.02 2 9", "full 0.0002 2 9"),
    ]
    task = found["tasks"]["ha_json"]
    assert [item["method"] for item in task["methods"]] == ["full", "lora", "bitfit", "none"]
    assert not any(item["lr_at_edge"] for item in task["methods"])
    assert task["share_of_full_reason"] is None
    assert task["missing"] == []
    assert "| full |" in (tmp_path / "small" / "table.md").read_text()
    assert (tmp_path / "small" / "plot.png").read_bytes().startswith(b"\x89PNG")
    # Every choice was in the ledger before the first run that is tested began.
    before = [json.loads(line)["event"] for line in pool.ledger_before_tests]
    assert before == ["started", *["grid"] * 3, *["trial"] * 9, *["choice"] * 3]
    after = [line["event"] for line in events(tmp_path)[len(before) :]]
    assert after == [*["tested"] * 7, *["pair"] * 6, "ties"]
    for line in events(tmp_path):
        if line["event"] == "trial":
            assert set(line["validation"]) == {"exact_match", "loss"}
            assert "score" not in line
        if line["event"] in ("trial", "tested"):
            assert read(tmp_path / "small" / line["file"]).key == line["key"]


def test_it_goes_on_where_it_was_in_another_checkout_too(tmp_path: Path, pool: Pool) -> None:
    _, first = run(config(tmp_path))
    n = len(pool.ran)
    assert run(config(tmp_path)) == (0, first)
    assert run(config(tmp_path, out=str(tmp_path / "elsewhere"))) == (0, first)  # the small files alone
    assert len(pool.ran) == n
    run(config(tmp_path, out=str(tmp_path / "elsewhere"), seeds=3))
    assert [name.split()[2] for name in pool.ran[n:]] == ["3"] * 3
    n = len(pool.ran)
    run(config(tmp_path, out=str(tmp_path / "elsewhere"), seeds=3, steps=10))
    assert {name.split()[3] for name in pool.ran[n:]} == {"10"}  # another configuration: the search stands
    (small, _) = (tmp_path / "small" / "ha_json" / "test").glob("lora-lr0.003-s1-*.result.json")  # nothing overwritten
    text = json.dumps(read(small).config)
    lines = [line["key"] for line in events(tmp_path) if line["event"] == "tested"]
    assert len(lines) == len(set(lines))
    assert str(tmp_path) not in text


def test_a_failed_run_is_shown_and_the_others_compared(tmp_path: Path, pool: Pool) -> None:
    pool.failing = {"lora 0.009 0", "bitfit 0.02 2"}
    code, found = run(config(tmp_path))
    task = found["tasks"]["ha_json"]
    assert code == 1
    assert task["missing"] == [
        "lora, lr 0.009 of the search, failed: a made-up failure",
        "bitfit, seed 2, failed: a made-up failure",
    ]
    by_method = {item["method"]: item for item in task["methods"]}
    assert (by_method["bitfit"]["n_seeds"], by_method["lora"]["n_seeds"]) == (1, 2)
    assert "seed 2 failed and is not in the mean (oom)" in by_method["bitfit"]["notes"]
    assert by_method["lora"]["lr_at_edge"]  # the rate above was not tried to its end
    assert "lr 0.009 failed: a made-up failure" in by_method["lora"]["notes"]
    n = len(pool.ran)
    pool.failing = set()
    code, found = run(config(tmp_path))
    assert pool.ran[n:] == ["lora 0.009 0 4", "bitfit 0.02 2 9"]  # those alone, again
    assert (code, found["tasks"]["ha_json"]["missing"]) == (0, [])


def test_what_has_ended_is_kept_when_it_is_cut_off(tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    run_one = pool.run

    def cut_off(arm: Arm) -> Result:
        if len(pool.ran) == 13:
            raise KeyboardInterrupt
        return run_one(arm)

    monkeypatch.setattr(pool, "run", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(config(tmp_path))
    assert len([line for line in events(tmp_path) if line["event"] in ("trial", "tested")]) == 13
    assert len(list((tmp_path / "small").rglob("*.result.json"))) == 13
    task = json.loads((tmp_path / "small" / "comparison.json").read_text())
    assert task["title"].endswith("under way, 3 runs still to be tested")
    assert task["tasks"]["ha_json"]["pending"] == ["lora seed 2", "bitfit seed 2", "full seed 2"]
    monkeypatch.setattr(pool, "run", run_one)
    code, found = run(config(tmp_path))
    assert (code, len(pool.ran), found["tasks"]["ha_json"]["pending"]) == (0, 16, [])
    assert "under way" not in (tmp_path / "small" / "table.md").read_text()


def test_two_comparisons_do_not_share_a_folder(tmp_path: Path, pool: Pool) -> None:
    (tmp_path / "small").mkdir()
    held = locked(tmp_path / "small" / "lock")
    assert held is not None
    with held, pytest.raises(ValueError, match="at work there"):
        run(config(tmp_path))


def test_a_method_whose_every_trial_failed_is_missing(tmp_path: Path, pool: Pool) -> None:
    pool.failing = {"full 0.0002 0", "full 6.7e-05 0", "full 0.0006 0"}
    code, found = run(config(tmp_path))
    task = found["tasks"]["ha_json"]
    assert code == 1
    assert "full: no trial is complete, so no learning rate was chosen" in task["missing"]
    assert [item["method"] for item in task["methods"]] == ["lora", "bitfit", "none"]
    assert task["share_of_full_reason"] == "full has no complete run"


def test_a_choice_changed_after_the_test_was_seen_is_said(tmp_path: Path, pool: Pool) -> None:
    run(config(tmp_path))
    pool.best_factor = 3.0
    _, found = run(config(tmp_path, search_steps=5))
    lora = next(item for item in found["tasks"]["ha_json"]["methods"] if item["method"] == "lora")
    assert (lora["lr"], lora["lr_at_edge"]) == (0.009, True)
    assert "test scores at lr 0.003, chosen earlier, had been seen before this choice was made" in lora["notes"]
    assert "edge of its grid" in found["tasks"]["ha_json"]["share_of_full_reason"]


def test_a_line_of_the_ledger_cut_off_by_a_kill_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    DecisionLog(file).write("choice", method="lora", lr=0.1)
    whole = file.read_text()
    file.write_text(whole + '{"time": "20')
    ledger = DecisionLog(file)
    assert file.read_text() == whole
    ledger.write("choice", method="lora", lr=0.3)
    assert [line["lr"] for line in DecisionLog(file).earlier("choice", method="lora")] == [0.1, 0.3]
    assert [line["lr"] for line in ledger.earlier("choice", method="lora")] == [0.1]  # its own are not earlier ones


def test_a_budget_sets_sizes_and_marks_what_has_none(tmp_path: Path, pool: Pool) -> None:
    _, found = run(config(tmp_path, budget=8192, methods=["lora", "bitfit"], trials=1))
    (small,) = (tmp_path / "small" / "ha_json" / "test").glob("lora-*-s1-*")
    made = read(small).config["method"]
    assert made["rules"][0]["hparams"] == {"rank": 4, "alpha": 8.0}
    notes = {item["method"]: item["notes"] for item in found["tasks"]["ha_json"]["methods"]}
    assert any("does not meet the budget" in note for note in notes["bitfit"])
    assert not any("budget" in note for note in notes["lora"])
    sizes = [line for line in events(tmp_path) if line["event"] == "size"]
    assert [(line["method"], line["size"], line["parameters"]) for line in sizes] == [
        ("lora", 4, 8192),
        ("bitfit", None, None),
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trials": 0}, "trials=0: must be at least 1"),
        ({"factor": 1.0}, "factor=1.0: must be above 1"),
        ({"alpha": 1.5}, "alpha=1.5"),
        ({"methods": ["lora", "lora"]}, "methods=.*each one once"),
        ({"tasks": []}, "tasks=.*name at least one"),
        ({"search_seed": 2}, "search_seed=2: must be none of the seeds"),
        ({"shared": ["optim.lr=1"]}, "optim.lr=1: the comparison sets this key itself"),
        ({"search": ["eval.part=test"]}, "eval.part=test: the comparison sets this key itself"),
        ({"search": ["seed=1"]}, "seed=1: the comparison sets this key itself"),
    ],
)
def test_senseless_values_are_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(config(tmp_path, **changes))


def test_the_command_line() -> None:
    given = ["model=minilm", "tasks=[a,b]", 'shared=["optim.batch_size=4"]', "choose_by=metric", "budget=500000"]
    made = command.composed(given)
    assert (made.tasks, made.shared, made.budget) == (["a", "b"], ["optim.batch_size=4"], 500000)
    assert made.results == "experiments/results/minilm"
    assert made.search == ["forgetting.enabled=false"]


@pytest.mark.slow
def test_from_the_command_to_the_table(tmp_path: Path) -> None:
    """Real runs of the tiny model, in processes of their own; then nothing again, from the small files alone."""
    data = words(tmp_path / "words.jsonl", 60)
    shared = [f"task.train={data}", "task.n_val=5", "task.n_test=6", "eval.max_new_tokens=6", "device=cpu"]
    shared += ["optim.batch_size=4", "forgetting.n_text=2", "forgetting.n_kl=2"]
    command = [sys.executable, "-m", "experiments.compare", "model=tiny", "tasks=[jsonl]", "methods=[lora,full]"]
    command += ["trials=2", "seeds=2", "steps=3", "search_steps=2", "slots=2", f"shared={json.dumps(shared)}"]
    command += [f"results={tmp_path / 'small'}", "resamples=500"]
    done = subprocess.run([*command, f"out={tmp_path / 'runs'}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 runs to choose learning rates, 0 of them done; then 5 runs to be tested" in done.stdout
    found = json.loads((tmp_path / "small" / "comparison.json").read_text())["tasks"]["jsonl"]
    assert {item["method"]: item["n_seeds"] for item in found["methods"]} == {"none": 1, "lora": 2, "full": 2}
    assert (found["n_test"], found["missing"]) == (6, [])
    searched = read(next((tmp_path / "small" / "jsonl" / "search").glob("lora-*")))
    assert searched.n_test == 5  # the validation set
    assert searched.quality == {name: value for name, value in searched.validation.items() if name != "loss"}
    again = subprocess.run(
        [*command, f"out={tmp_path / 'none'}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "4 of them done" in again.stdout
    assert "started" not in again.stdout
    assert not (tmp_path / "none").exists()
    assert json.loads((tmp_path / "small" / "comparison.json").read_text())["tasks"]["jsonl"] == found


def test_the_command_names_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["model=tiny", "trials=0"]) == 2
    assert capsys.readouterr().err == "error: trials=0: must be at least 1\n"
    assert command.main(["model=tiny", "tirals=3"]) == 2
    assert "tirals" in capsys.readouterr().err


def test_ctrl_c_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> list[Result]:
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "carry_out", interrupted)
    places = [f"results={tmp_path / 'small'}", f"out={tmp_path / 'runs'}"]
    assert command.main(["model=tiny", "methods=[lora]", *places]) == 130
    assert "the same command goes on" in capsys.readouterr().err
