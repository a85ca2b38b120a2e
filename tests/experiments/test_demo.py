"""The demo on a tiny model: its arms run, its table and its page come out, done arms are not run again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.made_up import UNTRAINED, made_up, put
from experiments import demo
from experiments.store.files import read
from experiments.store.result import Result
from experiments.sweep.arm import Arm
from tests.support.runs import own_cache_and_torch_settings  # noqa: F401

SMALL = ("--model", "tiny", "--steps", "2", "--n-test", "3", "--only", "none", "lora")


def page_content(page: Path) -> dict:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.mark.slow
@pytest.mark.network
def test_the_demo_ends_in_a_table_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main([*SMALL, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"│ lora +│", said) and re.search(r"│ none +│", said)
    assert f"report: {tmp_path / 'report.html'}" in said
    content = page_content(tmp_path / "report.html")
    assert [run["method"] for run in content["runs"]] == ["none", "lora"]
    assert "Every trained arm sees the same 2 batches" in content["how"]
    (sample,) = content["samples"]
    assert len(sample["prompts"]) == 3
    results = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert demo.main([*SMALL, "--out", str(tmp_path)]) == 0
    assert results == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}


@pytest.mark.slow
@pytest.mark.network
def test_the_steps_are_timed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--model", "tiny", "--minutes", "0.01", "--n-test", "3", "--only", "lora", "--out", str(tmp_path))
    assert demo.main(given) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "20 steps: a step of all trained arms together takes" in text  # the fewest
    assert "minutes of a budget of 0.01" in text
    assert "What one seed and 3 sentences can tell" in text
    results = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert [json.loads(path.read_text())["steps"] for path in sorted(results)] == [20, 0]  # lora, none
    assert demo.main(given) == 0
    assert results == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}


# ---------------------------------------------------------------- without a run


class Machine:
    """Stands in for the timing and the runs: planted seconds, made-up results, and what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step_s: float, dtype: str | None = None) -> None:
        self.step_s, self.dtype = step_s, dtype
        self.timed: list[list[str]] = []
        self.carried: list[list[Arm]] = []
        monkeypatch.setattr(demo, "apart", self.apart)
        monkeypatch.setattr(demo, "carry_out", self.carry_out)

    def apart(self, runs: dict[str, Sequence[str]], choose: bool) -> tuple[str | None, demo.Costs]:
        self.timed.append(list(runs))
        return self.dtype if choose else None, dict.fromkeys(runs, (self.step_s, 2.0, 8.0))

    def carry_out(self, arms: Sequence[Arm], slots: int, *, console: Console) -> list[Result]:
        assert slots == 1
        self.carried.append(list(arms))
        methods = [arm.config.method.name for arm in arms]
        results = [made_up(method, **(UNTRAINED if method == "none" else {})) for method in methods]
        return [read(put(arm.directory.parent, result, arm.directory.name)) for arm, result in zip(arms, results)]

    @property
    def steps(self) -> set[int]:
        return {arm.config.optim.steps for arm in self.carried[-1] if arm.config.method.name != "none"}


@pytest.mark.parametrize(("step_s", "steps"), [(0.2, 100), (1.4, 45), (2.0, 30), (60.0, 20)])
def test_every_arm_gets_the_steps_that_the_minutes_hold(
    step_s: float, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(monkeypatch, step_s)
    assert demo.main(["--model", "tiny", "--out", str(tmp_path)]) == 0
    assert machine.timed == [["lora", "full"]]
    assert [len(arms) for arms in machine.carried] == [1, 6]  # the untrained one is timed by
    assert machine.steps == {steps}
    content = page_content(tmp_path / "report.html")
    assert f"{steps} steps: a step of all trained arms together takes {5 * step_s:.1f} s here" in content["how"]
    assert ("with fewer the table would show nothing" in content["how"]) is (steps == demo.FEWEST)


def test_the_same_command_keeps_its_steps_and_another_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, 1.4)
    given = ["--model", "tiny", "--out", str(tmp_path)]
    assert demo.main(given) == 0
    first = machine.steps
    machine.step_s = 0.2
    assert demo.main(given) == 0
    assert (machine.steps, len(machine.timed)) == (first, 1)
    assert demo.main([*given, "--minutes", "20"]) == 0
    assert (machine.steps, len(machine.timed)) == ({100}, 2)


def test_steps_that_are_asked_for_are_taken_and_the_arms_are_those_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, 60.0)
    assert demo.main(["--model", "tiny", "--steps", "7", "--only", "bitfit", "none", "--out", str(tmp_path)]) == 0
    assert (machine.timed, machine.steps) == ([], {7})
    assert [arm.config.method.name for arm in machine.carried[-1]] == ["bitfit", "none"]
    assert demo.main(["--model", "tiny", "--only", "prefix", "--out", str(tmp_path)]) == 0
    assert (machine.timed, machine.steps) == ([["prefix"]], {20})


@pytest.mark.parametrize("dtype", [None, "fp32"])
def test_a_processor_without_products_in_bf16_computes_in_fp32(
    dtype: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, 1.4, dtype)
    assert demo.main(["--steps", "7", "--out", str(tmp_path)]) == 0
    assert {arm.config.model.dtype.value for arm in machine.carried[-1]} == {dtype or "bf16"}
    assert ("Computed in fp32" in page_content(tmp_path / "report.html")["how"]) is (dtype is not None)


def test_a_step_that_was_not_timed_counts_as_the_dearest_deltas() -> None:
    costs = {"lora": (1.0, 2.0, 3.0), "full": (4.0, 5.0, 6.0)}
    assert demo.priced(["lora", "bitfit", "full"], costs, 10.0) == (1 + 1 + 4, 3 * 10 + 5 + 5 + 11)
    assert demo.priced(["full"], {"full": (4.0, 5.0, 6.0)}, 0.0) == (4, 11)


@given(st.floats(1, 1e4), st.floats(1e-3, 1e3), st.floats(0, 1e4))
def test_the_steps_fit_on_a_machine_that_slows_down(left_s: float, step_s: float, fixed_s: float) -> None:
    steps = demo.sized(left_s, step_s, fixed_s)
    assert demo.FEWEST <= steps <= demo.MOST
    assert steps % demo.MULTIPLE == 0
    if steps > demo.FEWEST:
        assert demo.DRIFT * (steps * step_s + fixed_s) <= left_s * (1 + 1e-9)
    if steps < demo.MOST:
        assert (steps + demo.MULTIPLE) * step_s + fixed_s > left_s / demo.DRIFT * (1 - 1e-9)


def test_the_table_says_what_one_seed_can_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Machine(monkeypatch, 1.4)
    assert demo.main(["--model", "tiny", "--steps", "7", "--out", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for text in (printed, page_content(tmp_path / "report.html")["how"]):
        assert "What one seed and 16 sentences can tell: a score has a standard error of up to" in text
        assert "are not told apart here" in text
        assert "The luck of the one seed comes on top" in text


def test_a_missed_budget_is_said_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.time, "monotonic", lambda: 900.0)
    arguments, slow = demo.arguments(["--minutes", "12"]), demo.Plan(50, None, "")
    assert demo.late(arguments, slow, 0.0) == [
        "It took 15.0 minutes of a budget of 12: the machine was slower than when timed."
    ]
    (text,) = demo.late(arguments, demo.Plan(demo.FEWEST, None, ""), 0.0)
    assert text.endswith("with fewer steps the table would show nothing.")
    assert demo.late(arguments, slow, 300.0) == []
    assert demo.late(demo.arguments(["--steps", "7"]), slow, 0.0) == []


def test_an_arm_that_fails_is_shown_and_is_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def carry_out(arms: Sequence[Arm], slots: int, *, console: Console) -> list[Result]:
        assert slots == 1
        failed = {"status": "failed", "error": "made-up failure", "failure_kind": "error"}
        results = [made_up("none", **UNTRAINED), made_up("lora", **failed)]
        return [read(put(arm.directory.parent, result, arm.directory.name)) for arm, result in zip(arms, results)]

    monkeypatch.setattr(demo, "carry_out", carry_out)
    put(tmp_path, made_up("myth"))  # something else in the same folder
    assert demo.main([*SMALL, "--out", str(tmp_path)]) == 1
    assert "lora failed: made-up failure" in capsys.readouterr().out
    assert [run["status"] for run in page_content(tmp_path / "report.html")["runs"]] == ["complete", "failed"]
