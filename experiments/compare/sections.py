"""The parts of table.md on the plan, the search and the training, as markdown."""

from __future__ import annotations

import json
from typing import Any

from experiments.compare.curves import AXES
from experiments.compare.forgetting_part import forgetting_parts
from experiments.store.tables import markdown_table

Cells = tuple[list[str], list[list[str]]]


def plan_part(comparison: dict[str, Any]) -> list[str]:
    """What was planned, and what departed from it."""
    if not (plan := comparison.get("plan")):
        return []
    departures = comparison["departures"]
    held = "Nothing departed from it." if not departures else f"{len(departures)} departures from it:"
    said = [f"Planned before the first run, {plan['time']}: plan.md. {held}"]
    if departures:
        lines = [[each["time"], each["what"], value(each["from"]), value(each["to"])] for each in departures]
        said.append(markdown_table(["when", "what", "from", "to"], lines))
    return ["## Plan and departures", *said]


def task_parts(name: str, task: dict[str, Any]) -> list[str]:
    """The task's search, its quality along the training, what was forgotten at equal quality, and its weights."""
    parts: list[str] = []
    if task.get("search"):
        rate = "" if task["head_lr"] is None else f"The task head has the rate {task['head_lr']:g} in every run."
        parts += [f"### {name}: search", *filter(None, [rate]), markdown_table(*search_cells(task))]
        parts += ["What it cost:", markdown_table(*cost_cells(task))]
    if task.get("expected_validation"):
        parts += ["The best validation score to be expected of so many trials:", markdown_table(*expected_cells(task))]
    if along := task.get("curves"):
        parts += [f"### {name}: along the training", *curve_parts(along, str(task["metric"]).replace("_", " "))]
    return [*parts, *forgetting_parts(name, task)]


def search_cells(task: dict[str, Any]) -> Cells:
    """Every trial: its setting, its seeds, and the validation set's means."""
    metric = f"validation {str(task['metric']).replace('_', ' ')}"
    headers = ["method", "setting", "of the steps", "seeds", "validation loss", metric, "chosen"]
    lines = []
    for trial in task["search"]:
        numbers = (
            ["failed", ""] if trial["failure"] else [number(trial["validation_loss"]), number(trial["validation"])]
        )
        setting = ", ".join(f"{name.rpartition('.')[2]} {value(each)}" for name, each in trial["values"].items())
        shown = [trial["method"], setting, f"{trial['share']:.0%}", str(trial["n_seeds"]), *numbers]
        lines.append([*shown, "yes" if trial["chosen"] else ""])
    return headers, lines


def cost_cells(task: dict[str, Any]) -> Cells:
    headers = ["method", "trials", "runs", "diverged or failed", "steps", "training", "in all", "FLOPs"]
    lines = [
        [
            method,
            *(str(cost[name]) for name in ("trials", "runs", "failed", "steps")),
            *(f"{cost[name]:.0f} s" for name in ("train_s", "total_s")),
            "–" if cost["flops"] is None else f"{cost['flops']:.3g}",
        ]
        for method, cost in task["search_cost"].items()
    ]
    return headers, lines


def expected_cells(task: dict[str, Any]) -> Cells:
    """E[max] of the main metric by the number of trials drawn from those that were tried."""
    expected = {method: each["score"] for method, each in task["expected_validation"].items()}
    most = max(map(len, expected.values()))
    lines = [[method, *map(number, scores), *["–"] * (most - len(scores))] for method, scores in expected.items()]
    return ["method", *(str(n) for n in range(1, most + 1))], lines


def curve_parts(along: dict[str, Any], metric: str) -> list[str]:
    """Tables at equal use, at the plateau, and to the level."""
    measure = metric if along["measure"] == "score" else "minus the loss"
    parts = [
        f"Validation {measure}, the mean over seeds. A point on the way is of a run whose rate has not decayed yet, so "
        "a run of that length would have ended better."
    ]
    for axis, each in along["equal"].items():
        headers = ["method", *(f"{at:.3g} {AXES[axis]}" for at in each["at"])]
        parts.append(markdown_table(headers, [[method, *map(number, row)] for method, row in each["scores"].items()]))
    parts += [
        f"The plateau: from where to the end the smoothed curve gains at most {along['plateau_margin']:g}; not reached "
        "where that is in the second half of the steps.",
        markdown_table(*plateau_cells(along)),
    ]
    if along["level"] is not None:
        parts += [f"To the level {along['level']:.3f}, medians over seeds:", markdown_table(*level_cells(along))]
    return parts


def plateau_cells(along: dict[str, Any]) -> Cells:
    axes = list(along["equal"])
    lines = [
        [method, number(each["score"]), *(use(each[axis]) for axis in axes)]
        if each["reached"]
        else [method, "not reached", *["–"] * len(axes)]
        for method, each in along["plateau"].items()
    ]
    return ["method", "score from there", *(AXES[axis] for axis in axes)], lines


def level_cells(along: dict[str, Any]) -> Cells:
    axes = list(along["equal"])
    lines = [
        [method, *(use(each[axis]) for axis in axes), f"{each['reached']} of {each['of']}"]
        for method, each in along["to_level"].items()
    ]
    return ["method", *(AXES[axis] for axis in axes), "seeds that came there"], lines


def use(amount: float | None) -> str:
    return "–" if amount is None else f"{amount:.3g}"


def number(amount: float | None) -> str:
    return "–" if amount is None else f"{amount:z.3f}"


def value(given: Any) -> str:
    """A setting as it would be typed."""
    if isinstance(given, float):
        return f"{given:g}"
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
