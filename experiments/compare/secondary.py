"""Forgetting and cost, by the test that quality gets: over seeds × texts, or over seeds where a run has one number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from experiments.compare import statistics
from experiments.compare.remarks import Tested
from experiments.compare.statistics import Pair, Scores
from experiments.store.result import Complete

Values = dict[str, dict[int | None, list[float]]]
COSTS: dict[str, Callable[[Complete], float]] = {
    "step_s": lambda row: row.step_s,
    "training_peak_bytes": lambda row: row.memory.training_peak_bytes,
}


@dataclass(frozen=True)
class Lower:
    """What a measure of which less is better says: by method a mean with interval and letter, and all pairs."""

    methods: dict[str, dict[str, Any]]
    pairs: list[dict[str, Any]]


def lower(values: Values, alpha: float, margin: float | None = None) -> Lower:
    """The tests of a measure of which less is better; the letter a is the least's."""
    negated: Scores = {method: {seed: [-x for x in each] for seed, each in by.items()} for method, by in values.items()}
    tests = statistics.compare(negated, alpha=alpha, margin=margin)
    methods = {
        mean.method: {
            "mean": -mean.mean,
            "low": -mean.high,
            "high": -mean.low,
            "seed_sd": mean.seed_sd,
            "group": tests.letters[mean.method],
        }
        for mean in tests.means
    }
    return Lower(methods, [turned(pair) for pair in tests.pairs])


def turned(pair: Pair) -> dict[str, Any]:
    """The pair with the measure's own sign; a is still the better one, which has less."""
    return asdict(pair) | {"difference": -pair.difference, "low": -pair.high, "high": -pair.low}


def seeded(row: Complete) -> bool:
    """Whether the seed changes the answers: an untrained model that writes text gives the same at every seed, unless
    demonstrations are drawn by it; the head of one that does not write is drawn by it."""
    drawn = row.config.get("method", {}).get("shots", 0) > 0
    return not row.untrained or drawn or row.cost.generate_tokens_per_s.unmerged is None


def forgotten(tested: Tested, alpha: float) -> tuple[str, Lower]:
    """What each method forgot of general text: the measure's name, and its tests over seeds × texts.

    Nats a token, after − before, text by text. Of an encoder, whose measure is `drift`, that of its features: it is no
    forgetting, and gets the same tests.
    """
    values: Values = {}
    measure = ""
    for method, rows in tested.items():
        for row in rows:
            if row.forgetting is None:
                continue
            each = row.forgetting.texts
            kept = each.drift or [a - b for a, b in zip(each.nll_after or (), each.nll_before or ())]
            if kept:
                measure = "drift" if each.drift else "nats"
                values.setdefault(method, {})[row.seed if seeded(row) else None] = list(kept)
    if not values or min(len(each) for by_seed in values.values() for each in by_seed.values()) < 2:
        return "", Lower({}, [])
    return measure, lower(values, alpha)


def costs(tested: Tested, alpha: float) -> dict[str, Lower]:
    """By measure of what training costs: its tests over seeds, of the methods that were trained with several."""
    outcome = {}
    for name, of in COSTS.items():
        values: Values = {
            method: {row.seed: [float(of(row))] for row in rows} for method, rows in tested.items() if len(rows) > 1
        }
        values = {method: by for method, by in values.items() if all(each[0] > 0 for each in by.values())}
        outcome[name] = lower(values, alpha) if values else Lower({}, [])
    return outcome
