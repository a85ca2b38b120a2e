"""A study of no real run, as many runs as wanted: every number is made up, from a seed."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from benchmarks.made_up import UNTRAINED, made_up, made_up_failure
from benchmarks.made_up_frontier import frontier, spectra
from benchmarks.made_up_protocol import plan_of, protocol_of
from experiments.compare.aggregate import across_tasks
from experiments.store.result import plain

# What the numbers of a method are drawn around: parameters, quality, forgetting, learning rate, step time in seconds.
METHODS = {
    "none": (0, 0.05, 1.0, 0.0, 0.0),
    "lora": (4_884_480, 0.8, 1.08, 1e-3, 1.35),
    "adapter": (4_462_080, 0.76, 1.12, 2e-3, 1.03),
    "prefix": (184_320, 0.41, 1.02, 2e-2, 0.90),
    "bitfit": (155_520, 0.6, 1.05, 2e-2, 0.90),
    "ia3": (57_600, 0.62, 1.04, 3e-2, 1.10),
    "full": (134_515_008, 0.84, 1.6, 2e-4, 1.39),
}
PHASES = {"data": 1, "load": 2, "inject": 0.5, "checkpoint": 1, "save": 1, "evaluate": 40, "forgetting": 30, "cost": 8}
TOTAL = 134_515_008


def study(
    folder: Path,
    tasks: tuple[str, ...] = ("ha_json", "sql"),
    seeds: int = 3,
    n_test: int = 200,
    steps: int = 250,
    methods: tuple[str, ...] = tuple(METHODS),
) -> dict[str, Any]:
    """Runs under `folder`: for each task and method three rates at seed 0, and all seeds at the middle one.

    Returns a comparison that goes with them.
    """
    compared: dict[str, Any] = {}
    for task in tasks:
        entries = []
        for method in methods:
            _, quality, _, lr, _ = METHODS[method]
            values, keys = [], []
            for factor in (1 / 3, 1, 3) if lr else (1,):
                for seed in range(seeds if factor == 1 else 1):
                    result = run(folder, task, method, float(f"{lr * factor:.2g}"), seed, factor, n_test, steps)
                    if factor == 1:
                        values.append(result["quality"]["exact_match"])
                        keys.append(result["key"])
            mean = sum(values) / len(values)
            entries.append(
                {
                    "method": method,
                    "lr": lr or None,
                    "lr_at_edge": method == "prefix",
                    "notes": ["lr 0.02 is at the edge of its grid"] if method == "prefix" else [],
                    "keys": keys,
                    "n_seeds": seeds,
                    "mean": mean,
                    "low": mean - 0.03,
                    "high": mean + 0.03,
                    "seed_values": values,
                    "seed_sd": 0.012,
                    "group": "a" if quality > 0.7 else "b" if quality > 0.55 else "c",
                    "share_of_full": quality / 0.84,
                    "trainable": METHODS[method][0],
                    "baseline": method == "none",
                    "below": ["tfidf"] if quality < 0.5 else [],
                    "cost": {"step_s": {"group": "b" if method == "full" else "a"}, "training_peak_bytes": None},
                }
            )
        compared[task] = {"metric": "exact_match", "methods": entries, "pairs": pairs_of(entries)}
        forgot = {name: (METHODS[name][1], METHODS[name][2] - 1) for name in methods if METHODS[name][3]}
        compared[task] |= {"frontier": frontier(forgot), "spectra": spectra(tuple(forgot))}
        compared[task] |= {
            "model": "smollm2",
            "missing": ["lora seed 9: killed"],
            "notes": ["a made-up note"],
            "margin": 0.02,
        }
        compared[task] |= protocol_of(methods, steps)
    scores = {task: {each["method"]: each["seed_values"] for each in one["methods"]} for task, one in compared.items()}
    about = {"title": "A made-up study", "how": "Every number here is made up.", **plan_of(tasks)}
    return {"format": 2, **about, "tasks": compared, "across": across_tasks(scores, "none", 0.05, 200)}


def pairs_of(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every two of a task's entries; those of unlike letters are told apart."""
    return [
        {
            "a": a["method"],
            "b": b["method"],
            "difference": a["mean"] - b["mean"],
            "low": a["mean"] - b["mean"] - 0.04,
            "high": a["mean"] - b["mean"] + 0.04,
            "p": 0.0004,
            "p_holm": 0.006,
            "verdict": "better" if a["group"] != b["group"] else "undecided",
            "better": max(a, b, key=lambda each: each["mean"])["method"] if a["group"] != b["group"] else None,
            "smallest": 0.05,
            "seed_sd": 0.01,
        }
        for i, a in enumerate(entries)
        for b in entries[i + 1 :]
    ]


def run(
    folder: Path, task: str, method: str, lr: float, seed: int, factor: float, n_test: int, steps: int
) -> dict[str, Any]:
    """One run's files; its quality falls with the distance of its rate from the middle one."""
    trainable, quality, forgets, _, step_s = METHODS[method]
    luck = random.Random(f"{task} {method} {lr} {seed}")
    quality = max(0.0, quality - (0.1 if factor != 1 else 0) - (0.08 if task == "sql" else 0) + luck.gauss(0, 0.015))
    scores = [float(luck.random() < quality) for _ in range(n_test)]
    value = sum(scores) / n_test
    delta = 4 * trainable if method != "full" else 2 * TOTAL
    peak = int((700 + 600 * step_s + trainable / 1e5) * 2**20)
    seconds = PHASES | {name: steps * step_s * part for name, part in {"forward": 0.3, "backward": 0.6}.items()}
    seconds |= {"optimizer": steps * step_s * 0.1, "other": 1.0}
    loss = 0.05 + (0.84 - quality) ** 2 + (0.1 if factor > 1 else 0.03 if factor < 1 else 0)
    result = made_up(
        method,
        model="smollm2",
        task=task,
        seed=seed,
        lr=lr or None,
        steps=steps,
        batch_size=8,
        n_test=n_test,
        scores=scores,
        quality={"exact_match": value, "valid_json": min(1.0, value + 0.15)},
        validation={"exact_match": value, "valid_json": 0.9, "loss": loss},
        parameters={"trainable": trainable, "added": 0, "total": TOTAL, "share": trainable / TOTAL},
        bytes={"delta": delta, "full_copy": 2 * TOTAL},
        memory={"peak_bytes": peak, "training_peak_bytes": peak, "training_increase_bytes": peak - 700 * 2**20},
        seconds=seconds | {"total": sum(seconds.values())},
        step_s=step_s,
        config={
            "method": {"name": method, "rules": [{"method": method.upper(), "where": None, "hparams": {"rank": 16}}]},
            "optim": {"lr": lr, "steps": steps, "batch_size": 8, "betas": [0.9, 0.999], "warmup_steps": 6},
            "eval": {"batch_size": 50, "max_new_tokens": 48},
            "model": {"name": "smollm2", "path": None, "dtype": "bf16"},
            "task": {"name": task, "seed": 0, "n_train": 2000, "n_val": 50, "n_test": n_test},
            "seed": seed,
        },
        key=f"{luck.getrandbits(48):012x}",
        forgetting=made_up()["forgetting"]
        | {
            "text_perplexity": {"before": 21.3, "after": 21.3 * forgets * luck.uniform(0.99, 1.01)},
            "feature_drift": None,
            "kl_per_token": (forgets - 1) * luck.uniform(0.9, 1.1),
            "tasks": {
                other: {"before": 0.3, "after": 0.3 + luck.gauss(0.5 - forgets / 2, 0.03), "metric": "accuracy"}
                for other in ("ha_intent", "domain", "style")
            },
        },
    )
    if method == "none":
        result |= UNTRAINED | {"config": result["config"], "parameters": result["parameters"]}
    place = folder / f"smollm2-{task}-{method}-s{seed}-{result['key']}"
    place.mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(result))
    if method != "none":
        write_metrics(place, lr, steps, step_s, loss, luck)
    write_predictions(place, scores, luck)
    return result


def write_metrics(place: Path, lr: float, steps: int, step_s: float, loss: float, luck: random.Random) -> None:
    """The run's learning curve, which falls to about this loss."""
    losses = [4 * math.exp(-step / 30) + loss + luck.uniform(0, 0.05) for step in range(1, steps + 1)]
    rows = [
        {"step": i, "loss": each, "lr": lr, "grad_norm": 1.0, "tokens": 9, "wall_s": i * step_s}
        for i, each in enumerate(losses, 1)
    ]
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_predictions(place: Path, scores: list[float], luck: random.Random) -> None:
    """An answer for each score, right or wrong as it says."""
    lines = []
    for i, score in enumerate(scores):
        gold = json.dumps({"intent": "HassTurnOn", "slots": {"area": f"room {i}", "name": "lamp"}})
        answer = gold if score else gold.replace("TurnOn", luck.choice(("TurnOff", "LightSet")))
        line = {"prompt": f"turn on the lamp in room {i}", "gold": gold, "prediction": answer, "score": score}
        lines.append(json.dumps({**line, "part": "", "correct": score == 1}) + "\n")
    (place / "predictions.jsonl").write_text("".join(lines))


def failed(folder: Path, **changes: Any) -> None:
    """A run that failed."""
    error = "OutOfMemoryError: tried to allocate 2.00 GiB"
    about = {"task": "ha_json", "model": "smollm2", "failure_kind": "oom", "config": {"method": {"name": "lora"}}}
    result = plain(made_up_failure("lora", error, **{**about, **changes}))
    place = folder / f"smollm2-ha_json-failed-s{result['seed']}"
    place.mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(result))
