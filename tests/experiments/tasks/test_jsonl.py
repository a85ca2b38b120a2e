"""The task jsonl: every form of record, the split, and every way a file can be wrong."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from experiments.config.tasks import JsonlConfig
from experiments.tasks import load_task
from experiments.tasks.base import Example, TaskError


def write(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def task(train: str, val: str | None = None, test: str | None = None, **more: Any) -> JsonlConfig:
    """Without a file, one record is split off."""
    sizes = {"n_val": None if val else 1, "n_test": None if test else 1}
    return JsonlConfig("jsonl", train=train, val=val, test=test, **sizes | more)


USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello"}
PREFERENCE = {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"}
CHOICES = {"prompt": "1 + 1?", "choices": ["1", "2", "3"], "answer": 1}
FORMS: dict[str, tuple[dict[str, Any], str, Example]] = {
    "prompt": ({"prompt": "Hi", "completion": "Hello"}, "generate", Example((), "Hello", text="Hi")),
    "references": (
        {"prompt": "Hi", "completion": "Hello", "references": ["Hey", "Hello"]},
        "generate",
        Example((), "Hello", text="Hi", references=("Hello", "Hey")),
    ),
    "instruction": (
        {"instruction": "Add", "input": "1 2", "output": "3"},
        "generate",
        Example(({"role": "user", "content": "Add\n\n1 2"},), "3"),
    ),
    "no input": (
        {"instruction": "Sing", "input": "", "output": "La"},
        "generate",
        Example(({"role": "user", "content": "Sing"},), "La"),
    ),
    "messages": (
        {"messages": [USER, ASSISTANT, USER, ASSISTANT]},
        "generate",
        Example((USER, ASSISTANT, USER), "Hello"),
    ),
    "label": ({"text": "good", "label": "pos"}, "classify", Example((), "pos", text="good")),
    "whole number": ({"text": "good", "label": 1}, "classify", Example((), "1", text="good")),
    "number": ({"text": "good", "label": 4.0}, "rate", Example((), "4.0", text="good")),
    "pair": ({"text": "a", "text_pair": "b", "label": "yes"}, "classify", Example((), "yes", text="a", text_pair="b")),
    "preference": (PREFERENCE, "choose", Example((), "Hello", text="Hi", choices=("Go away", "Hello"))),
    "preference in a chat": (
        {**PREFERENCE, "messages": [USER]},
        "choose",
        Example((USER,), "Hello", choices=("Go away", "Hello")),
    ),
    "multiple choice": (CHOICES, "choose", Example((), "2", text="1 + 1?", choices=("1", "2", "3"))),
    "plain text": ({"text": "Once upon a time"}, "text", Example(text="Once upon a time")),
    "sql": (
        {"prompt": "t(a) How many? SQL:", "completion": "SELECT COUNT(*) FROM t", "db_id": "d", "n_result_rows": 1},
        "generate",
        Example((), "SELECT COUNT(*) FROM t", text="t(a) How many? SQL:"),
    ),
    "other fields": ({"prompt": "Hi", "completion": "Hello", "answer": 3}, "generate", Example((), "Hello", text="Hi")),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_record(form: str, tmp_path: Path) -> None:
    record, kind, example = FORMS[form]
    file = write(tmp_path / "all.jsonl", record)
    data = load_task(task(file, file, file))
    assert data.train == data.val == data.test == [replace(example, place=f"{file}:1")]
    assert data.kind == kind
    assert data.labels == ((example.completion,) if kind == "classify" else ())
    assert list(data.sources) == [file]
    said = "[1.5, 3, 4]" if kind == "text" else example.completion
    scores = data.score(data.test, [said])
    assert next(iter(scores.means)) == data.metric
    assert scores.each == [{"text": -0.5, "rate": 0}.get(kind, 1)]  # one number has no correlation


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
    "label of a wrong type": (b'{"text":"a","label":true}\n', ":1: field 'label' must be a text or a number, not bool"),
    "label without bounds": (b'{"text":"a","label":NaN}\n', ":1: field 'label' must be a finite number, not nan"),
    "class among numbers": (
        b'{"text":"a","label":1.5}\n{"text":"b","label":4}\n',
        ":2: a text/label record among text/number records; where 4 is no class, write it with a point, 4.0",
    ),
    "empty label": (b'{"text":"a","label":""}\n', ":1: field 'label' is empty"),
    "mixed forms": (
        GOOD + b'{"text":"a","label":"b"}\n',
        ":2: a text/label record among prompt/completion records",
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
    "messages not a list": (b'{"messages":"hi"}', ":1: field 'messages' must be a list of 2 turns or more"),
    "no choices": (b'{"prompt":"a","choices":["b"],"answer":0}', ":1: field 'choices' must have two texts or more"),
    "choices not texts": (
        b'{"prompt":"a","choices":["b",1],"answer":0}',
        ":1: field 'choices' must be a list of texts",
    ),
    "no such choice": (
        b'{"prompt":"a","choices":["b","c"],"answer":2}',
        ":1: field 'answer' must be the index of a choice, 0 to 1: 2",
    ),
    "choice by its text": (b'{"prompt":"a","choices":["b","c"],"answer":"b"}', ":1: field 'answer' must be .*'b'"),
    "no answer": (b'{"prompt":"a","choices":["b","c"]}', ":1: field 'answer' is missing for a multiple choice record"),
    "no preference": (b'{"prompt":"a","chosen":"b","rejected":"b"}', ":1: 'chosen' and 'rejected' are the same"),
    "half a preference": (b'{"prompt":"a","chosen":"b"}', ":1: field 'rejected' is missing for a preference record"),
    "empty reference": (b'{"prompt":"a","completion":"b","references":[""]}', ":1: a text of 'references' is empty"),
    "deep": (b"[" * 100_000, ":1: not a JSON value"),
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
    assert load_task(task(train, train, test)).labels == ("no", "yes")  # the data gate names it


def test_files_of_different_forms(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", {"text": "a", "label": "yes"})
    test = write(tmp_path / "test.jsonl", {"prompt": "a", "completion": "b"})
    with pytest.raises(TaskError, match="different record forms"):
        load_task(task(train, train, test))


def test_a_split_that_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    file = write(tmp_path / "all.jsonl", {"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"})
    with pytest.raises(
        TaskError, match=r"all\.jsonl: 2 records leave none to train on; lower task\.n_val or task\.n_test"
    ):
        load_task(task(file))


# ---------------------------------------------------------------- sizes, groups, parts, metrics


def numbered(path: Path, n: int, **more: Any) -> str:
    return write(path, *({"prompt": f"say {i}", "completion": str(i), "of": i // 4, **more} for i in range(n)))


def test_sizes_of_given_files(tmp_path: Path) -> None:
    train, test = numbered(tmp_path / "train.jsonl", 20), numbered(tmp_path / "test.jsonl", 10)
    data = load_task(task(train, None, test, n_train=5, n_val=3, n_test=4))
    assert [len(part) for part in (data.train, data.val, data.test)] == [5, 3, 4]
    assert {e.text for e in data.train}.isdisjoint(e.text for e in data.val)
    assert len(load_task(task(train, train, test)).test) == 10
    with pytest.raises(TaskError, match=r"task.n_test=11: there are only 10 records"):
        load_task(task(train, train, test, n_test=11))


def test_a_group_stands_in_one_part(tmp_path: Path) -> None:
    file = numbered(tmp_path / "all.jsonl", 40)
    data = load_task(task(file, n_val=8, n_test=9, group="of"))
    assert [len(part) for part in (data.train, data.val, data.test)] == [20, 8, 12]  # groups of four
    for one, other in combinations((data.train, data.val, data.test), 2):
        assert {example.group for example in one}.isdisjoint(example.group for example in other)


def test_quality_by_a_field(tmp_path: Path) -> None:
    file = numbered(tmp_path / "all.jsonl", 8)
    data = load_task(task(file, file, file, part="of"))
    assert data.by_part(data.test, [*"0123", *"xxx7"]) == {"0": {"exact_match": 1}, "1": {"exact_match": 0.25}}
    with pytest.raises(TaskError, match=r"all.jsonl:1: task.part=lang needs a text or a whole number.*None"):
        load_task(task(file, file, file, part="lang"))


@pytest.mark.parametrize(
    ("form", "metric", "main"),
    [
        *(("prompt", name, name) for name in ("exact_match", "chrf", "bleu", "rouge_l")),
        *(("label", "accuracy", "accuracy"), ("label", "mcc", "mcc")),
        *(("multiple choice", "accuracy", "accuracy"), ("plain text", "log_likelihood", "log_likelihood")),
    ],
)
def test_the_metric_can_be_chosen(form: str, metric: str, main: str, tmp_path: Path) -> None:
    file = write(tmp_path / "all.jsonl", FORMS[form][0])
    data = load_task(task(file, file, file, metric=metric))
    said = "[1, 1, 1]" if form == "plain text" else "words"
    assert data.metric == main == next(iter(data.score(data.test, [said]).means))


def test_answers_in_json_against_a_schema(tmp_path: Path) -> None:
    file = write(tmp_path / "all.jsonl", {"prompt": "one", "completion": '{"n": 1}'})
    data = load_task(task(file, file, file, metric="json"))
    assert data.score(data.test, ['{ "n":1 }']).means == {"exact_match": 1, "valid_json": 1}
    schema = write(tmp_path / "schema.json", {"properties": {"n": {"type": "integer"}}})
    data = load_task(task(file, file, file, schema=schema))
    assert data.metric == "exact_match"
    assert data.score(data.test, ['{"n": "1"}']).means == {"exact_match": 0, "valid_json": 1, "valid_schema": 0}
    assert set(data.sources) == {file, schema}


def test_queries_are_executed_where_there_is_a_database(tmp_path: Path) -> None:
    database = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executescript("CREATE TABLE t(a INTEGER); INSERT INTO t VALUES (1), (2);")
    file = write(tmp_path / "all.jsonl", FORMS["sql"][0])
    data = load_task(task(file, file, file, database=str(database)))
    assert data.metric == "execution_accuracy"
    assert data.score(data.test, ["select count(a) from t"]).each == [1]
    assert data.score(data.test, ["SELECT MAX(a) + 1 FROM t"]).each == [0]
    assert set(data.sources) == {file, str(database)}


@pytest.mark.parametrize(
    ("form", "more", "message"),
    [
        ("prompt", {"metric": "mcc"}, r"task.metric=mcc: for data of the kind 'generate' there are: exact_match, chrf"),
        ("label", {"metric": "bleu"}, r"task.metric=bleu: for data of the kind 'classify' there are: accuracy, mcc"),
        ("prompt", {"metric": "execution"}, "task.database=a.sqlite"),
        ("label", {"schema": "schema.json"}, "task.schema is for answers in JSON"),
        ("prompt", {"schema": "absent.json"}, r"task.schema=absent.json: no JSON Schema"),
        ("label", {"database": "a.sqlite"}, "task.database is for answers in SQL"),
    ],
)
def test_settings_that_do_not_fit_the_records(form: str, more: dict[str, str], message: str, tmp_path: Path) -> None:
    file = write(tmp_path / "all.jsonl", FORMS[form][0])
    with pytest.raises(TaskError, match=message):
        load_task(task(file, file, file, **more))


def test_a_schema_that_is_none(tmp_path: Path) -> None:
    file = write(tmp_path / "all.jsonl", FORMS["prompt"][0])
    schema = write(tmp_path / "schema.json", {"type": "thing"})
    with pytest.raises(TaskError, match=r"schema.json: no JSON Schema: 'thing' is not valid"):
        load_task(task(file, file, file, schema=schema))
