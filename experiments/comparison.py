"""What a comparison found, task by task: from the choices and the tested runs to comparison.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from experiments import statistics
from experiments.rows import ReportError, Row
from experiments.search import Choice, Trial
from experiments.statistics import Mean, Pair

FORMAT = 1
FULL, NONE = "full", "none"


@dataclass
class Contest:
    """One task of a comparison, filled stage by stage; dictionaries are by method."""

    task: str
    rates: dict[str, list[float]] = field(default_factory=dict)
    trials: dict[str, list[Trial]] = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)
    tested: dict[str, list[Row]] = field(default_factory=dict)  # complete runs, a row a seed
    missing: list[str] = field(default_factory=list)  # runs that failed, a line each
    notes: dict[str, list[str]] = field(default_factory=dict)

    def note(self, method: str, *said: str) -> None:
        self.notes.setdefault(method, []).extend(line for line in said if line)


def compared(contest: Contest, alpha: float, resamples: int) -> dict[str, Any]:
    """The task's part of comparison.json. Raises ReportError where the runs were tested on different data."""
    rows = [row for each in contest.tested.values() for row in each]
    search = [line for method in contest.rates for line in searched(contest, method)]
    if not rows:
        empty = {
            "model": None,
            "metric": None,
            "n_test": 0,
            "data_sha256": None,
            "share_of_full_reason": "no run has been tested",
        }
        return {**empty, "methods": [], "pairs": [], "search": search, "missing": contest.missing, "notes": []}
    same_data(contest.task, rows)
    scores = {
        method: {None if method == NONE else row.seed: row.scores for row in each}
        for method, each in contest.tested.items()
    }
    found = statistics.compare(scores, alpha=alpha, resamples=resamples)
    shares, no_share = shares_of_full(contest, found.means)
    return {
        "model": rows[0].model,
        "metric": rows[0].metric,
        "n_test": rows[0].n_test,
        "data_sha256": rows[0].data["sha256"],
        "share_of_full_reason": no_share,
        "methods": [described(contest, mean, shares.get(mean.method)) for mean in found.means],
        "pairs": [asdict(pair) for pair in found.pairs],
        "search": search,
        "missing": contest.missing,
        "notes": [note for pair in found.pairs if (note := luck(pair))],
    }


def same_data(task: str, rows: list[Row]) -> None:
    places: dict[str, Row] = {}
    for row in rows:
        places.setdefault(row.data["sha256"], row)
    if len(places) > 1:
        listed = " and ".join(f"{row.file} ({sha256[:12]})" for sha256, row in places.items())
        raise ReportError(
            f"{task}: runs on different data cannot be compared: {listed}; delete those of the older data"
        )


def searched(contest: Contest, method: str) -> list[dict[str, Any]]:
    """The method's trials, from the lowest rate to the highest."""
    choice = contest.choices.get(method)
    return [
        {
            "method": method,
            "lr": trial.lr,
            "validation_loss": None if trial.validation is None else trial.validation["loss"],
            "validation": None if trial.validation is None else trial.validation[trial.metric],
            "chosen": choice is not None and trial.lr == choice.lr,
            "failure": trial.failure,
        }
        for trial in sorted(contest.trials.get(method, []), key=lambda trial: trial.lr)
    ]


def shares_of_full(contest: Contest, means: tuple[Mean, ...]) -> tuple[dict[str, float], str | None]:
    """Every method's mean over full fine-tuning's, or why there is none."""
    full = next((mean.mean for mean in means if mean.method == FULL), None)
    if full is None:
        has = FULL in contest.rates
        return {}, f"{FULL} has no complete run" if has else f"{FULL} is not among the methods"
    choice = contest.choices[FULL]
    if choice.at_edge:
        return {}, f"{FULL}'s learning rate, {choice.lr:g}, is at the edge of its grid: a better one may lie beyond"
    if full <= 0 or any(mean.mean < 0 for mean in means):
        return {}, f"a share needs scores above 0; {FULL} has {full:.3f}"
    return {mean.method: mean.mean / full for mean in means}, None


def described(contest: Contest, mean: Mean, share: float | None) -> dict[str, Any]:
    """One method: what it scored, and what it costs and forgets on average over its seeds."""
    rows = contest.tested[mean.method]
    choice = contest.choices.get(mean.method)

    def average(get: Callable[[Row], float | None]) -> float | None:
        values = [value for row in rows if (value := get(row)) is not None]
        return fmean(values) if len(values) == len(rows) else None

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
        "step_s": average(lambda row: row.step_s),
        "train_s": average(lambda row: row.train_s),
        "total_s": average(lambda row: row.total_s),
        "perplexity_before": average(lambda row: row.perplexity_before),
        "perplexity_after": average(lambda row: row.perplexity_after),
        "kl_per_token": average(lambda row: row.kl_per_token),
        "notes": contest.notes.get(mean.method, []),
    }


def luck(pair: Pair) -> str:
    """A warning where the trained models differ, but the methods may not."""
    if not pair.distinguishable or pair.beyond_seeds is not False:
        return ""
    return (
        f"{pair.a} and {pair.b} are told apart as trained here, by {pair.difference:.3f}, but that may be the luck of "
        f"their seeds: for new ones the 95 % interval is {pair.seeds_low:.3f} to {pair.seeds_high:.3f}"
    )
