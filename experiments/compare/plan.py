"""The plan of a comparison, written before its first run and never again: what departs from it later is logged.

plan.json has what decides the outcome, plan.md the same for a reader. Where the machine and the folders are is no part
of it. A departure is a line of the log: what, from, to, and when.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.compare.axes import Axis
from experiments.compare.config import CompareConfig, how, of_task, plain
from experiments.compare.decision_log import DecisionLog, now
from experiments.config.schema import Config, MethodConfig
from experiments.config.schema import plain as plain_run
from experiments.store.small import portable
from experiments.support.files import write_json, write_text

FORMAT = 1
NO_PART = ("slots", "timing_steps", "out", "name", "results", "sources", "resamples")  # keys that change no outcome
POWER = 0.8
TESTS = (
    "Crossed random effects of seeds and test examples, by clusters where the task names them; Holm over all pairs of "
    "a task. A pair is better, equivalent within the margin by two one-sided tests, or undecided."
)


@dataclass(frozen=True)
class PlannedTask:
    """What the plan holds of a task: its run at the defaults, the hash of its sources, and every method's search."""

    config: Config
    sources_sha256: str
    methods: Mapping[str, tuple[MethodConfig, Sequence[Axis]]]
    baselines: Sequence[str]
    head_axis: Axis | None  # the linear probe's, which is searched first


def planned(config: CompareConfig, tasks: Mapping[str, PlannedTask]) -> dict[str, Any]:
    """The plan as it stands in plan.json, without this machine's paths."""
    settings = {name: value for name, value in plain(config).items() if name not in NO_PART}
    plan = {
        "format": FORMAT,
        "time": now(),
        "how": how(config),
        "tests": TESTS,
        "settings": settings | {"axes": config.varied},
        "tasks": {name: planned_task(config, name, task) for name, task in tasks.items()},
    }
    return portable(plan)


def planned_task(config: CompareConfig, name: str, task: PlannedTask) -> dict[str, Any]:
    """The task's part of the plan."""
    search = config.cap * (len(task.methods) + (task.head_axis is not None))
    return {
        "data": {key: value for key, value in plain_run(task.config)["task"].items() if value is not None},
        "sources_sha256": task.sources_sha256,
        "baselines": list(task.baselines),
        "head_lr": config.head_lr if task.head_axis is None else task.head_axis.words(),
        "methods": {
            method: {"lr_from": about.lr_from, "axes": {axis.name: axis.words() for axis in axes}}
            for method, (about, axes) in task.methods.items()
        },
        "margin": of_task(config.margin, name),
        "smallest_difference_expected": smallest_difference(config, name),
        "most_trials": search,
        "test_runs": (len(task.methods) + len(task.baselines)) * config.seeds,
    }


def smallest_difference(config: CompareConfig, task: str) -> float | None:
    """(t(1 − α / 2P) + t(POWER)) · sd · √(2 / S): what S seeds find in POWER of the cases, as the hardest of P pairs.

    sd: a score's standard deviation over seeds, from earlier studies; None where none was given, or of one seed.
    """
    sd = of_task(config.expected_sd, task)
    if sd is None or config.seeds < 2:
        return None
    from scipy.special import stdtrit

    df = 2 * (config.seeds - 1)
    n_pairs = max(1, math.comb(len(config.methods), 2))
    t = stdtrit(df, 1 - config.alpha / (2 * n_pairs)) + stdtrit(df, POWER)
    return float(f"{t * sd * math.sqrt(2 / config.seeds):.3g}")


class Plan:
    """The plan in its folder. hold: what of it holds now, and what has departed from it."""

    def __init__(self, folder: Path, decisions: DecisionLog) -> None:
        self.path, self.decisions = folder / "plan.json", decisions

    def hold(self, now_planned: Mapping[str, Any]) -> None:
        """Write the plan where there is none; else log every value in which this start departs from it."""
        if not self.path.is_file():
            write_text(self.path.with_suffix(".md"), in_words(now_planned))
            write_json(self.path, now_planned)
            return
        before, after = flat(self.written()), flat(now_planned)
        latest = {line["what"]: line["to"] for line in self.decisions.every("departure")}
        for what in sorted({*before, *after} - {"time", "how"}):
            old, new = before.get(what), after.get(what)
            if new != latest.get(what, old):
                self.decisions.write("departure", what=what, **{"from": latest.get(what, old), "to": new})

    def depart(self, what: str, old: Any, new: Any) -> None:
        """Log a departure that is no value of the plan, once."""
        self.decisions.write_once("departure", what=what, **{"from": old, "to": new})

    def unforeseen(self, results: Path, tasks: Iterable[str], asked: set[Path]) -> None:
        """Log the results in the folder that the comparison, as it stands, never asked for."""
        for task in tasks:
            for file in sorted((results / task).rglob("*result.json")):
                if file not in asked:
                    self.depart("a run that the plan does not have", None, str(file.relative_to(results)))

    def written(self) -> dict[str, Any]:
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{self.path}: the plan cannot be read ({error}); put it back from the repository"
            ) from error

    def departures(self) -> list[dict[str, Any]]:
        """What departed from the plan, in the order in which it did."""
        lines = self.decisions.every("departure")
        return [{name: line[name] for name in ("time", "what", "from", "to")} for line in lines]


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}; a list stays whole."""
    if not isinstance(value, Mapping) or not value:
        return {prefix.removesuffix("."): value}
    return {name: leaf for key, each in value.items() for name, leaf in flat(each, f"{prefix}{key}.").items()}


def in_words(plan: Mapping[str, Any]) -> str:
    """The text of plan.md."""
    parts = [f"# The plan of {plan['time']}", plan["how"], plan["tests"]]
    for name, task in plan["tasks"].items():
        found = task["smallest_difference_expected"]
        parts += [
            f"## {name}",
            "\n".join(
                f"- {line}"
                for line in (
                    f"baselines: {', '.join(task['baselines']) or 'none of them'}",
                    f"rate of the task head: {axis_in_words(task['head_lr'])}",
                    f"margin: {'not stated' if task['margin'] is None else task['margin']}",
                    f"smallest difference that it should find: {'not known' if found is None else found}",
                    f"trials at most: {task['most_trials']}; runs that are tested: {task['test_runs']}",
                    f"sources: {task['sources_sha256']}",
                )
            ),
            "\n".join(
                f"- {method}: {'; '.join(f'{axis} {axis_in_words(each)}' for axis, each in about['axes'].items())}. "
                f"Default from: {about['lr_from'] or 'not said'}"
                for method, about in task["methods"].items()
            ),
        ]
    settings = [f"- {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in flat(plan["settings"]).items()]
    return "\n\n".join([*parts, "## Settings", "\n".join(settings)]) + "\n"


def axis_in_words(axis: Any) -> str:
    if not isinstance(axis, Mapping):
        return "no task head" if axis is None else f"{axis:g}"
    if "grid" in axis:
        return f"of {', '.join(map(str, axis['grid']))}"
    return f"around {axis['default']:g}, by factors of {axis['factor']:g}"
