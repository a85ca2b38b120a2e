"""The plan, the search and the learning curves of a study of no real run: every number is made up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

USES = {"step": 1.0, "examples": 8.0, "flops": 1e12, "train_s": 0.9}  # what a step takes
RATES = (1e-3, 3e-3, 9e-3)


def plan_of(tasks: Sequence[str]) -> dict[str, Any]:
    """A plan, and two departures from it."""
    method = {"lr_from": "nowhere", "axes": {"optim.lr": {"default": 3e-3, "factor": 3.0}}}
    task = {"baselines": ["none"], "margin": 0.02, "methods": {"lora": method}, "head_lr": None}
    plan = {"format": 1, "time": "2000-01-01T00:00:00+00:00", "how": "Nothing was run.", "tests": "None."}
    plan |= {"settings": {"seeds": 3, "steps": 60}, "tasks": dict.fromkeys(tasks, task)}
    departures = [
        {"time": "2000-01-02T00:00:00+00:00", "what": "settings.seeds", "from": 2, "to": 3},
        {
            "time": "2000-01-03T00:00:00+00:00",
            "what": "a run that the plan does not have",
            "from": None,
            "to": "a/b.json",
        },
    ]
    return {"plan": plan, "departures": departures}


def protocol_of(methods: Sequence[str], steps: int) -> dict[str, Any]:
    """A task's search, what it cost, and its learning curves."""
    trained = [method for method in methods if method != "none"]
    return {
        "head_lr": 0.03,
        "search": [trial(method, lr) for method in trained for lr in RATES],
        "expected_validation": {
            method: {"score": [0.5 + 0.01 * i, 0.6 + 0.01 * i, 0.63 + 0.01 * i], "loss": [1.0, 0.9, 0.8]}
            for i, method in enumerate(trained)
        },
        "search_cost": {method: cost(i) for i, method in enumerate(trained)},
        "curves": curves(trained, steps),
    }


def trial(method: str, lr: float) -> dict[str, Any]:
    failure = "step 4: nan" if lr == RATES[-1] and method == "lora" else None
    numbers = {"validation_loss": None, "validation": None} if failure else {"validation_loss": 0.5, "validation": 0.6}
    about = {"method": method, "lr": lr, "values": {"optim.lr": lr}, "share": 1.0, "n_seeds": 3}
    return about | numbers | {"chosen": lr == RATES[1], "failure": failure}


def cost(number: int) -> dict[str, Any]:
    runs = 7 + number
    seconds = {"train_s": 40.0 * runs, "total_s": 60.0 * runs}
    return {"trials": 3, "runs": runs, "failed": 0, "steps": 60 * runs, "flops": 1e13 * runs} | seconds


def curves(methods: Sequence[str], steps: int) -> dict[str, Any]:
    """Curves that rise to another height and at another speed each."""
    places = sorted({round(steps ** (i / 7)) for i in range(8)} | {0})

    def score(number: int, step: float) -> float:
        return (0.5 + 0.05 * number) * (1 - math.exp(-step * (1 + number) / steps * 4))

    made = {
        method: [
            {
                **{use: step * each for use, each in USES.items()},
                "tokens": 90.0 * step,
                "loss": 1.0,
                "score": score(i, step),
            }
            for step in places
        ]
        for i, method in enumerate(methods)
    }
    shares = (0.125, 0.25, 0.5, 1.0)
    at_step = {use: each * steps * 0.5 for use, each in USES.items()}
    return {
        "measure": "score",
        "methods": made,
        "equal": {
            use: {
                "at": [steps * each * share for share in shares],
                "scores": {method: [score(i, steps * share) for share in shares] for i, method in enumerate(methods)},
            }
            for use, each in USES.items()
        },
        "plateau_margin": 0.02,
        "plateau": {method: {"reached": i > 0, "score": 0.5, **at_step} for i, method in enumerate(methods)},
        "level": 0.48,
        "to_level": {method: {"reached": 3, "of": 3, **at_step} for method in methods},
    }
