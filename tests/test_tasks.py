"""The task ha_json, what it draws and how it is split, and the scores of all tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("hassil", reason="needs the extra `experiments`")

from experiments.metrics import exact_match, json_match
from experiments.tasks import Example, Scorer, Scores, TaskData, TaskError, content_sha256, ha_json, load_task

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


def made(scorer: Scorer, *test: Example) -> TaskData:
    return TaskData("made up", "generate", [], [], list(test), (), "", {}, "a metric", scorer)


# ha_json: the data


def test_sizes_and_form(parts: Parts) -> None:
    assert [len(part) for part in parts] == [900, 90, 180]
    for example in (one for part in parts for one in part):
        assert [turn["role"] for turn in example.messages] == ["user"]
        answer = json.loads(example.completion)
        assert set(answer) == {"intent", "slots"}
        assert example.completion == json.dumps(answer, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


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
    # Train takes each of its templates once before any of them twice. What is missing are the lines without a
    # sentence that comes through, and some of the templates of the smaller parts.
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


def test_more_sentences_than_there_are_is_an_error(home: ha_json.Home, monkeypatch: pytest.MonkeyPatch) -> None:
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
    few = [template for template in ha_json.Home.english().templates() if template.intent == "HassMediaPrevious"]
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
def test_score_of_json(prediction: str, exact_match: float, valid_json: float) -> None:
    scores = json_match([Example((), '{"intent":"A","slots":{"n":1}}')], [prediction])
    assert scores == Scores([exact_match], {"exact_match": exact_match, "valid_json": valid_json})


@pytest.mark.parametrize("predictions", [[], ["a", "b"]])
def test_score_wants_one_prediction_for_each_example(predictions: list[str]) -> None:
    data = made(exact_match, Example((), "a"))
    with pytest.raises(TaskError, match="predictions for 1 examples"):
        data.score(data.test, predictions)


def test_quality_is_also_reported_by_part() -> None:
    examples = [Example((), "a", part="de"), Example((), "b", part="fr"), Example((), "c", part="de"), Example((), "d")]
    data = made(exact_match, *examples)
    assert data.score(examples, ["a", "b", "b", "d"]) == Scores([1, 1, 0, 1], {"exact_match": 0.75})
    assert data.by_part(examples, ["a", "b", "b", "d"]) == {"de": {"exact_match": 0.5}, "fr": {"exact_match": 1.0}}
    assert data.by_part(examples[3:], ["d"]) == {}


def test_the_hash_is_of_the_contents_alone() -> None:
    plain = Example((), "a", "t", "b")
    assert content_sha256([plain]) == content_sha256([replace(plain, place="a.jsonl:3")])
    others = [replace(plain, part="de"), replace(plain, choices=("a", "c")), replace(plain, references=("a", "c"))]
    assert len({content_sha256([one]) for one in [plain, *others]}) == 4
    assert content_sha256([plain], []) != content_sha256([], [plain])


def test_unknown_task() -> None:
    with pytest.raises(TaskError, match=r"'chess'; there are: .*ha_json.*jsonl"):
        load_task(SimpleNamespace(name="chess"))
