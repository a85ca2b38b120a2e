"""The tasks' data: what ha_json draws, how it is split and scored, and every way a JSONL file can be wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import combinations, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("hassil", reason="needs the extra `experiments`")

from experiments.tasks import Example, TaskData, TaskError, ha_json, load_task, score

Parts = tuple[list[Example], list[Example], list[Example]]


@pytest.fixture(scope="module")
def home() -> ha_json.Home:
    return ha_json.Home.english()


@pytest.fixture(scope="module")
def parts() -> Parts:
    """One sentence of every template that comes through, and more."""
    return ha_json.generate(900, 90, 180, seed=0)


def said(example: Example) -> str:
    return example.messages[0]["content"]


def generated(gold: str) -> TaskData:
    return TaskData("ha_json", "generate", [], [], [Example((), gold)], (), "", {})


# ha_json: the data


def test_sizes_and_form(parts: Parts) -> None:
    assert [len(part) for part in parts] == [900, 90, 180]
    for example in (one for part in parts for one in part):
        assert [turn["role"] for turn in example.messages] == ["user"]
        answer = json.loads(example.completion)
        assert set(answer) == {"intent", "slots"}
        assert example.completion == json.dumps(
            answer, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )


def test_no_template_and_no_sentence_stands_in_two_parts(parts: Parts) -> None:
    for one, other in combinations(parts, 2):
        assert {example.group for example in one}.isdisjoint(example.group for example in other)
    sentences = [said(example) for part in parts for example in part]
    assert len(sentences) == len(set(sentences))


def test_nearly_every_line_of_the_package_is_reached(home: ha_json.Home, parts: Parts) -> None:
    lines = {template.id for template in home.templates()}
    train = {example.group for example in parts[0]}
    reached = {example.group for part in parts for example in part}
    assert reached <= lines
    # Train takes each of its templates once before any of them twice. Missing are the lines without a sentence
    # that comes through, and what 90 and 180 sentences leave of the other two parts.
    assert len(train) / len(lines) > 0.6
    assert len(reached) / len(lines) > 0.9


def test_every_intent_is_learned_and_small_ones_are_in_train_alone(home: ha_json.Home, parts: Parts) -> None:
    lines: dict[str, int] = {}
    for template in home.templates():
        lines[template.intent] = lines.get(template.intent, 0) + 1
    train, val, test = ({example.group.split(":")[0] for example in part} for part in parts)
    assert train == set(lines)
    assert all(lines[intent] >= 3 for intent in val | test)
    assert test == {intent for intent, count in lines.items() if count >= 3}


def test_every_answer_is_what_recognize_finds(home: ha_json.Home, parts: Parts) -> None:
    for example in parts[1] + parts[2]:
        found = home.understand(said(example))
        assert found is not None
        assert json.loads(example.completion) == {"intent": found[0], "slots": found[1]}


def test_sentences_do_not_tell_where_the_speaker_is(home: ha_json.Home, parts: Parts) -> None:
    assert home.understand("turn on the lights") == ("HassTurnOn", {"domain": "light"})
    assert home.understand("turn on the lights in the kitchen") == (
        "HassTurnOn",
        {"domain": "light", "area": "kitchen"},
    )
    assert not any(ha_json.NO_AREA in example.completion for part in parts for example in part)


def test_numbers_are_said_in_digits_and_in_words(home: ha_json.Home) -> None:
    assert home.understand("set brightness to twenty five percent") == (
        "HassLightSet",
        {"domain": "light", "brightness": 25},
    )
    assert home.understand("turn down the volume by 20 percent") == (
        "HassSetVolumeRelative",
        {"volume_step": -20},
    )


def test_expansions_depend_on_the_seed_alone(home: ha_json.Home) -> None:
    some = home.templates()[::60]

    def draw(home: ha_json.Home, seed: int) -> list[Example]:
        return [example for one in some for example in islice(ha_json.expansions(home, one, seed), 3)]

    first = draw(home, 0)
    assert first == draw(ha_json.Home.english(), 0)
    assert first != draw(home, 1)


def test_more_sentences_than_there_are_is_an_error(
    home: ha_json.Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [template for template in home.templates() if template.intent == "HassNevermind"]
    monkeypatch.setattr(ha_json.Home, "templates", lambda self: few)
    with pytest.raises(TaskError, match=r"task.n_train=50: the templates give only 2 distinct"):
        ha_json.generate(50, 0, 0, seed=0)


def test_a_list_that_the_home_lacks_is_named(home: ha_json.Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ha_json.ha_home.PHRASES, "message")
    broadcast = next(one for one in home.templates() if one.intent == "HassBroadcast")
    with pytest.raises(TaskError, match=r"\{message\} has no values"):
        next(ha_json.expansions(home, broadcast, 0))


@pytest.mark.slow
def test_the_data_is_the_same_in_every_process(tmp_path: Path) -> None:
    code = (
        "from types import SimpleNamespace; from experiments.tasks import load_task;"
        "print(load_task(SimpleNamespace(name='ha_json', n_train=50, n_val=5, n_test=10), seed=3).sha256)"
    )
    hashes = set()
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "DELTATUNE_CACHE": str(tmp_path / hash_seed)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        hashes.add(done.stdout)
    assert len(hashes) == 1


def test_loading_keeps_the_data_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [
        template for template in ha_json.Home.english().templates() if template.intent == "HassMediaPrevious"
    ]
    monkeypatch.setattr(ha_json.Home, "templates", lambda self: few)
    monkeypatch.setenv("DELTATUNE_CACHE", str(tmp_path))
    config = SimpleNamespace(name="ha_json", n_train=6, n_val=1, n_test=2)
    first = load_task(config, seed=0)
    monkeypatch.setattr(ha_json, "generate", lambda *sizes: pytest.fail("drawn a second time"))
    assert load_task(config, seed=0) == first
    assert (first.kind, first.labels) == ("generate", ())
    assert set(first.sources) == {"home-assistant-intents", "hassil", "unicode-rbnf"}


# scores


@pytest.mark.parametrize(
    ("prediction", "exact_match", "valid_json"),
    [
        ('{"intent":"A","slots":{"n":1}}', 1, 1),
        (' { "slots": {"n": 1},\n "intent": "A" } ', 1, 1),
        ('{"intent":"A","slots":{"n":2}}', 0, 1),
        ('{"intent":"A","slots":{"n":true}}', 0, 1),
        ('{"intent":"A","slots":{"n":"1"}}', 0, 1),
        ('{"intent":"A","slots":{"n":1},"more":0}', 0, 1),
        ('{"intent":"A","slots":{"n":1}} and so on', 0, 0),
        ('{"intent":"A","slots":{"n":NaN}}', 0, 0),
        ('{"intent":"A","slots":{"n":1', 0, 0),
        ("1", 0, 0),
        ("", 0, 0),
        ("[" * 100_000, 0, 0),
    ],
)
def test_score_of_ha_json(prediction: str, exact_match: float, valid_json: float) -> None:
    data = generated('{"intent":"A","slots":{"n":1}}')
    assert score(data, [prediction[:200_000]], data.test) == {
        "exact_match": exact_match,
        "valid_json": valid_json,
    }


def test_score_of_classification() -> None:
    data = TaskData("jsonl", "classify", [], [], [], ("a", "b"), "", {})
    examples = [Example((), label) for label in "aaab"]
    result = score(data, ["a", "a", "b", "b"], examples)
    # a: precision 1, recall 2/3; b: precision 1/2, recall 1
    assert result == {"accuracy": 0.75, "macro_f1": pytest.approx((0.8 + 2 / 3) / 2)}


def test_score_of_generation_from_a_file() -> None:
    data = TaskData("jsonl", "generate", [], [], [], (), "", {})
    assert score(data, [" yes\n", "Yes"], [Example((), "yes"), Example((), "yes")]) == {"exact_match": 0.5}


@pytest.mark.parametrize("predictions", [[], ["a", "b"]])
def test_score_wants_one_prediction_for_each_example(predictions: list[str]) -> None:
    data = generated("{}")
    with pytest.raises(TaskError, match="predictions for 1 examples"):
        score(data, predictions, data.test)


def test_unknown_task() -> None:
    with pytest.raises(TaskError, match="'chess'.*ha_json or jsonl"):
        load_task(SimpleNamespace(name="chess"))


# jsonl


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
    assert data.train == [Example(messages, completion, f"{file}:1", text)]
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
    "empty": (b"", r":? ?the file is empty"),
    "blank": (b"\n", "(?s)empty|not a JSON value"),
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
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n") * 2 + b"\r\n")
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
    file = write(
        tmp_path / "all.jsonl", {"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}
    )
    with pytest.raises(TaskError, match=r"all\.jsonl: 1 records leave none to train on after task\.n_val=1"):
        load_task(task(file))
