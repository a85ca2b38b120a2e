"""Time and memory in a comparison: of runs that had the machine to themselves, or not at all."""

from __future__ import annotations

from typing import Any

from experiments.compare.secondary import COSTS
from experiments.compare.task_study import TaskStudy

TIMED = ("step_s", "train_s", "total_s", "training_peak_bytes", "increase_bytes")


def only_alone(study: TaskStudy, outcome: dict[str, Any]) -> dict[str, Any]:
    """The task's outcome without times and memory of methods whose runs shared the machine, and a note that says so."""
    shared = [item["method"] for item in outcome["methods"] if not study.alone(item["method"])]
    for item in outcome["methods"]:
        item["alone"] = item["method"] not in shared
        if item["method"] in shared:
            item |= dict.fromkeys(TIMED) | {"cost": {}}
    for name in COSTS:
        pairs = outcome["other_pairs"].get(name, [])
        outcome["other_pairs"][name] = [pair for pair in pairs if not {pair["a"], pair["b"]} & {*shared}]
    if shared:
        outcome["notes"].append(
            f"no times and no memory of {', '.join(shared)}: not every run is known to have had the machine to itself "
            "(slots=1)"
        )
    return outcome
