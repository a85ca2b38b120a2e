"""Every page of docs/extending is carried out in an empty folder, as whoever copies it would."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "extending"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def carried_out(page: str, folder: Path, cache: Path) -> str:
    """Write the page's files and give its commands, in their order; what they print."""
    blocks = BLOCK.findall((PAGES / f"{page}.md").read_text(encoding="utf-8"))
    for language, text in blocks:
        name = re.match(r"# (\w+\.py)\n", text)
        if language == "python":
            assert name, f"{page}.md: a block names no file in its first line"
            (folder / name[1]).write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DELTATUNE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    printed = ""
    for command in (line for language, text in blocks if language == "sh" for line in text.splitlines()):
        program, *words = shlex.split(command)
        assert program == "python", command
        done = subprocess.run(
            [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout
    return printed


def result(folder: Path) -> dict[str, Any]:
    (file,) = (folder / "runs").glob("*/result.json")
    return json.loads(file.read_text())


def method(folder: Path, printed: str) -> None:
    done = result(folder)
    assert (done["method"], done["status"], done["config"]["plugins"]) == ("scale", "complete", ["scale"])
    assert done["parameters"]["trainable"] == 2 * 128
    assert int(re.findall(r"(\d+) passed", printed)[0]) > 20


def task(folder: Path, printed: str) -> None:
    assert "120 train, 20 val, 40 test" in printed
    done = result(folder)
    assert (done["task"], done["metric"], len(done["scores"])) == ("sums", "exact_match", 6)


def metric(folder: Path, printed: str) -> None:
    done = result(folder)
    assert (done["metric"], list(done["quality"])) == ("first_word", ["first_word"])


def objective(folder: Path, printed: str) -> None:
    done = result(folder)
    assert (done["status"], done["config"]["objective"]) == ("complete", "smoothed")
    assert "2 passed" in printed


def tracker(folder: Path, printed: str) -> None:
    (steps,) = (folder / "runs").glob("*/steps.csv")
    assert [line.split(",")[0] for line in steps.read_text().splitlines() if ",loss," in line] == ["1", "2", "3", "4"]
    assert "quality/exact_match" in steps.with_name("result.csv").read_text()


def kernel(folder: Path, printed: str) -> None:
    assert result(folder)["method"] == "gain"
    assert "3 passed" in printed


def model(folder: Path, printed: str) -> None:
    done = result(folder)
    assert (done["model"], done["status"]) == ("small_gpt", "complete")
    assert "random weights, seed 0" in json.dumps(done)


def section(folder: Path, printed: str) -> None:
    page = (folder / "report.html").read_text()
    assert '"heading":"What a task costs on disk"' in page
    assert '"id":"quality-by-bytes"' in page
    assert "it is left out" not in printed


CHECKS: dict[str, Callable[[Path, str], None]] = {
    "method": method,
    "task": task,
    "metric": metric,
    "objective": objective,
    "kernel": kernel,
    "model": model,
    "tracker": tracker,
    "section": section,
}


@pytest.mark.parametrize("page", CHECKS)
def test_a_recipe(page: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    printed = carried_out(page, tmp_path, tmp_path_factory.getbasetemp() / "cache")
    CHECKS[page](tmp_path, printed)


def test_every_page_is_carried_out_and_in_the_index() -> None:
    pages = {file.stem for file in PAGES.glob("*.md")} - {"index"}
    listed = (PAGES / "index.md").read_text(encoding="utf-8").partition(":maxdepth: 1")[2].split("```")[0].split()
    assert pages == set(CHECKS) == set(listed)
