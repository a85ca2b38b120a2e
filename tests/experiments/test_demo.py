"""The demo on a tiny model: its arms run, its table and its page come out, done arms are not run again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from experiments import demo
from experiments.store.result import Row, row
from experiments.sweep.arm import Arm
from tests.support.made_up import UNTRAINED, made_up, put
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


def test_an_arm_that_fails_is_shown_and_is_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def carry_out(arms: Sequence[Arm], slots: int, *, console: Console) -> list[Row]:
        assert slots == 1
        failed = {"status": "failed", "error": "made-up failure", "failure_kind": "error"}
        results = [made_up("none", **UNTRAINED), made_up("lora", **failed)]
        return [row(put(arm.directory.parent, result, arm.directory.name)) for arm, result in zip(arms, results)]

    monkeypatch.setattr(demo, "carry_out", carry_out)
    put(tmp_path, made_up("myth"))  # of something else in the same folder
    assert demo.main([*SMALL, "--out", str(tmp_path)]) == 1
    assert "lora failed: made-up failure" in capsys.readouterr().out
    assert [run["status"] for run in page_content(tmp_path / "report.html")["runs"]] == ["complete", "failed"]
