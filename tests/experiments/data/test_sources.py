"""What makes two entries one source, and that a probe is never of the source of what is replayed."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.config.identity import settings_key
from experiments.data.sources import BUNDLED, check_apart, file_of, marks
from experiments.tasks.base import TaskError
from tests.support.runs import config


def one_source(a: str, b: str) -> bool:
    if not marks(a) & marks(b):
        check_apart([("forgetting.texts", a)], [("data.replay_from", b)])
        return False
    with pytest.raises(TaskError) as caught:
        check_apart([("forgetting.texts", a)], [("data.replay_from", b)])
    return f"forgetting.texts={a} and data.replay_from={b} are of one source" in str(caught.value)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("general", "general", True),
        ("general", "general task.seed=3 task.n_train=9", True),
        ("prose", "general", False),
        ("prose", "prose", True),
        ("ha_json", "ha_json task.n_test=3", True),
        ("ha_json", "sql", False),
        ("hub task.path=a/b task.test=test", "hub task.path=a/b", True),
        ("hub task.path=a/b task.subset=one", "hub task.path=a/b task.subset=one task.train=validation", True),
        ("hub task.path=a/b task.subset=one", "hub task.path=a/b task.subset=two", False),
        ("hub task.path=a/b", "hub task.path=a/c", False),
        ("hellaswag", "commonsense", True),
        ("arc_easy", "arc_challenge", False),
        ("mmlu", "commonsense", False),
        ("gsm8k", "hub task.path=openai/gsm8k task.subset=main", True),
    ],
)
def test_tasks_and_datasets_by_their_names(a: str, b: str, same: bool) -> None:
    assert one_source(a, b) == same == one_source(b, a)


def test_files_by_path_and_by_contents(tmp_path: Path) -> None:
    file, other, empty = tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "c.jsonl"
    file.write_text('{"text": "one"}\n')
    other.write_text('{"text": "two"}\n')
    assert not one_source(str(file), str(other))
    assert one_source(str(file), f"jsonl task.train={other} task.test={file}"), "any file of a task is its source"
    assert not one_source(str(file), f"jsonl task.train={other}")
    other.write_bytes(file.read_bytes())
    assert one_source(str(file), str(other))
    assert one_source(str(empty), str(tmp_path / "." / "c.jsonl")), "also before the file is there"
    assert one_source("prose", str(BUNDLED["prose"]))


def test_a_tasks_last_word_may_be_a_file_and_a_files_name_may_have_an_equals_sign(tmp_path: Path) -> None:
    file = tmp_path / "a = b.jsonl"
    assert file_of(f"jsonl task.train={tmp_path}/a.jsonl") is None
    file.write_text('{"text": "one"}\n')
    assert file_of(str(file)) == file and file_of("general") is None and file_of("x.jsonl") == Path("x.jsonl")


def test_a_directory_of_data_by_any_way_to_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert one_source(f"hub task.path={tmp_path}/data", f"hub task.path={tmp_path}/link")


def test_the_message_says_what_could_be_done() -> None:
    with pytest.raises(TaskError, match=r"the task general: what is replayed is learned.*come along: prose, general"):
        check_apart([("forgetting.texts", "general")], [("data.replay_from", "general")])
    check_apart([("forgetting.texts", "general")], [])
    assert marks("general") == {"the task general"}


def test_the_files_of_a_public_task_are_in_a_runs_key(tmp_path: Path) -> None:
    file, folder = tmp_path / "arc.jsonl", tmp_path / "copy"
    folder.mkdir()
    given = [
        ("model=tiny", "task=arc_easy", f"task.train={file}"),
        ("model=tiny", "task=arc_easy", f"task.path={folder}"),
    ]
    keys = []
    for text in ("one", "two"):
        file.write_text(text)
        (folder / "test.jsonl").write_text(text)
        keys.append([settings_key(config(*overrides)) for overrides in given])
    assert all(before != after for before, after in zip(*keys))
