"""What a comparison writes and shows: comparison.json, table.md, the tests in the log, the tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.compare.config import CompareConfig, how, of_task
from experiments.compare.costs import as_alone, only_alone
from experiments.compare.curves import curves
from experiments.compare.decision_log import DecisionLog
from experiments.compare.edges import without_claims
from experiments.compare.frontier import frontier
from experiments.compare.plan import Plan
from experiments.compare.search_lines import search_part
from experiments.compare.summary import FORMAT, FULL, NONE, across, compared
from experiments.compare.table import notes, rich_table
from experiments.compare.task_study import TaskStudy
from experiments.compare.weights import changes
from experiments.store.result import Complete


def comparison_of(config: CompareConfig, studies: Mapping[str, TaskStudy], plan: Plan) -> dict[str, Any]:
    """What stands in comparison.json, of what is there so far."""
    n_pending = sum(len(study.pending) for study in studies.values())
    seeds = "1 seed" if config.seeds == 1 else f"{config.seeds} seeds"
    title = f"{config.model}: {', '.join(config.tasks)}, {config.steps} steps, {seeds}"
    if n_pending:
        title += f"; under way, {n_pending} runs still to be tested"
    begun = {name: study for name, study in studies.items() if study.tested or not study.pending}
    tasks = {name: outcome(config, study) for name, study in begun.items()}
    return {
        "format": FORMAT,
        "title": title,
        "how": how(config),
        "plan": plan.written(),
        "departures": plan.departures(),
        "tasks": tasks,
        "across": across(tasks, config.alpha, config.resamples),
    }


def outcome(config: CompareConfig, study: TaskStudy) -> dict[str, Any]:
    """One task: what was tested, searched, and scored along the training."""
    margin = of_task(config.margin, study.task)
    tested = without_claims(only_alone(study, compared(study, config.alpha, margin)))
    timed = as_alone(study)
    runs = study.tested if timed is None else timed
    along = curves(runs, margin=margin, level=config.level, full=FULL, timed=timed is not None)
    return tested | search_part(study) | {"curves": along} | kept(config, study)


def kept(config: CompareConfig, study: TaskStudy) -> dict[str, Any]:
    """What the task's methods forgot at equal quality, over all runs that were probed, and did to the weights."""
    runs = [run for method in study.methods for run in (*study.searched.get(method, ()), *study.tested.get(method, ()))]
    complete = [run for run in runs if isinstance(run, Complete)]
    untouched = next(iter(study.tested.get(NONE, ())), None)
    forgot = (
        frontier(complete, untouched, config.alpha, config.kl_margin, config.frontier_by) if config.frontier else None
    )
    return {"frontier": forgot, "spectra": changes(study.tested)}


def log_tests(decisions: DecisionLog, comparison: dict[str, Any]) -> None:
    """Log the tests and the ties."""
    for task, each in comparison["tasks"].items():
        for pair in each["pairs"]:
            decisions.write("pair", task=task, **pair)
        groups = {item["method"]: item["group"] for item in each["methods"]}
        decisions.write("ties", task=task, groups=groups, share_of_full_reason=each["share_of_full_reason"])


def show(console: Console, config: CompareConfig, comparison: dict[str, Any]) -> None:
    """Print the tables, their notes, what departed from the plan, and where the files lie."""
    for task, each in comparison["tasks"].items():
        if each["methods"]:
            console.print(rich_table(f"{config.model} on {task}", each))
        for line in notes(each):
            say(console, line)
    if departures := comparison["departures"]:
        say(console, f"departures from the plan: {len(departures)}; table.md has them")
    for name in ("plan.md", "table.md", "plot.png", "comparison.json", "ledger.jsonl"):
        say(console, str(Path(config.results) / name))


def say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
