"""The outcome of a comparison, task by task: from the choices and the tested runs to comparison.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import fmean, median
from typing import Any

from experiments.compare import statistics
from experiments.compare.rates import Choice, Trial
from experiments.compare.statistics import Mean, Pair
from experiments.store.files import ReportError
from experiments.store.result import Complete
from experiments.store.schema import flat

FORMAT = 1
FULL, NONE = "full", "none"
# Columns of a run that are those of its method: alike for all seeds, or averaged over them.
SAME = ("trainable", "share", "delta_bytes", "full_copy_bytes")
AVERAGED: dict[str, Callable[[list[float]], float]] = {
    "training_peak_bytes": fmean,
    "increase_bytes": fmean,
    **dict.fromkeys(("step_s", "train_s", "total_s"), median),  # one run may have been slowed down by others
    **dict.fromkeys(("perplexity_before", "perplexity_after", "kl_per_token", "feature_drift"), fmean),
}


@dataclass
class TaskStudy:
    """One task of a comparison, filled stage by stage; dictionaries are by method."""

    task: str
    rates: dict[str, list[float]] = field(default_factory=dict)
    trials: dict[str, list[Trial]] = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)
    tested: dict[str, list[Complete]] = field(default_factory=dict)  # complete runs, a row a seed
    missing: list[str] = field(default_factory=list)  # runs that failed, a line each
    pending: list[str] = field(default_factory=list)  # runs still to be tested
    notes: dict[str, list[str]] = field(default_factory=dict)

    def note(self, method: str, *remarks: str) -> None:
        """Add the remarks that are not empty to the method's notes."""
        self.notes.setdefault(method, []).extend(remark for remark in remarks if remark)


def compared(study: TaskStudy, alpha: float, resamples: int) -> dict[str, Any]:
    """The task's part of comparison.json. Raises ReportError where the runs were tested on different data."""
    rows = [row for each in study.tested.values() for row in each]
    search = [line for method in study.rates for line in searched(study, method)]
    if not rows:
        return {
            "model": None,
            "metric": None,
            "n_test": 0,
            "data_sha256": None,
            "share_of_full_reason": "no run has been tested",
            "methods": [],
            "pairs": [],
            "search": search,
            "missing": study.missing,
            "pending": study.pending,
            "notes": [],
        }
    same_data(study.task, rows)
    scores = {
        method: {row.seed if seeded(row) else None: row.scores for row in each} for method, each in study.tested.items()
    }
    tests = statistics.compare(scores, alpha=alpha, resamples=resamples)
    forgot = forgotten(study, alpha, resamples)
    shares, no_share = shares_of_full(study, tests.means)
    return {
        "model": rows[0].model,
        "metric": rows[0].metric,
        "n_test": rows[0].n_test,
        "data_sha256": rows[0].data.sha256,
        "share_of_full_reason": no_share,
        "methods": [
            described(study, mean, shares.get(mean.method)) | {"forgot": forgot.get(mean.method)}
            for mean in tests.means
        ],
        "pairs": [asdict(pair) for pair in tests.pairs],
        "search": search,
        "missing": study.missing,
        "pending": study.pending,
        "notes": [*ceiling(tests.means), *(note for pair in tests.pairs if (note := luck(pair))), *mixed(rows)],
    }


def seeded(row: Complete) -> bool:
    """Whether the seed changes the model: an untrained one that writes text is the same at every seed, while the head
    of one that does not is drawn from it."""
    return not row.untrained or row.cost.generate_tokens_per_s.unmerged is None


def forgotten(study: TaskStudy, alpha: float, resamples: int) -> dict[str, dict[str, Any]]:
    """What each method forgot of general text, with an interval for other texts and letters of ties, the least first.

    Nats a token, after − before, text by text; of an encoder the drift of its features.
    """
    values: dict[str, dict[int | None, list[float]]] = {}
    measure = ""
    for method, rows in study.tested.items():
        for row in rows:
            if row.forgetting is None:
                continue
            each = row.forgetting.texts
            kept = each.drift or [a - b for a, b in zip(each.nll_after or (), each.nll_before or ())]
            if kept:
                measure = "drift" if each.drift else "nats"
                values.setdefault(method, {})[row.seed if seeded(row) else None] = [-value for value in kept]
    if not values or min(len(each) for by_seed in values.values() for each in by_seed.values()) < 2:
        return {}
    return {
        mean.method: {"measure": measure, "mean": -mean.mean, "low": -mean.high, "high": -mean.low, "group": mean.group}
        for mean in statistics.compare(values, alpha=alpha, resamples=resamples).means
    }


def ceiling(means: tuple[Mean, ...]) -> list[str]:
    """A warning where a task is too easy to tell methods apart."""
    bounded = all(0 <= value <= 1 for mean in means for value in mean.seed_values)
    high = [mean.method for mean in means if bounded and mean.mean > 0.98]
    return [f"near the most there is, so hardly to be told apart: {', '.join(high)}"] if len(high) > 1 else []


def mixed(rows: list[Complete]) -> list[str]:
    """What differs between the machines and programs of the runs."""
    notes = []
    for name in ("commit", "dirty", "device", "cpu", "threads", "torch", "transformers"):
        counts = Counter(str(getattr(row.environment, name)) for row in rows)
        if len(counts) > 1:
            listed = ", ".join(f"{value[:12]} ({n})" for value, n in counts.most_common())
            notes.append(f"the runs are of several kinds of {name}: {listed}")
    return notes


def same_data(task: str, rows: list[Complete]) -> None:
    places: dict[str, Complete] = {}
    for row in rows:
        places.setdefault(row.data.sha256, row)
    if len(places) > 1:
        listed = " and ".join(f"{row.file} ({sha256[:12]})" for sha256, row in places.items())
        raise ReportError(
            f"{task}: runs on different data cannot be compared: {listed}; delete those of the older data"
        )


def searched(study: TaskStudy, method: str) -> list[dict[str, Any]]:
    """The method's trials, from the lowest rate to the highest."""
    choice = study.choices.get(method)
    return [
        {
            "method": method,
            "lr": trial.lr,
            "validation_loss": None if trial.validation is None else trial.validation["loss"],
            "validation": None if trial.validation is None else trial.validation[trial.metric],
            "chosen": choice is not None and trial.lr == choice.lr,
            "failure": trial.failure,
        }
        for trial in sorted(study.trials.get(method, []), key=lambda trial: trial.lr)
    ]


def shares_of_full(study: TaskStudy, means: tuple[Mean, ...]) -> tuple[dict[str, float], str | None]:
    """Every method's mean over full fine-tuning's, or why there is none."""
    full = next((mean.mean for mean in means if mean.method == FULL), None)
    if full is None:
        has = FULL in study.rates
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
        "group": mean.group,
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


def luck(pair: Pair) -> str:
    """A warning where the trained models differ, but the methods may not."""
    if not pair.distinguishable or pair.beyond_seeds is not False:
        return ""
    return (
        f"{pair.a} and {pair.b} are told apart as trained here, by {pair.difference:.3f}, but that may be the luck of "
        f"their seeds: for new ones the 95 % interval is {pair.seeds_low:.3f} to {pair.seeds_high:.3f}"
    )
