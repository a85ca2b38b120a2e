"""What is learned: a task gives examples in three parts and scores what a model says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal


class TaskError(ValueError):
    """A task that is unknown, or data that cannot be used as it is."""


@dataclass(frozen=True)
class Example:
    """One prompt with its gold answer.

    messages: the chat turns up to the user's last one; () where the record has no chat form: then `text` is
    the prompt. completion: the answer, for classification the label.
    """

    messages: tuple[dict[str, str], ...]
    completion: str
    group: str = ""  # the template or "file:line" it came from
    text: str = ""
    text_pair: str | None = None


@dataclass(frozen=True)
class TaskData:
    name: str
    kind: Literal["generate", "classify"]
    train: list[Example]
    val: list[Example]
    test: list[Example]
    labels: tuple[str, ...]  # of a classification, sorted
    sha256: str  # of the contents of all three parts
    sources: dict[str, str]  # package or file -> version or sha256


def load_task(task_cfg: Any, seed: int = 0) -> TaskData:
    """The data of `task_cfg.name`; `seed` draws the sentences and the split, and nothing else does."""
    if task_cfg.name == "ha_json":
        from experiments.tasks import ha_json

        return ha_json.load(task_cfg.n_train, task_cfg.n_val, task_cfg.n_test, seed)
    if task_cfg.name == "jsonl":
        from experiments.tasks import jsonl

        return jsonl.load(task_cfg, seed)
    raise TaskError(f"unknown task {task_cfg.name!r}: choose ha_json or jsonl")


def score(data: TaskData, predictions: list[str], examples: list[Example]) -> dict[str, float]:
    """Shares in [0, 1] over `examples`, whose predictions stand in the same order."""
    if len(predictions) != len(examples) or not examples:
        raise TaskError(f"{len(predictions)} predictions for {len(examples)} examples: give one for each, of some")
    gold = [example.completion for example in examples]
    if data.kind == "classify":
        return _classification(gold, predictions)
    if data.name == "ha_json":
        from experiments.tasks import ha_json

        return ha_json.score(gold, predictions)
    return {"exact_match": _mean(said.strip() == right.strip() for said, right in zip(predictions, gold))}


def content_sha256(*parts: list[Example]) -> str:
    canonical = json.dumps([[asdict(example) for example in part] for part in parts], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _classification(gold: list[str], said: list[str]) -> dict[str, float]:
    """F1 is averaged over every label that stands in the gold answers or was predicted."""
    f1 = []
    for label in sorted({*gold, *said}):
        both = sum(a == b == label for a, b in zip(gold, said))
        f1.append(2 * both / (gold.count(label) + said.count(label)))
    return {"accuracy": _mean(a == b for a, b in zip(gold, said)), "macro_f1": sum(f1) / len(f1)}


def _mean(values: Iterable[bool]) -> float:
    ones = list(values)
    return sum(ones) / len(ones)
