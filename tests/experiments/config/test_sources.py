"""The sources that can change a run's numbers: what they are, what changes their hash, and what does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from experiments.config import sources
from experiments.config.identity import key, run_name, settings_key
from experiments.config.sources import code_lines, imported
from tests.support.runs import ROOT, config

TINY = ("model=tiny", "task=ha_json", "optim=quick")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A second checkout, whose sources are the ones that count."""
    for name in ("experiments", "deltatune", "kernels"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "results"))

    def found(name: str):
        class Spec:
            submodule_search_locations = (str(tmp_path / name),)

        return Spec

    monkeypatch.setattr(sources, "ROOT", tmp_path)
    monkeypatch.setattr(sources, "find_spec", found)
    forget()
    yield tmp_path
    monkeypatch.undo()
    forget()


def forget() -> None:
    for each in (
        sources.digest,
        sources.library,
        sources.data_files,
    ):
        each.cache_clear()


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    forget()


def test_a_second_checkout_of_the_same_code_has_the_same_key(checkout):
    inside = key(config(*TINY))
    forget()
    sources.ROOT = ROOT
    assert key(config(*TINY)) == inside


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("experiments/training/optimizer.py", "fused=True", "fused=False"),
        ("experiments/training/loop.py", "share.backward()", "(2 * share).backward()"),
        ("experiments/tasks/home/ha_json.py", "import", "import sys\nimport"),
        ("experiments/tasks/metrics.py", "def ", "def more():\n    pass\n\n\ndef "),
        ("deltatune/core.py", "class DeltaModule", "planted = 1\n\n\nclass DeltaModule"),
        ("kernels/fused/dispatch.py", "def ", "def planted():\n    pass\n\n\ndef "),
        ("kernels/fused/dispatch.json", "1", "2"),  # which kernel runs
        ("experiments/tasks/home/homes/en.yaml", "itchen", "itchenette"),  # what the task is drawn of
        ("experiments/data/prose.jsonl", "the", "planted"),  # what forgetting is probed with
    ],
)
def test_a_planted_change_changes_the_key_and_the_name(checkout, file, old, new):
    made = config(*TINY)
    before = key(made), run_name(made), settings_key(made)
    edit(checkout / file, old, new)
    after = key(made), run_name(made), settings_key(made)
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert before[2] == after[2]  # what was asked for is the same


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("experiments/training/optimizer.py", '"""AdamW. A parameter', '"""Planted words. A parameter'),
        ("experiments/training/loop.py", "# waits for the device", "# planted"),
        ("experiments/tasks/sql/task.py", "import", "import sys\nimport"),  # another task's
        ("experiments/report/page.py", "import", "import sys\nimport"),
        ("experiments/compare/table.py", "import", "import sys\nimport"),
    ],
)
def test_what_cannot_change_a_number_changes_no_key(checkout, file, old, new):
    made = config(*TINY)
    before = key(made)
    edit(checkout / file, old, new)
    assert key(made) == before


def test_other_tasks_count_where_a_run_is_probed_or_replayed_with_them(checkout):
    made = config(*TINY, "forgetting.tasks=[sql]")
    before = key(made)
    edit(checkout / "experiments/tasks/sql/task.py", "import", "import sys\nimport")
    assert key(made) != before


def test_every_room_of_a_run_is_among_the_sources():
    names = imported((sources.RUN, "experiments.tasks.home.ha_json"))
    assert {name.split(".")[1] for name in names} == set(sources.NUMERIC)
    assert "experiments.training.optimizer" in names
    assert "experiments.tasks.home.ha_json" in names
    assert "experiments.tasks.sql.task" not in names


def test_comments_and_docstrings_are_left_out_and_strings_are_not():
    text = b'''"""Words.

# not code
"""
class A(B): """words"""
x = "a # b"  # a comment

def f(a):
    """Words

    over lines
    """
    y = """kept

    # kept
    """
    return f"{a} # kept"  # a comment
'''
    assert code_lines(text) == [
        "class A(B):",
        'x = "a # b"',
        "def f(a):",
        '    y = """kept',
        "",
        "    # kept",
        '    """',
        '    return f"{a} # kept"',
    ]
