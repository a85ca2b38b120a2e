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
from experiments.store.result import ReportError, Row

FORMAT = 1
FULL, NONE = "full", "none"


@dataclass
class TaskStudy:
    """One task of a comparison, filled stage by stage; dictionaries are by method."""

    task: str
    rates: dict[str, list[float]] = field(default_factory=dict)
    trials: dict[str, list[Trial]] = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)
    tested: dict[str, list[Row]] = field(default_factory=dict)  # complete runs, a row a seed
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
        "data_sha256": rows[0].data["sha256"],
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


def seeded(row: Row) -> bool:
    """Whether the seed changes the model: an untrained one that writes text is the same at every seed, while the head
    of one that does not is drawn from it."""
    return not row.untrained or row.unmerged_tokens_per_s is None


def forgotten(study: TaskStudy, alpha: float, resamples: int) -> dict[str, dict[str, Any]]:
    """What each method forgot of general text, with an interval for other texts and letters of ties, the least first.

    Nats a token, after − before, text by text; of an encoder the drift of its features.
    """
    values: dict[str, dict[int | None, list[float]]] = {}
    measure = ""
    for method, rows in study.tested.items():
        for row in rows:
            each = (row.forgetting or {}).get("each", {})
            measure = "drift" if "drift" in each else "nats" if each else measure
            kept = each.get("drift") or [a - b for a, b in zip(each.get("nll_after", ()), each.get("nll_before", ()))]
            if kept:
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


def mixed(rows: list[Row]) -> list[str]:
    """What differs between the machines and programs of the runs."""
    notes = []
    for name in ("commit", "dirty", "device", "cpu", "threads", "torch", "transformers"):
        counts = Counter(str(row.environment.get(name)) for row in rows)
        if len(counts) > 1:
            listed = ", ".join(f"{value[:12]} ({n})" for value, n in counts.most_common())
            notes.append(f"the runs are of several kinds of {name}: {listed}")
    return notes


def same_data(task: str, rows: list[Row]) -> None:
    places: dict[str, Row] = {}
    for row in rows:
        places.setdefault(row.data["sha256"], row)
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

    def average(get: Callable[[Row], float | None], of: Callable[[list[float]], float] = fmean) -> float | None:
        values = [value for row in rows if (value := get(row)) is not None]
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
        "trainable": rows[0].trainable,
        "share": rows[0].share,
        "delta_bytes": rows[0].delta_bytes,
        "full_copy_bytes": rows[0].full_copy_bytes,
        "training_peak_bytes": average(lambda row: row.training_peak_bytes),
        "increase_bytes": average(lambda row: row.increase_bytes),
        "step_s": average(lambda row: row.step_s, median),  # one run may have been slowed down by others
        "train_s": average(lambda row: row.train_s, median),
        "total_s": average(lambda row: row.total_s, median),
        "perplexity_before": average(lambda row: row.perplexity_before),
        "perplexity_after": average(lambda row: row.perplexity_after),
        "kl_per_token": average(lambda row: row.kl_per_token),
        "feature_drift": average(lambda row: row.feature_drift),
        "other_tasks": {
            task: {when: fmean((row.other_tasks or {})[task][when] for row in rows) for when in ("before", "after")}
            for task in rows[0].other_tasks or {}
        },
        "notes": study.notes.get(mean.method, []),
    }


def luck(pair: Pair) -> str:
    """A warning where the trained models differ, but the methods may not."""
    if not pair.distinguishable or pair.beyond_seeds is not False:
        return ""
    return (
        f"{pair.a} and {pair.b} are told apart as trained here, by {pair.difference:.3f}, but that may be the luck of "
        f"their seeds: for new ones the 95 % interval is {pair.seeds_low:.3f} to {pair.seeds_high:.3f}"
    )
