"""Methods across tasks: interquartile means and probabilities of improvement, by a bootstrap stratified by task.

After rliable (Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice"). Legend:
T tasks, S seeds of a task, B resamples. A run's value on a task is its seed's mean score, set to 0 at the untouched
model's mean, or where that was not run at the worst method's, and to 1 at the best method's. Seeds are drawn anew
within each task; the tasks stand fixed, so that nothing is said of other tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from experiments.compare.crossed import Array

RESAMPLES = 5_000
Values = Mapping[str, Mapping[str, Sequence[float]]]  # each seed's mean score, by task and method


def across_tasks(values: Values, untouched: str, alpha: float, resamples: int = RESAMPLES) -> dict[str, Any] | None:
    """What comparison.json says of all its tasks together; None where fewer than two have anything to be put together.

    Methods that are not in every task are left out, and a task on which all methods are alike is.
    """
    usable = {task: normalised(by_method, untouched) for task, by_method in values.items() if by_method}
    usable = {task: by_method for task, by_method in usable.items() if by_method}
    methods = [name for name in next(iter(usable.values()), {}) if all(name in each for each in usable.values())]
    if len(usable) < 2 or not methods:
        return None
    runs = {method: [usable[task][method] for task in usable] for method in methods}
    rng = np.random.default_rng(0)
    resampled = {method: [drawn(each, resamples, rng) for each in by_task] for method, by_task in runs.items()}
    iqm = {method: float(interquartile_mean(np.concatenate(by_task))) for method, by_task in runs.items()}
    iqms = {method: interquartile_mean(np.concatenate(by_task, axis=1)) for method, by_task in resampled.items()}
    ordered = sorted(methods, key=lambda method: -iqm[method])
    return {
        "tasks": list(usable),
        "left_out": [task for task in values if task not in usable],
        "methods": [
            {"method": method, "iqm": iqm[method], **ends(iqms[method], alpha), "n_runs": sum(map(len, runs[method]))}
            for method in ordered
        ],
        "improvement": [
            {
                "a": a,
                "b": b,
                "probability": float(improvement(runs[a], runs[b])),
                **ends(improvement(resampled[a], resampled[b]), alpha),
            }
            for a, b in combinations(ordered, 2)
        ],
    }


def normalised(by_method: Mapping[str, Sequence[float]], untouched: str) -> dict[str, Array]:
    """Each method's values (S,) with 0 at the untouched model, or the worst mean, and 1 at the best mean."""
    means = {method: float(np.mean(values)) for method, values in by_method.items()}
    most, least = max(means.values()), means.get(untouched, min(means.values()))
    if not most > least:
        return {}
    return {method: (np.asarray(values, dtype=float) - least) / (most - least) for method, values in by_method.items()}


def drawn(values: Array, resamples: int, rng: np.random.Generator) -> Array:
    """Values (B, S) drawn with replacement."""
    return values[rng.integers(len(values), size=(resamples, len(values)))]


def interquartile_mean(values: Array) -> Array:
    """The mean of the middle half along the last axis: a quarter of the values, rounded down, is cut at each end."""
    ordered = np.sort(values, axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def improvement(a: Sequence[Array], b: Sequence[Array]) -> Array:
    """P(a run of a is better than one of b on a task drawn at random), ties counted half; tasks of (…, S)."""
    by_task = []
    for x, y in zip(a, b):
        above = np.sign(x[..., :, None] - y[..., None, :])
        by_task.append((1 + above.mean(axis=(-2, -1))) / 2)
    return np.mean(by_task, axis=0)


def ends(resampled: Array, alpha: float) -> dict[str, float]:
    """The percentile interval."""
    low, high = np.quantile(resampled, [alpha / 2, 1 - alpha / 2])
    return {"low": float(low), "high": float(high)}
