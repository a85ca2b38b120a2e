"""What a run does about faults of its data: it stops, or goes on without the examples that it cannot use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from experiments.config.schema import Check, Config
from experiments.data import gate
from experiments.data.findings import Finding, Findings
from experiments.data.template import ModelFault
from experiments.objectives.base import Objective
from experiments.tasks.base import Example, TaskData, content_sha256
from experiments.tasks.json_lines import LineError


def check_splits(data: TaskData) -> None:
    """Raise ValueError where a split has no examples."""
    splits = {"train": data.train, "val": data.val, "test": data.test}
    if empty := [split for split, examples in splits.items() if not examples]:
        raise ValueError(f"task={data.name} has no examples in {', '.join(empty)}; give it some, or raise task.n_*")


def usable(config: Config, data: TaskData, objective: Objective) -> tuple[TaskData, int]:
    """The data, with data.check=warn without the examples that cannot be encoded, and how many these are.

    The findings have said which they are. Without that, the first of them stops the run.
    """
    if config.data.check is not Check.warn:
        return data, 0
    parts = {part: getattr(data, part) for part in ("train", "val", "test", "apart")}
    kept = {part: [each for each in examples if encodes(objective, each)] for part, examples in parts.items()}
    n_left_out = sum(len(parts[part]) - len(kept[part]) for part in parts)
    if not n_left_out:
        return data, 0
    print(f"data: {n_left_out} examples are left out, which cannot be encoded; data.n_left_out counts them")
    fewer = replace(data, **kept)
    check_splits(fewer)
    digest = content_sha256(fewer.train, fewer.val, [*fewer.test, *fewer.apart])
    return replace(fewer, sha256=digest), n_left_out


def encodes(objective: Objective, example: Example) -> bool:
    try:
        objective.encode(example)
    except ModelFault:
        raise
    except ValueError:
        return False
    return True


def checked(config: Config, data: TaskData, objective: Objective, skipped: Sequence[LineError] = ()) -> Findings | None:
    """What is wrong with the data; raises findings.DataError where that makes the numbers wrong, unless told not to.

    skipped: lines that could not be used and are no part of the data.
    """
    if config.data.check is Check.off:
        return None
    findings = gate.check(data, objective, config.data.near_duplicates, config.eval.max_new_tokens)
    findings.found[:0] = [Finding(error.kind, "error", error.place, error.reason) for error in skipped]
    findings.enforce(config.data.check)
    return findings
