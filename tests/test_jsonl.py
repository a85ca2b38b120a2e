"""The task jsonl: every form of record, the split, and every way a file can be wrong."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.tasks import Example, TaskError, load_task


def write(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def task(train: str, val: str | None = None, test: str | None = None, **sizes: int) -> SimpleNamespace:
    return SimpleNamespace(name="jsonl", train=train, val=val, test=test, **{"n_val": 1, "n_test": 1} | sizes)


USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello"}
FORMS = {
    "prompt": ({"prompt": "Hi", "completion": "Hello"}, (), "Hi", "Hello"),
    "instruction": (
        {"instruction": "Add", "input": "1 2", "output": "3"},
        ({"role": "user", "content": "Add\n\n1 2"},),
        "",
        "3",
    ),
    "no input": (
        {"instruction": "Sing", "input": "", "output": "La"},
        ({"role": "user", "content": "Sing"},),
        "",
        "La",
    ),
    "messages": ({"messages": [USER, ASSISTANT, USER, ASSISTANT]}, (USER, ASSISTANT, USER), "", "Hello"),
    "label": ({"text": "good", "label": "pos"}, (), "good", "pos"),
    "whole number": ({"text": "good", "label": 1}, (), "good", "1"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_record(form: str, tmp_path: Path) -> None:
    record, messages, text, completion = FORMS[form]
    file = write(tmp_path / "all.jsonl", record)
    data = load_task(task(file, file, file))
    assert data.train == [Example(messages, completion, text=text, place=f"{file}:1")]
    assert data.kind == ("classify" if "label" in record else "generate")
    assert data.labels == ((completion,) if "label" in record else ())


def test_pairs_of_texts(tmp_path: Path) -> None:
    file = write(tmp_path / "all.jsonl", {"text": "a", "text_pair": "b", "label": "yes"})
    assert load_task(task(file, file, file)).train[0].text_pair == "b"


def test_split_by_hash(tmp_path: Path) -> None:
    rows = [{"prompt": f"say {i}", "completion": str(i)} for i in range(20)]
    rows += rows[:10]  # repeated: the copies of a record stay together
    forward = load_task(task(write(tmp_path / "a.jsonl", *rows), n_val=4, n_test=6))
    backward = load_task(task(write(tmp_path / "b.jsonl", *rows[::-1]), n_val=4, n_test=6))
    assert sum(len(part) for part in (forward.train, forward.val, forward.test)) == 30
    for one, other in combinations((forward.train, forward.val, forward.test), 2):
        assert one
        assert {example.text for example in one}.isdisjoint(example.text for example in other)
    for part in ("train", "val", "test"):
        assert {e.text for e in getattr(forward, part)} == {e.text for e in getattr(backward, part)}
    again = load_task(task(write(tmp_path / "a.jsonl", *rows), n_val=4, n_test=6))
    assert again.sha256 == forward.sha256
    other_seed = load_task(task(str(tmp_path / "a.jsonl"), n_val=4, n_test=6), seed=1)
    assert {example.text for example in other_seed.test} != {example.text for example in forward.test}


GOOD = b'{"prompt":"a","completion":"b"}\n'
BAD_FILES = {
    "empty": (b"", ": the file is empty"),
    "blank": (b"\n \n", ": the file is empty"),
    "broken line": (GOOD + b'{"prompt": "a",\n' + GOOD, ":2: not a JSON value"),
    "blank line inside": (GOOD + b"\n" + GOOD, ":2: not a JSON value"),
    "latin-1": (GOOD + '{"prompt":"é","completion":"b"}\n'.encode("latin-1"), ":2: not UTF-8"),
    "utf-16": ('{"prompt":"a","completion":"b"}\n'.encode("utf-16"), ":1: not UTF-8"),
    "missing field": (GOOD + b'{"prompt":"a"}\n', ":2: field 'completion' is missing"),
    "empty field": (GOOD + b'{"prompt":"a","completion":" "}\n', ":2: field 'completion' is empty"),
    "wrong type": (
        GOOD + b'{"prompt":["a"],"completion":"b"}\n',
        ":2: field 'prompt' must be a text, not list",
    ),
    "label of a wrong type": (b'{"text":"a","label":1.5}\n', ":1: field 'label' must be .*, not float"),
    "mixed forms": (
        GOOD + b'{"text":"a","label":"b"}\n',
        ":2: a text/label record in a file of prompt/completion",
    ),
    "not an object": (b"[1]\n", ":1: a record is a JSON object, not list"),
    "no known form": (b'{"question":"a"}\n', ":1: no known record form"),
    "last turn the user's": (
        json.dumps({"messages": [USER, ASSISTANT, USER]}).encode(),
        ":1: the last turn of 'messages' must be the assistant's, not 'user'",
    ),
    "turn without content": (
        json.dumps({"messages": [{"role": "user"}, ASSISTANT]}).encode(),
        ":1: a turn of 'messages' has no 'content'",
    ),
    "messages not a list": (b'{"messages":"hi"}', ":1: field 'messages' must be a list"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_with_its_line(case: str, tmp_path: Path) -> None:
    contents, message = BAD_FILES[case]
    file = tmp_path / "bad.jsonl"
    file.write_bytes(contents)
    with pytest.raises(TaskError, match=r"bad\.jsonl" + message):
        load_task(task(str(file), str(file), str(file)))


def test_bom_carriage_returns_and_a_blank_last_line_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "windows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n") * 2 + b"\r\n\r\n")
    assert len(load_task(task(str(file), str(file), str(file))).train) == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"absent\.jsonl: cannot be read"):
        load_task(task(str(tmp_path / "absent.jsonl")))


def test_a_label_that_training_never_saw(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", {"text": "a", "label": "yes"}, {"text": "b", "label": "no"})
    test = write(tmp_path / "test.jsonl", {"text": "c", "label": "yes"}, {"text": "d", "label": "maybe"})
    with pytest.raises(TaskError, match=r"test\.jsonl:2: label 'maybe'"):
        load_task(task(train, train, test))


def test_files_of_different_forms(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", {"text": "a", "label": "yes"})
    test = write(tmp_path / "test.jsonl", {"prompt": "a", "completion": "b"})
    with pytest.raises(TaskError, match="different record forms"):
        load_task(task(train, train, test))


def test_a_split_that_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    file = write(tmp_path / "all.jsonl", {"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"})
    with pytest.raises(TaskError, match=r"all\.jsonl: 1 records leave none to train on after task\.n_val=1"):
        load_task(task(file))
