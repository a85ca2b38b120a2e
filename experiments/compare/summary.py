"""The outcome of a comparison, task by task: from the choices and the tested runs to comparison.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from statistics import fmean, median
from typing import Any

from experiments.compare import statistics
from experiments.compare.aggregate import across_tasks
from experiments.compare.bar import baselines_of, below, withheld
from experiments.compare.remarks import belong_together, ceilings, groups_of, mixed
from experiments.compare.secondary import costs, forgotten, seeded
from experiments.compare.statistics import Mean
from experiments.compare.task_study import TaskStudy
from experiments.store.result import Complete
from experiments.store.schema import flat

FORMAT = 2
FULL, NONE = "full", "none"
# Columns of a run that are those of its method: alike for all seeds, or averaged over them.
SAME = ("trainable", "share", "delta_bytes", "full_copy_bytes")
AVERAGED: dict[str, Callable[[list[float]], float]] = {
    "training_peak_bytes": fmean,
    "increase_bytes": fmean,
    **dict.fromkeys(("step_s", "train_s", "total_s"), median),  # one run may have been slowed down by others
    **dict.fromkeys(("perplexity_before", "perplexity_after", "kl_per_token", "feature_drift"), fmean),
}
NOTHING_TESTED = {
    **dict.fromkeys(("model", "metric", "n_groups", "data_sha256", "alpha", "margin", "letters_withheld")),
    "n_test": 0,
    "share_of_full_reason": "no run has been tested",
    "methods": [],
    "pairs": [],
    "other_pairs": {},
    "notes": [],
}


def compared(study: TaskStudy, alpha: float, margin: float | None = None) -> dict[str, Any]:
    """The task's part of comparison.json. Raises ReportError where the runs do not belong together."""
    rows = [row for each in study.tested.values() for row in each]
    if not rows:
        return NOTHING_TESTED | {"missing": study.missing, "pending": study.pending}
    belong_together(study.task, rows)
    scores = {
        method: {row.seed if seeded(row) else None: row.scores for row in each} for method, each in study.tested.items()
    }
    groups, no_groups = groups_of(rows)
    tests = statistics.compare(scores, groups, alpha=alpha, margin=margin)
    means = {mean.method: mean.mean for mean in tests.means}
    baselines = baselines_of(study.tested)
    reason = withheld(means, baselines)
    shares, no_share = shares_of_full(study, tests.means)
    measure, forgot = forgotten(study.tested, alpha)
    cost = costs(study.tested, alpha)
    under = below(means, baselines)
    return {
        "model": rows[0].model,
        "metric": rows[0].metric,
        "n_test": rows[0].n_test,
        "n_groups": tests.n_clusters,
        "data_sha256": rows[0].data.sha256,
        "alpha": alpha,
        "margin": margin,
        "letters_withheld": reason,
        "share_of_full_reason": no_share,
        "methods": [
            described(study, mean, shares.get(mean.method))
            | {
                "group": "" if reason else tests.letters[mean.method],
                "baseline": mean.method in baselines,
                "below": under.get(mean.method, []),
                "forgot": {"measure": measure, **each} if (each := forgot.methods.get(mean.method)) else None,
                "cost": {name: each.methods.get(mean.method) for name, each in cost.items()},
            }
            for mean in tests.means
        ],
        "pairs": [asdict(pair) for pair in tests.pairs],
        "other_pairs": {"forgotten": forgot.pairs, **{name: each.pairs for name, each in cost.items()}},
        "missing": study.missing,
        "pending": study.pending,
        "notes": [note for note in (no_groups, *tests.notes, *ceilings(study.tested), *mixed(rows)) if note],
    }


def across(tasks: Mapping[str, dict[str, Any]], alpha: float, resamples: int) -> dict[str, Any] | None:
    """All tasks together, for comparison.json; None with fewer than two."""
    values = {name: {item["method"]: item["seed_values"] for item in task["methods"]} for name, task in tasks.items()}
    return across_tasks(values, NONE, alpha, resamples)


def shares_of_full(study: TaskStudy, means: tuple[Mean, ...]) -> tuple[dict[str, float], str | None]:
    """Every method's mean over full fine-tuning's, or why there is none."""
    full = next((mean.mean for mean in means if mean.method == FULL), None)
    if full is None:
        has = FULL in study.methods
        return {}, f"{FULL} has no complete run" if has else f"{FULL} is not among the methods"
    choice = study.choices[FULL]
    if choice.at_edge:
        return {}, f"{FULL}'s learning rate, {choice.lr:g}, is at the edge of its grid: a better one may lie beyond"
    if full <= 0 or any(mean.mean < 0 for mean in means):
        return {}, f"a share needs scores above 0; {FULL} has {full:.3f}"
    return {mean.method: mean.mean / full for mean in means}, None


def described(study: TaskStudy, mean: Mean, share: float | None) -> dict[str, Any]:
    """One method: what it scored, and what it costs and forgets on average over its seeds."""
    rows = study.tested[mean.method]
    choice = study.choices.get(mean.method)

    numbers = [flat(row) for row in rows]

    def average(name: str, of: Callable[[list[float]], float]) -> float | None:
        values = [each[name] for each in numbers if each[name] is not None]
        return of(values) if len(values) == len(rows) else None

    return {
        "method": mean.method,
        "lr": None if choice is None else choice.lr,
        "lr_at_edge": choice is not None and choice.at_edge,
        "n_seeds": len(rows),
        "seeds": [row.seed for row in rows],
        "keys": [row.key for row in rows],
        "mean": mean.mean,
        "low": mean.low,
        "high": mean.high,
        "seed_values": list(mean.seed_values),
        "seed_sd": mean.seed_sd,
        "share_of_full": share,
        "quality": {name: fmean(row.quality[name] for row in rows) for name in rows[0].quality},
        **{name: numbers[0][name] for name in SAME},
        **{name: average(name, of) for name, of in AVERAGED.items()},
        "other_tasks": other_tasks(rows),
        "notes": study.notes.get(mean.method, []),
    }


def other_tasks(rows: list[Complete]) -> dict[str, dict[str, float]]:
    """By other task, its mean score before and after the training."""
    by_task = [row.forgetting.tasks if row.forgetting else {} for row in rows]
    return {
        task: {
            "before": fmean(tasks[task].before for tasks in by_task),
            "after": fmean(tasks[task].after for tasks in by_task),
        }
        for task in by_task[0]
    }
