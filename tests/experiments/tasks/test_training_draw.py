"""Draws of the training part: what they change, and that validation and test stay what they were."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs the extra `experiments`")

from experiments.config.tasks import (
    TASKS,
    DomainConfig,
    HaIntentConfig,
    JsonlConfig,
    MultilingualConfig,
    SafetyConfig,
    Task,
    TaskConfig,
)
from experiments.data.gate import check
from experiments.tasks import load_task
from experiments.tasks.base import Example, TaskData, TaskError, TooFew, content_sha256
from experiments.tasks.metrics import exact_match
from experiments.tasks.training_draw import chosen, shares
from tests.support.runs import config, own_cache_and_torch_settings  # noqa: F401

SMALL = ("task.n_train=60", "task.n_val=8", "task.n_test=12")


def records(tmp_path: Path, n: int = 100) -> str:
    file = tmp_path / "records.jsonl"
    lines = [{"text": f"text {i}", "label": "ab"[i % 2], "lang": "xyz"[i % 3], "who": i // 4} for i in range(n)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def task(tmp_path: Path, **more: object) -> JsonlConfig:
    sizes = {"n_train": 30, "n_val": 10, "n_test": 20}
    return JsonlConfig("jsonl", train=records(tmp_path), **sizes | more)  # type: ignore[arg-type]


def held(data: TaskData) -> tuple[list[Example], list[Example]]:
    return data.val, data.test


def test_draws_differ_in_what_is_trained_on_and_in_nothing_else(tmp_path: Path) -> None:
    undrawn = load_task(task(tmp_path), seed=3)
    draws = [load_task(task(tmp_path), seed=3, draw=draw) for draw in (0, 1, 2)]
    assert undrawn.pool is None and all(data.pool == 70 for data in draws)
    assert all(held(data) == held(undrawn) for data in draws)
    assert len({data.sha256 for data in [undrawn, *draws]}) == 4
    assert len({data.test_sha256 for data in [undrawn, *draws]}) == 1
    assert all(len(data.train) == 30 == len({e.text for e in data.train}) for data in draws)
    assert all(data.sha256 == content_sha256(data.train, data.val, data.test) for data in draws)
    assert load_task(task(tmp_path), seed=3, draw=1) == draws[1]
    assert load_task(task(tmp_path), seed=4, draw=1).test_sha256 != undrawn.test_sha256


def test_nothing_of_the_pool_is_held(tmp_path: Path) -> None:
    data = load_task(task(tmp_path, group="who"), seed=0, draw=7)
    assert not {e.group for e in data.train} & {e.group for e in [*data.val, *data.test]}
    assert check(data, near_duplicates=False).of("error") == []


@pytest.mark.parametrize("n_train", [None, 70])
def test_a_pool_that_leaves_no_choice_says_so(tmp_path: Path, n_train: int | None) -> None:
    undrawn = load_task(task(tmp_path, n_train=n_train))
    drawn = load_task(task(tmp_path, n_train=n_train), draw=5)
    assert (drawn.sha256, drawn.pool) == (undrawn.sha256, len(undrawn.train)) == (undrawn.sha256, 70)


def test_what_cannot_be_loaded_is_an_error_with_a_draw_too(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"task\.n_train=71: there are only 70 records"):
        load_task(task(tmp_path, n_train=71), draw=0)


def test_the_parts_keep_their_shares(tmp_path: Path) -> None:
    data = load_task(task(tmp_path, part="lang", n_val=4, n_test=6), seed=0, draw=1)
    whole = load_task(task(tmp_path, part="lang", n_val=4, n_test=6, n_train=None), seed=0)
    exact = {part: n * 30 / len(whole.train) for part, n in Counter(e.part for e in whole.train).items()}
    assert all(abs(Counter(e.part for e in data.train)[part] - share) < 1 for part, share in exact.items())
    assert shares(["a"] * 6 + ["b"] * 3 + ["c"], 5) == {"a": 3, "b": 2, "c": 0}


def test_every_answer_that_is_asked_for_is_shown() -> None:
    pool = [Example((), "rare" if i == 17 else "often", text=str(i)) for i in range(400)]
    for draw in range(20):
        found = chosen(pool, 4, {"rare", "nowhere"}, random.Random(draw))
        assert len(found) == 4 and any(example.completion == "rare" for example in found)
    rare = [Example((), str(i), text=str(i)) for i in range(9)]
    assert len({e.completion for e in chosen(rare, 4, {str(i) for i in range(9)}, random.Random(0))}) == 4


@dataclass
class SlicedConfig(TaskConfig):
    n_train: int = 20


@pytest.fixture
def sliced(monkeypatch: pytest.MonkeyPatch) -> SlicedConfig:
    """A task whose split moves with its sizes, as a plugin's may."""

    def load(config: SlicedConfig, seed: int) -> TaskData:
        order = random.Random(seed).sample(range(60), 60)
        examples = [Example((), str(i), text=f"say {i}", group=str(i % 30)) for i in order]
        n = config.n_train
        if n > 50:
            raise TooFew("few", "train", 35)
        train, val, test = examples[:n], examples[n : n + 2], examples[n + 2 : n + 5]
        return TaskData("sliced", "generate", train, val, test, (), "", {}, "exact_match", exact_match)

    monkeypatch.setitem(TASKS, "sliced", Task(SlicedConfig, load))
    return SlicedConfig("sliced")


def test_a_split_that_moves_with_the_sizes_leaks_nothing(sliced: SlicedConfig) -> None:
    undrawn = load_task(sliced, seed=1)
    data = load_task(sliced, seed=1, draw=0)
    assert held(data) == held(undrawn) and data.pool is not None and 20 < data.pool < 40
    assert not {e.group for e in data.train} & {e.group for e in [*data.val, *data.test]}


def test_the_pool_is_what_the_task_can_give(sliced: SlicedConfig) -> None:
    pool = load_task(SlicedConfig("sliced", n_train=30), seed=1, draw=0).pool
    assert pool is not None and pool <= 35


def test_as_many_as_the_templates_give() -> None:
    some, all_of_it = SafetyConfig("safety", n_train=500), SafetyConfig("safety", n_train=880)
    assert load_task(some, draw=0).pool == 880
    assert load_task(all_of_it, draw=0).sha256 == load_task(all_of_it).sha256
    kinds = Counter(example.part.split(":")[0] for example in load_task(some, draw=0).train)
    assert abs(kinds["harmful"] - kinds["benign"]) <= 8  # each of 16 parts is rounded


@pytest.mark.parametrize("draw", range(3))
def test_every_fact_that_is_asked_for_stays(draw: int) -> None:
    data = load_task(DomainConfig("domain", n_train=120, n_val=40, n_test=60, n_entities=40), draw=draw)
    learned = {example.completion for example in data.train}
    assert {e.completion for e in [*data.val, *data.test] if e.part == "recall"} <= learned


@pytest.mark.parametrize("name", ["general", "instruct", "safety", "sql", "style"])
def test_the_generated_tasks_pass_the_gate(name: str) -> None:
    made = config("model=tiny", f"task={name}", *SMALL, "optim=quick").task
    undrawn, data = load_task(made, seed=1), load_task(made, seed=1, draw=0)
    assert held(data) == held(undrawn) and data.sha256 != undrawn.sha256 and len(data.train) == 60
    assert data.pool is not None and 60 < data.pool <= 120
    assert check(data, near_duplicates=False).of("error") == []
    if data.ceiling is not None:  # what the pages and the results call the most that there is, the gold answers reach
        gold = data.score(data.test, [example.completion for example in data.test])
        assert gold.means[data.metric] == data.ceiling


@pytest.mark.slow
@pytest.mark.parametrize("made", [HaIntentConfig("ha_intent"), MultilingualConfig("multilingual")])
def test_the_sentences_of_homes_pass_the_gate(made: HaIntentConfig | MultilingualConfig) -> None:
    undrawn, data = load_task(made, seed=1), load_task(made, seed=1, draw=0)
    assert held(data) == held(undrawn) and data.sha256 != undrawn.sha256
    assert data.pool is not None and data.pool > made.n_train == len(data.train)
    assert check(data, near_duplicates=False).of("error") == []
