"""What a search of n trials is expected to find: the best validation score of n drawn from those that were tried.

Dodge et al. 2019, *Show Your Work*, equation 1: a method that needs many trials for its score is told from one that has
it at once. Trials count in full length; one that diverged counts as the lowest score of the task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.compare.trials import Trial


def expected_best(values: Sequence[float]) -> list[float]:
    """E[max of n draws] for n = 1 … N: Σᵢ v₍ᵢ₎ · ((i/N)ⁿ − ((i−1)/N)ⁿ), v in rising order, drawn with replacement."""
    ordered, N = sorted(values), len(values)
    return [
        sum(value * ((i / N) ** n - ((i - 1) / N) ** n) for i, value in enumerate(ordered, 1)) for n in range(1, N + 1)
    ]


def by_method(trials: Mapping[str, Sequence[Trial]]) -> dict[str, dict[str, Any]]:
    """For each method the expected best main metric, and the expected lowest loss, of 1 to N trials."""
    complete = [trial for each in trials.values() for trial in each if trial.complete]
    if not complete:
        return {}
    lowest = min(trial.score for trial in complete if trial.score is not None)
    highest = max(trial.loss for trial in complete if trial.loss is not None)
    made = {}
    for method, each in trials.items():
        counted = [trial for trial in each if trial.complete or trial.diverged]
        if any(trial.complete for trial in counted):
            scores = [lowest if trial.score is None else trial.score for trial in counted]
            losses = [highest if trial.loss is None else trial.loss for trial in counted]
            made[method] = {
                "score": expected_best(scores),
                "loss": [-value for value in expected_best([-loss for loss in losses])],
            }
    return made
