"""Time and memory in a comparison: of runs that had the machine to themselves, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from experiments.compare.secondary import COSTS
from experiments.compare.task_study import TaskStudy
from experiments.store.result import Complete

TIMED = ("step_s", "train_s", "total_s", "training_peak_bytes", "increase_bytes")


def only_alone(study: TaskStudy, outcome: dict[str, Any]) -> dict[str, Any]:
    """The task's outcome where times and memory are of runs that were alone, with a note on those that were not.

    A method whose tested runs shared the machine has those of its short run, and no others.
    """
    shared = [item["method"] for item in outcome["methods"] if not study.alone(item["method"])]
    for item in outcome["methods"]:
        item["alone"] = item["method"] not in shared or item["method"] in study.timed
        if item["method"] in shared:
            item |= dict.fromkeys(TIMED) | {"cost": {}}
            if (row := study.timed.get(item["method"])) is not None:
                item |= {"step_s": row.step_s, "training_peak_bytes": row.memory.training_peak_bytes}
                item |= {"increase_bytes": row.memory.training_increase_bytes}
    for name in COSTS:
        pairs = outcome["other_pairs"].get(name, [])
        outcome["other_pairs"][name] = [pair for pair in pairs if not {pair["a"], pair["b"]} & {*shared}]
    if timed := [method for method in shared if method in study.timed]:
        alone = f"{study.timed[timed[0]].steps} steps alone, as their tested runs shared the machine"
        outcome["notes"].append(f"time and memory of {', '.join(timed)} are those of {alone}")
    trained = [method for method in shared if not study.tested[method][0].untrained]
    if left := [method for method in trained if method not in study.timed]:
        outcome["notes"].append(
            f"no times and no memory of {', '.join(left)}: not every run is known to have had the machine to itself "
            "(slots=1)"
        )
    return outcome


def as_alone(study: TaskStudy) -> dict[str, Sequence[Complete]] | None:
    """The tested runs with the seconds along their training as they would be alone; None where nothing is known of one.

    Where a method's runs shared the machine, a step has the seconds of the median step of its short run.
    """
    runs: dict[str, Sequence[Complete]] = {}
    for method, rows in study.tested.items():
        if study.alone(method) or rows[0].untrained:
            runs[method] = rows
        elif (timed := study.timed.get(method)) is not None:
            runs[method] = [retimed(row, timed.step_s) for row in rows]
        else:
            return None
    return runs


def retimed(row: Complete, step_s: float) -> Complete:
    points = tuple(replace(point, train_s=point.step * step_s) for point in row.curve or ())
    return replace(row, curve=points or None)
