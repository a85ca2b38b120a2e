"""What all tasks share: scores, quality by part, the hash of the contents, the names."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.config.compose import register
from experiments.config.tasks import TASKS
from experiments.tasks import load_task
from experiments.tasks.base import Example, Scorer, Scores, TaskData, TaskError, content_sha256
from experiments.tasks.metrics import exact_match


def made(scorer: Scorer, *test: Example) -> TaskData:
    return TaskData("made up", "generate", [], [], list(test), (), "", {}, "a metric", scorer)


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


def test_every_task_has_a_module_and_a_configuration() -> None:
    from hydra.core.config_store import ConfigStore

    register()
    configurations = {Path(name).stem for name in ConfigStore.instance().repo["task"]}
    assert configurations == set(TASKS)
    assert all(task.config(name=name).name == name for name, task in TASKS.items())
    assert all(callable(import_module(str(task.load)).load) for task in TASKS.values())
