"""A pool that runs nothing: it writes made-up results, best at a planted rate, and keeps what it was asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.made_up import UNTRAINED, made_up
from experiments.compare.config import CompareConfig
from experiments.config.identity import key
from experiments.config.schema import Part, Trains, plain
from experiments.config.sources import sources_sha256
from experiments.store.files import read
from experiments.store.result import Result
from experiments.sweep.arm import Arm

SKILL = {"none": 0.0, "few_shot": 0.3, "head": 0.5, "tfidf": 0.35, "lora": 0.7, "bitfit": 0.4, "full": 0.75}
SEARCH_SEEDS = [101, 102, 103]
TIMING_STEPS = 20
HEAD_RATE = 0.03  # a linear probe is best there
SMALL: dict[str, Any] = {
    "model": "tiny",
    "tasks": ["ha_json"],
    "methods": ["lora", "bitfit", "full"],
    "baselines": ["none", "few_shot"],
    "trials": 3,
    "cap": 5,
    "search_seeds": SEARCH_SEEDS,
    "seeds": 2,
    "steps": 90,
    "resamples": 500,
}


def small_config(folder: Path, **changes: Any) -> CompareConfig:
    """A comparison of three methods on the tiny model, whose runs and results lie in the folder."""
    places: dict[str, Any] = {"out": str(folder / "runs"), "name": "made-up", "results": str(folder / "small")}
    return CompareConfig(**SMALL | places | changes)


class Pool:
    """Stands for experiments.sweep.pool.carry_out."""

    def __init__(self) -> None:
        self.ran: list[str] = []  # "method lr seed steps"
        self.slots: list[int] = []  # how many runs there were at a time, of each
        self.head_rates: list[tuple[str, float]] = []
        self.failing: set[str] = set()  # "method lr seed"
        self.diverging: set[str] = set()
        self.best_factor = 1.0  # the best rate is so many times the default
        self.ledger: Path | None = None
        self.ledger_before_tests: list[str] = []

    def __call__(self, arms: Sequence[Arm], slots: int, *, console: Any = None, ended: Any) -> list[Result]:
        rows = []
        for arm in arms:
            self.slots.append(slots)
            rows.append(self.run(arm))
            ended(arm, rows[-1])
        return rows

    def run(self, arm: Arm) -> Result:
        config = arm.config
        method, lr = config.method.name, config.optim.lr
        searching = config.eval.part is Part.val
        timing = config.optim.steps == TIMING_STEPS
        assert timing or searching == (config.seed in SEARCH_SEEDS)  # the search never sees the test set
        if not searching and self.ledger is not None and not self.ledger_before_tests:
            self.ledger_before_tests = self.ledger.read_text().splitlines()
        self.head_rates.append((method, config.optim.head_lr))
        rate = config.optim.head_lr if method == "head" else lr
        name = f"{method} {rate:g} {config.seed}"
        self.ran.append(f"{name} {config.optim.steps}")
        best = HEAD_RATE if method == "head" else config.method.lr * self.best_factor
        result = self.result(arm, loss=1.0 + abs(float(np.log(rate / best))))
        if name in self.failing | self.diverging:
            kind = "nan" if name in self.diverging else "oom"
            result |= {"status": "failed", "error": "a made-up failure", "failure_kind": kind}
        arm.result.parent.mkdir(parents=True, exist_ok=True)
        arm.result.write_text(json.dumps(result))
        return read(arm.result)

    def result(self, arm: Arm, loss: float) -> dict[str, Any]:
        """What would stand in the run's result.json."""
        config = arm.config
        method = config.method.name
        head = {"config": plain(config), "key": key(config), "sources_sha256": sources_sha256(config)}
        head |= {"task": config.task.name, "seed": config.seed, "lr": config.optim.lr, "steps": config.optim.steps}
        scores = (np.random.default_rng(config.seed).random(80) < SKILL[method]).astype(float).tolist()
        result = made_up(method, **head, scores=scores, n_test=80)
        result |= {"quality": {"exact_match": float(np.mean(scores))}}
        result |= {"validation": {"exact_match": 0.5 / loss, "loss": loss}}
        if config.method.trains is Trains.nothing:
            return result | UNTRAINED
        steps = sorted({round(config.optim.steps * share) for share in (0, 0.1, 0.3, 0.6, 1)})
        return result | {"curve": [along(step, result["quality"]["exact_match"]) for step in steps]}


def along(step: int, last: float) -> dict[str, Any]:
    """A point of a learning curve that is at its last score from step 25 on."""
    use = {"step": step, "examples": 8 * step, "tokens": 90 * step, "flops": 1e6 * step, "train_s": 0.5 * step}
    return use | {"loss": 1.0, "score": last * min(1.0, step / 25)}
