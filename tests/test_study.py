"""The arms of a comparison, the demo's samples and the study's choices, with processes replaced and results made up."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from experiments import arms, demo, study
from experiments.arms import Arm
from experiments.rows import Row, row
from tests.made_up import made_up


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs and results go to a temporary folder; the configuration stays the checkout's."""
    monkeypatch.setattr(study, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    return tmp_path


def arm(out: Path, *overrides: str) -> Arm:
    return Arm(("model=tiny", "task=ha_json", *overrides, f"out={out}"))


def test_an_arm_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = arm(tmp_path, "method=lora")
    calls: list[list[str]] = []

    def call(command: list[str], cwd: Path) -> int:
        calls.append(command)
        one.result.parent.mkdir(parents=True)
        one.result.write_text(json.dumps(made_up("lora")))
        return 0

    monkeypatch.setattr(arms.subprocess, "call", call)
    assert one.run() == one.run()
    assert one.complete
    assert len(calls) == 1
    assert calls[0][1:4] == ["-m", "experiments.run", "model=tiny"]


@pytest.mark.parametrize(("code", "said"), [(1, "exit code 1"), (-9, "killed by signal 9"), (0, "no result at")])
def test_an_arm_that_dies_is_a_failed_row(
    code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = arm(tmp_path, "method=lora", "optim.steps=9")
    stale = made_up("lora", status="failed", error="an older attempt")
    one.result.parent.mkdir(parents=True)
    one.result.write_text(json.dumps(stale))
    monkeypatch.setattr(arms.subprocess, "call", lambda command, cwd: code)
    item = one.run()
    assert item.failure is not None
    assert said in item.failure
    assert (item.method, item.steps, item.lr) == ("lora", 9, 1e-3)


def test_samples_stand_side_by_side(tmp_path: Path) -> None:
    chosen = [arm(tmp_path, "method=lora"), arm(tmp_path, "method=bitfit")]
    for one, right in zip(chosen, (True, False)):
        one.result.parent.mkdir(parents=True)
        lines = [
            {"prompt": f"made-up {i}", "gold": f"g{i}", "prediction": f"a `b`\n{i}", "correct": right}
            for i in range(12)
        ]
        (one.result.parent / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        one.result.write_text(json.dumps(made_up(one.config.method.name)))
    text = demo.samples(chosen, [row(one.result) for one in chosen])
    assert text.count(", gold `g") == demo.N_SAMPLES
    assert "`made-up 2`, gold `g2`\n\n- lora, right: `a 'b' 2`\n- bitfit, wrong: `a 'b' 2`" in text


# --- the study -----------------------------------------------------------------------------------


def test_every_default_rate_comes_first() -> None:
    cells = study.grid(study.METHODS, ("model=tiny", "task=ha_json"))
    trained = [method for method in study.METHODS if method != "none"]
    assert [cell.method for cell in cells[: len(trained)]] == trained
    assert all(cell.arm.config.optim.lr == cell.arm.config.method.lr for cell in cells[: len(trained)])
    assert len(cells) == len({cell.file for cell in cells}) == 3 * len(trained)
    rates = sorted(cell.arm.config.optim.lr for cell in cells if cell.method == "lora")
    assert rates == [3.3e-4, 1e-3, 3e-3]


def rated(lr: float, exact_match: float, loss: float, test: float = 0.0) -> Row:
    validation = {"exact_match": exact_match, "loss": loss}
    return Row(
        "fable", "m", "t", 0, lr, 5, 3,
        metric="exact_match", validation=validation, quality={"exact_match": test}, trainable=10,
    )  # fmt: skip


def test_the_rate_is_chosen_by_validation_loss() -> None:
    rows = [rated(0.2, 0.4, 0.8, test=0.1), rated(0.1, 0.5, 0.9, test=0.9), rated(0.3, 0.4, 1.0)]
    assert study.chosen(rows) == (0.2, "")


def test_an_open_grid_is_flagged() -> None:
    rate, note = study.chosen([rated(0.2, 0.4, 1.0), rated(0.1, 0.4, 1.1), rated(0.3, 0.5, 0.9)])
    assert rate == 0.3
    assert "lr 0.3 is at the edge of its grid (0.1 to 0.3)" in note
    assert study.chosen([rated(0.2, 0.4, 1.0)])[1] == "only 1 of 3 learning rates tried so far"
    failed = Row("fable", "m", "t", 0, 0.3, 5, 3, failure="made-up failure")
    some = study.chosen([rated(0.2, 0.4, 1.0), rated(0.1, 0.3, 1.1), failed])
    assert some == (0.2, "lr 0.3 failed: made-up failure")
    assert study.chosen([failed])[0] is None


def test_a_study_goes_on_where_it_was(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One method, its processes replaced: three short runs, a long one at the best rate, small files, tables."""
    quality = {1e-3: 0.5, 3.3e-4: 0.4, 3e-3: 0.6}
    called: list[str] = []

    def call(command: list[str], cwd: Path) -> int:
        one = Arm(tuple(command[3:]))
        optim = one.config.optim
        called.append(f"{one.config.method.name} {optim.lr:g} {optim.steps}")
        one.result.parent.mkdir(parents=True)
        numbers = {"exact_match": quality[optim.lr] + optim.steps / 1000, "loss": 1 - quality[optim.lr]}
        key = one.result.parent.name.rsplit("-", 1)[1]
        result = made_up("lora", lr=optim.lr, steps=optim.steps, validation=numbers, quality=numbers, key=key)
        one.result.write_text(json.dumps(result))
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    command = ["--only", "lora", "--model", "tiny", "--out", str(in_tmp / "runs"), "--results", "small"]
    assert study.main(command) == 0
    assert sorted(called[:3]) == ["lora 0.00033 80", "lora 0.001 80", "lora 0.003 80"]  # two at a time
    assert called[3:] == ["lora 0.003 250"]
    files = {str(path.relative_to(in_tmp / "small")) for path in (in_tmp / "small").rglob("*.*")}
    short = {f"search/lora-lr{rate}.json" for rate in ("0.001", "0.00033", "0.003")}
    assert files == {*short, "lora.json", "table.md", "plot.png"}
    text = (in_tmp / "small" / "table.md").read_text()
    assert "| lora | 0.003 | 0.680 | 0.400 | 0.680 | yes |" in text
    assert "| lora * | 0.850 |" in text
    assert "lr 0.003 is at the edge" in text
    assert study.main(command) == 0
    elsewhere = ["--only", "lora", "--model", "tiny", "--out", str(in_tmp / "empty"), "--results", "small"]
    assert study.main(elsewhere) == 0  # as in another checkout, where only the small files are
    assert len(called) == 4


def test_a_failed_run_of_a_study_fails_it(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "call", lambda command, cwd: 1)
    command = ["--only", "lora", "--model", "tiny", "--out", str(in_tmp / "runs"), "--results", "small"]
    assert study.main(command) == 1  # and no rate was found, so no long run was tried
    assert not (in_tmp / "small" / "table.md").exists()
