"""The task domain: what is taught and what is asked, in which templates, and how an answer is read."""

from __future__ import annotations

import pickle
from itertools import combinations
from pathlib import Path

import pytest

pytest.importorskip("simple_icd_10_cm", reason="needs the extra `experiments`")

from experiments.config.tasks import DomainConfig
from experiments.tasks import domain, load_task
from experiments.tasks.base import Example, TaskData, TaskError
from tests.support.runs import config, own_cache_and_torch_settings  # noqa: F401

DEFAULT = DomainConfig(name="domain")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELTATUNE_CACHE", str(tmp_path_factory.mktemp("domain")))
        return load_task(DEFAULT, seed=0)


def facts(examples: list[Example]) -> set[str]:
    return {example.completion for example in examples}


def test_sizes_parts_and_sources(data: TaskData) -> None:
    assert [len(part) for part in (data.train, data.val, data.test, data.apart)] == [800, 100, 200, 40]
    assert {example.part for example in data.apart} == {"unseen"}
    assert {example.part for example in data.train + data.val + data.test} == {"recall"}
    assert set(data.sources) == {"simple-icd-10-cm"}
    assert (data.kind, data.metric) == ("generate", "accuracy")


def test_every_fact_is_trained_and_asked_for_in_new_templates_alone(data: TaskData) -> None:
    for one, other in combinations((data.train, data.val, data.test), 2):
        assert not {example.group for example in one} & {example.group for example in other}
    assert len(facts(data.train)) == DEFAULT.n_entities
    assert facts(data.test) == facts(data.train) >= facts(data.val)


def test_an_unseen_fact_is_nowhere_in_training(data: TaskData) -> None:
    assert data.apart and not facts(data.apart) & facts(data.train + data.val)
    assert {e.group for e in data.apart} == {e.group for e in data.test}


def test_terms_are_the_packages(data: TaskData) -> None:
    known = domain.terms()
    assert len(known) > 500
    assert ("Rosacea", "L71", 12) in known
    assert len({term for term, _, _ in known}) == len({code for _, code, _ in known}) == len(known)
    assert all(domain.CODE.fullmatch(code) for _, code, _ in known)
    said = {(term, f"Chapter {chapter}, code {code}") for term, code, chapter in known}
    for example in data.test:
        before, after = example.group.split("{term}")
        content = example.messages[0]["content"]
        assert (content[len(before) : len(content) - len(after)], example.completion) in said


def test_templates_differ_and_hold_one_term() -> None:
    assert len(domain.TEMPLATES) == len(set(domain.TEMPLATES)) == 24
    assert all(template.count("{term}") == 1 for template in domain.TEMPLATES)


def test_the_seed_alone_draws(data: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTATUNE_CACHE", str(tmp_path))
    again, other = load_task(DEFAULT, seed=0), load_task(DEFAULT, seed=1)
    assert again == data
    assert facts(other.train) != facts(data.train)


def test_fewer_entities_and_no_unseen(tmp_path: Path) -> None:
    data = load_task(DomainConfig(name="domain", n_train=20, n_val=5, n_test=10, n_entities=4, unseen=0.0), seed=0)
    assert len(facts(data.train)) == 4
    assert {example.part for example in data.test} == {"recall"} and data.apart == []


def test_the_test_does_not_depend_on_how_many_are_trained_on() -> None:
    few, many = (load_task(DomainConfig("domain", n_train=n, n_val=9, n_test=20), seed=2) for n in (60, 90))
    assert (few.val, few.test, few.apart) == (many.val, many.test, many.apart) and few.test_sha256 == many.test_sha256


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_entities": 100_000}, r"task.n_entities=100000: choose 1 to \d+; there are \d+ terms"),
        ({"n_entities": 0}, r"task.n_entities=0: choose 1 to"),
        ({"n_train": 49}, r"task.n_train=49: fewer than task.n_entities=50"),
        ({"n_train": 801}, r"task.n_train: 801 examples are asked of templates that give 800: lower it"),
        ({"unseen": 1.5}, r"task.unseen=1.5: a share"),
    ],
)
def test_sizes_that_cannot_be_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        load_task(DomainConfig(**{"name": "domain", **values}), seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prediction", "accuracy", "code", "chapter"),
    [
        ("Chapter 12, code L71", 1, 1, 1),
        ("It is in chapter 12 under the code L71.", 1, 1, 1),
        ("Chapter 1, code L71", 0, 1, 0),
        ("Chapter 12, code L72", 0, 0, 1),
        ("Chapter 12, code L712", 0, 0, 1),
        ("Chapter 120, code L71", 0, 1, 0),
        ("L72 or L71, chapter 12", 0, 0, 1),
        ("12", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_scores(data: TaskData, prediction: str, accuracy: int, code: int, chapter: int) -> None:
    scorer = pickle.loads(pickle.dumps(data)).scorer
    scores = scorer([Example(completion="Chapter 12, code L71")], [prediction])
    assert scores.each == [accuracy]
    assert scores.means == {"accuracy": accuracy, "code_match": code, "chapter_match": chapter}


def test_the_gold_scores_one_in_both_parts(data: TaskData) -> None:
    for examples, part in ((data.test, "recall"), (data.apart, "unseen")):
        gold = [example.completion for example in examples]
        assert data.score(examples, gold).means["accuracy"] == data.ceiling == 1
        assert {name: means["accuracy"] for name, means in data.by_part(examples, gold).items()} == {part: 1}


def test_the_configuration() -> None:
    made = config("model=tiny", "task=domain", "task.n_entities=9", "optim=quick")
    assert made.task == DomainConfig(name="domain", n_entities=9)
