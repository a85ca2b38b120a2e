"""The task instruct: wordings and their slots, the split, and the check of each family."""

from __future__ import annotations

import pickle
import random
from itertools import combinations
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs the extra `experiments`")

from experiments.config.tasks import InstructConfig
from experiments.tasks import load_task
from experiments.tasks.base import Example, TaskData, TaskError
from experiments.tasks.instruct import task
from experiments.tasks.instruct.checks import words_of
from experiments.tasks.instruct.families import FAMILIES
from tests.support.runs import config, own_cache_and_torch_settings  # noqa: F401

WORDINGS = [(name, wording) for name, family in FAMILIES.items() for wording in family.wordings]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELTATUNE_CACHE", str(tmp_path_factory.mktemp("instruct")))
        return load_task(InstructConfig(name="instruct"), seed=0)


def test_sizes_parts_and_sources(data: TaskData) -> None:
    assert [len(part) for part in (data.train, data.val, data.test)] == [2000, 100, 200]
    assert (data.kind, data.metric) == ("generate", "constraint_met")
    assert data.sources == {}
    for part in (data.train, data.val, data.test):
        assert {example.part for example in part} == set(FAMILIES)


def test_no_wording_and_no_prompt_stands_in_two_parts(data: TaskData) -> None:
    for one, other in combinations((data.train, data.val, data.test), 2):
        assert not {example.group for example in one} & {example.group for example in other}
        assert not {str(example.messages) for example in one} & {str(example.messages) for example in other}


def test_turns_alternate_and_end_with_the_users(data: TaskData) -> None:
    for example in data.train:
        assert [turn["role"] for turn in example.messages] in (["user"], ["user", "assistant", "user"])
    assert any(len(example.messages) == 3 for example in data.train)


def test_wordings_differ() -> None:
    assert len(FAMILIES) == 19 and len(WORDINGS) == len({wording for _, wording in WORDINGS}) == 95


@pytest.mark.parametrize(("name", "wording"), WORDINGS)
def test_slots_are_read_from_the_prompt_and_the_gold_meets_its_check(name: str, wording: str) -> None:
    family, rng = FAMILIES[name], random.Random(0)
    for _ in range(50):
        slots = family.draw(rng)
        example = Example(task.turns(wording, slots), family.answer(slots, rng), group=wording, part=name)
        assert task.slots_of(example) == slots
        assert family.met(slots, example.completion)


def test_a_prompt_of_another_template_is_named(data: TaskData) -> None:
    example = Example(({"role": "user", "content": "Sing."},), group="Sort these: {words}", part="sort")
    with pytest.raises(TaskError, match=r"'Sing.': not a prompt of the template 'Sort these: \{words\}'"):
        data.score([example], [""])


@pytest.mark.parametrize("name", FAMILIES)
def test_silence_chatter_and_an_echo_do_not_pass(data: TaskData, name: str) -> None:
    examples = [example for example in data.train if example.part == name][:20]
    for said in (
        lambda e: "",
        lambda e: "Sure! Here is what you asked for:",
        lambda e: e.messages[-1]["content"],
        lambda e: e.messages[0]["content"],
        lambda e: e.completion + " I hope that this helps you. 7",
    ):
        assert data.score(examples, [said(example) for example in examples]).means["constraint_met"] == 0


@pytest.mark.parametrize(
    ("name", "slots", "good", "bad"),
    [
        ("capitals", {"sentence": "The cup is old."}, ["THE CUP IS OLD.", '"THE CUP IS OLD"'], ["The CUP IS OLD."]),
        ("reverse", {"words": "cup, bell, road"}, ["road, bell, cup", "Road bell cup."], ["cup, bell, road"]),
        ("sort", {"words": "cup, bell, road"}, ["bell, cup, road", "- bell\n- cup\n- road"], ["bell, road, cup"]),
        ("quote", {"sentence": "The cup is old."}, ['"The cup is old."', "“The cup is old.”"], ["The cup is old."]),
        ("last word", {"sentence": "The cup is old."}, ["old", "Old."], ["The cup is old.", "is old", "cup"]),
        ("find number", {"sentence": "We saw 12 cups."}, ["12", "12 cups.", "It is 12."], ["2", "twelve", "1, 2", ""]),
        ("find number", {"sentence": "We saw 12 cups."}, ["12"], ["I was told that we saw 12 cups."]),
        ("copy", {"sentence": "The cup is old."}, ["The cup is old.", '"The cup is old."'], ["The cup was."]),
        ("include", {"word": "cup"}, ["I drank from a Cup today.", "A blue cup is here!"], ["A cup."]),
        ("include", {"word": "cup"}, ["My cup is very old."], ["A blue cup is here. It is mine.", "a cup is here"]),
        ("two words", {"first": "cup", "second": "hat"}, ["My hat is in a cup."], ["My cup is very old.", "Cup, hat."]),
        ("question", {"word": "cup"}, ["Where is my blue cup?"], ["My cup is very old.", "Where is my hat?"]),
        ("complete", {"adjective": "old", "word": "cup"}, ["The old cup is here."], ["The old cup."]),
        ("letter", {"letter": "c"}, ["cup", "Cat."], ["c", "bell", "a cup", "C is for cup"]),
        ("join", {"words": "cup, bell"}, ["cup-bell", "Cup-bell."], ["cup - bell", "cupbell", "cup, bell"]),
        ("drop", {"words": "cup, bell, road", "word": "bell"}, ["cup, road", "- cup\n- road"], ["cup", "road, cup"]),
        ("json", {"words": "cup, bell"}, ['["cup","bell"]', '[\n "cup",\n "bell"]'], ["['cup', 'bell']"]),
        ("json", {"words": "cup, bell"}, ['["cup", "bell"]'], ["[" * 100_000, '{"cup": "bell"}', '["bell","cup"]']),
        ("bullets", {"words": "cup, bell"}, ["- cup\n- bell\n"], ["cup\nbell", "- cup, bell", "* cup\n* bell"]),
        ("repeat", {"word": "cup", "n": "3"}, ["cup, cup, cup", "Cup, cup, cup."], ["cup, cup", "cup cup cup"]),
        ("pick", {"words": "cup, bell, road, key", "place": "third"}, ["road", "Road."], ["bell", "the road"]),
        ("replace", {"old": "cup", "new": "hat", "sentence": "The cup is old."}, ["The hat is old."], ["The cup is."]),
    ],
)  # fmt: skip
def test_each_check(name: str, slots: dict[str, str], good: list[str], bad: list[str]) -> None:
    assert [FAMILIES[name].met(slots, said) for said in good] == [True] * len(good)
    assert [FAMILIES[name].met(slots, said) for said in bad] == [False] * len(bad)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_one_answer_keeps_the_constraint_of_many(name: str) -> None:
    family, rng = FAMILIES[name], random.Random(0)
    drawn = [family.draw(rng) for _ in range(300)]
    golds = [family.answer(slots, rng) for slots in drawn]
    assert len(set(golds)) > 50
    for gold in golds[:50]:
        assert sum(family.met(slots, gold) for slots in drawn) <= 0.08 * len(drawn)


def test_words() -> None:
    assert words_of("It's twenty-one, or 3 _ (no)!") == ["It's", "twenty-one", "or", "no"]


def test_the_gold_scores_one(data: TaskData) -> None:
    gold = [example.completion for example in data.test]
    scores = pickle.loads(pickle.dumps(data)).score(data.test, gold)
    assert scores.means == {"constraint_met": 1.0, "exact_match": 1.0}
    assert set(data.by_part(data.test, gold)) == set(FAMILIES)


def test_the_seed_alone_draws(data: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTATUNE_CACHE", str(tmp_path))
    assert load_task(InstructConfig(name="instruct"), seed=0) == data
    assert load_task(InstructConfig(name="instruct"), seed=1).test != data.test


def test_the_configuration() -> None:
    made = config("model=tiny", "task=instruct", "task.n_test=8", "optim=quick")
    assert made.task == InstructConfig(name="instruct", n_test=8)
