"""Sentences of homes: what is drawn in each language, how it is split, and the three tasks made of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

pytest.importorskip("hassil", reason="needs the extra `experiments`")

from experiments.config.tasks import MultilingualConfig
from experiments.tasks import load_task
from experiments.tasks.base import Example, TaskError
from experiments.tasks.home import draw, ha_json, multilingual, sentences
from experiments.tasks.home.draw import Draw, Parts, chosen, generate
from experiments.tasks.home.sentences import Home, Said, expansions, languages

ALL = Draw("en", 900, 90, 180, seed=0)  # one sentence of every template that comes through, and more


@pytest.fixture(scope="module")
def home() -> Home:
    return Home.of("en")


@pytest.fixture(scope="module")
def parts(home: Home) -> Parts:
    return generate(home, ALL)


# ---------------------------------------------------------------- English


def test_sizes_and_form(parts: Parts) -> None:
    assert [len(part) for part in parts] == [900, 90, 180]
    for sentence in (one for part in parts for one in part):
        example = ha_json.example(sentence)
        assert example.messages == ({"role": "user", "content": sentence.text},)
        assert example.group == sentence.template
        answer = json.loads(example.completion)
        assert answer == {"intent": sentence.intent, "slots": sentence.slots}
        assert example.completion == json.dumps(answer, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def test_no_template_and_no_sentence_stands_in_two_parts(parts: Parts) -> None:
    for one, other in combinations(parts, 2):
        assert {said.template for said in one}.isdisjoint(said.template for said in other)
    sentences = [said.text for part in parts for said in part]
    assert len(sentences) == len(set(sentences))


def test_nearly_every_line_of_the_package_is_reached(home: Home, parts: Parts) -> None:
    lines = {template.id for template in home.templates()}
    train = {said.template for said in parts[0]}
    reached = {said.template for part in parts for said in part}
    assert reached <= lines
    # Train takes each of its templates once before any of them twice. What is missing are the lines without a
    # sentence that comes through, and some of the templates of the smaller parts.
    assert len(train) / len(lines) > 0.6
    assert len(reached) / len(lines) > 0.9


def test_every_intent_is_learned_and_small_ones_are_in_train_alone(home: Home, parts: Parts) -> None:
    lines = Counter(template.intent for template in home.templates())
    train, val, test = ({said.intent for said in part} for part in parts)
    assert train == set(lines)
    assert all(lines[intent] >= 3 for intent in val | test)
    assert test == {intent for intent, count in lines.items() if count >= 3}


def test_every_answer_is_what_recognize_finds(home: Home, parts: Parts) -> None:
    for said in parts[1] + parts[2]:
        assert home.understand(said.text) == (said.intent, said.slots)


def test_sentences_do_not_tell_where_the_speaker_is(home: Home, parts: Parts) -> None:
    assert home.understand("turn on the lights") == ("HassTurnOn", {"domain": "light"})
    assert home.understand("turn on the lights in the kitchen") == (
        "HassTurnOn",
        {"domain": "light", "area": "kitchen"},
    )
    assert not any(sentences.NO_AREA in said.slots.values() for part in parts for said in part)


def test_numbers_are_said_in_digits_and_in_words(home: Home) -> None:
    assert home.understand("set brightness to twenty five percent") == (
        "HassLightSet",
        {"domain": "light", "brightness": 25},
    )
    assert home.understand("turn down the volume by 20 percent") == (
        "HassSetVolumeRelative",
        {"volume_step": -20},
    )


def test_expansions_depend_on_the_seed_alone(home: Home) -> None:
    some = home.templates()[::60]

    def draw(home: Home, seed: int) -> list[Said]:
        return [said for one in some for said in islice(expansions(home, one, seed), 3)]

    first = draw(home, 0)
    assert first == draw(Home.of("en"), 0)
    assert first != draw(home, 1)


def test_more_sentences_than_there_are_is_an_error(home: Home) -> None:
    with pytest.raises(TaskError, match=r"task.n_train=50: the templates give only 2 distinct"):
        generate(home, Draw("en", 50, 0, 0, 0, only=("HassNevermind",)))


def test_a_list_that_the_home_lacks_is_named(home: Home) -> None:
    broadcast = next(one for one in home.templates() if one.intent == "HassBroadcast")
    bare = replace(home, phrases={})
    with pytest.raises(TaskError, match=r"\{message\} has no values.*homes/en.yaml"):
        next(expansions(bare, broadcast, 0))


def test_templates_can_be_limited_by_intent_and_number(home: Home) -> None:
    templates = home.templates()
    few = chosen(templates, replace(ALL, only=("HassTurnOn", "HassNevermind"), most=5))
    assert Counter(template.intent for template in few) == {"HassNevermind": 2, "HassTurnOn": 5}
    assert few == [template for template in templates if template in few]
    assert few != chosen(templates, replace(ALL, only=("HassTurnOn", "HassNevermind"), most=5, seed=1))
    assert chosen(templates, ALL) == templates


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


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few templates, and a cache of its own."""
    intents = ("HassMediaPrevious", "HassTurnOn")
    monkeypatch.setattr(draw, "chosen", lambda all_, draw: chosen(all_, replace(draw, only=intents, most=6)))
    monkeypatch.setenv("DELTATUNE_CACHE", str(tmp_path))


@pytest.mark.usefixtures("few")
def test_loading_keeps_the_data_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SimpleNamespace(name="ha_json", n_train=6, n_val=1, n_test=2)
    first = load_task(config, seed=0)
    monkeypatch.setattr(draw, "generate", lambda *_: pytest.fail("drawn a second time"))
    again = load_task(config, seed=0)
    assert (again.train, again.val, again.test, again.sha256) == (first.train, first.val, first.test, first.sha256)
    assert (first.kind, first.labels) == ("generate", ())
    assert set(first.sources) == {"home-assistant-intents", "hassil", "unicode-rbnf"}
    scores = first.score(first.test[:1], ['{"intent":"A","slots":1}'])
    assert scores.means == {"exact_match": 0, "valid_json": 1, "valid_schema": 0}


@pytest.mark.usefixtures("few")
def test_intents_as_a_classification(home: Home) -> None:
    data = load_task(SimpleNamespace(name="ha_intent", n_train=6, n_val=1, n_test=2), seed=0)
    same = load_task(SimpleNamespace(name="ha_json", n_train=6, n_val=1, n_test=2), seed=0)
    assert (data.kind, data.metric) == ("classify", "accuracy")
    assert data.labels == tuple(sorted(home.intents.intents))
    for example, other in zip(data.train + data.test, same.train + same.test, strict=True):
        assert example == Example((), json.loads(other.completion)["intent"], other.group, said(other))


def said(example: Example) -> str:
    return example.messages[0]["content"]


# ---------------------------------------------------------------- the languages


@pytest.mark.parametrize("language", languages())
def test_the_templates_of_a_language_parse_and_its_sentences_come_back(language: str) -> None:
    """One sentence each of every 30th template: all kinds of lists are met in the whole of them below."""
    home = Home.of(language)
    some = home.templates()[::30]
    found = [next(expansions(home, template, 0), None) for template in some]
    alive = [said for said in found if said is not None]
    assert len(alive) / len(some) > 0.8
    for sentence in alive:
        assert home.understand(sentence.text) == (sentence.intent, sentence.slots)
        assert "\u00ad" not in sentence.text  # numbers are spelled with soft hyphens in some languages


@pytest.mark.parametrize("language", languages())
def test_a_home_has_what_its_templates_ask_for(language: str) -> None:
    """In every language the same domains and lists as in English, each thing named once."""
    own, english = (yaml.safe_load(sentences.file_of(one).read_text(encoding="utf-8")) for one in (language, "en"))
    assert own["names"].keys() == english["names"].keys()
    assert own["phrases"].keys() == english["phrases"].keys()
    values = [*own["areas"], *own["floors"], *(name for names in own["names"].values() for name in names)]
    assert all(isinstance(value, str) for value in values)
    assert [value for value, count in Counter(map(str.lower, values)).items() if count > 1] == []


def test_a_language_without_a_home() -> None:
    with pytest.raises(TaskError, match=r"no home for the language 'tlh'; there are: de, en, .*sv"):
        Home.of("tlh")


@pytest.mark.usefixtures("few")
def test_several_languages_some_of_them_in_the_test_alone() -> None:
    config = MultilingualConfig(
        "multilingual", n_train=9, n_val=2, n_test=5, train_languages=["en", "it"], transfer_languages=["pt-BR"]
    )
    data = load_task(config, seed=0)
    assert Counter(example.part for example in data.train) == {"en": 5, "it": 4}
    assert Counter(example.part for example in data.val) == {"en": 1, "it": 1}
    assert Counter(example.part for example in data.test) == {"en": 2, "it": 2, "pt-BR": 1}
    assert {example.completion for example in data.test} <= set(data.labels)
    for one, other in combinations((data.train, data.val, data.test), 2):
        assert {example.group for example in one}.isdisjoint(example.group for example in other)
    assert data.by_part(data.test, [example.completion for example in data.test[:4]] + ["no"]) == {
        "en": {"accuracy": 1, "macro_f1": 1, "mcc": pytest.approx(1, abs=1)},
        "it": {"accuracy": 1, "macro_f1": 1, "mcc": pytest.approx(1, abs=1)},
        "pt-BR": {"accuracy": 0, "macro_f1": 0, "mcc": pytest.approx(0)},
    }


def test_the_languages_of_a_task_are_six_or_more_that_are_learned_and_two_that_are_not() -> None:
    config = MultilingualConfig()
    assert len(config.train_languages) >= 6
    assert len(config.transfer_languages) >= 2
    assert {*config.train_languages, *config.transfer_languages} <= set(languages())


@pytest.mark.parametrize(
    ("learned", "held"), [([], ["de"]), (["en", "de"], ["de"]), (["en", "en"], [])], ids=["none", "both", "twice"]
)
def test_languages_that_do_not_fit_together(learned: list[str], held: list[str]) -> None:
    config = MultilingualConfig("multilingual", train_languages=learned, transfer_languages=held)
    with pytest.raises(TaskError, match=r"no language stands twice"):
        load_task(config)


def test_equal_shares() -> None:
    assert multilingual.shares(8, ["a", "b", "c"]) == {"a": 3, "b": 3, "c": 2}
    assert multilingual.shares(2, ["a", "b", "c"]) == {"a": 1, "b": 1, "c": 0}
