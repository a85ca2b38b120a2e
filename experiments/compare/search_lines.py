"""What a task's search leaves for a reader: its trials, the best to be expected of so many, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.compare.expected_best import by_method
from experiments.compare.task_study import TaskStudy
from experiments.store.result import Complete, Result


def search_part(study: TaskStudy) -> dict[str, Any]:
    """The part of comparison.json that the search fills."""
    return {
        "head_lr": study.head_lr,
        "search": [line for method in study.trials for line in searched(study, method)],
        "expected_validation": by_method(study.trials),
        "search_cost": {method: cost(rows, len(study.trials[method])) for method, rows in study.searched.items()},
    }


def searched(study: TaskStudy, method: str) -> list[dict[str, Any]]:
    """The method's trials, from the lowest rate to the highest; numbers are means over the seeds that a trial had."""
    choice = study.choices.get(method)
    return [
        {
            "method": method,
            "lr": trial.lr,
            "values": trial.values,
            "share": trial.share,
            "n_seeds": len(trial.outcomes),
            "validation_loss": trial.loss,
            "validation": trial.score,
            "chosen": choice is not None and trial.values == choice.values,
            "failure": trial.failure,
        }
        for trial in sorted(study.trials[method], key=lambda trial: trial.lr or 0.0)
    ]


def cost(rows: Sequence[Result], n_trials: int) -> dict[str, Any]:
    """What a method's search took; of a run that failed only that it was."""
    done = [row for row in rows if isinstance(row, Complete)]
    flops = [row.flops.train for row in done]
    return {
        "trials": n_trials,
        "runs": len(rows),
        "failed": len(rows) - len(done),
        "steps": sum(row.steps for row in done),
        "train_s": sum(row.train_s for row in done),
        "total_s": sum(row.seconds.total for row in done),
        "flops": None if None in flops else sum(each for each in flops if each is not None),
    }
