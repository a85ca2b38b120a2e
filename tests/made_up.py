"""Result files of no real run: every number and most names in them are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.arms import ROOT


def made_up(method: str = "fable", **changes: Any) -> dict[str, Any]:
    """A complete result file of no real run."""
    return {
        "format": 1,
        "status": "complete",
        "error": None,
        "config": {
            "method": {"name": method},
            "optim": {"lr": 0.01},
            "eval": {"batch_size": 5},
            "model": {"path": str(ROOT / "nowhere")},
        },
        "key": "0123456789ab",
        "method": method,
        "model": "made-up-model",
        "task": "made-up-task",
        "seed": 7,
        "lr": 0.01,
        "steps": 11,
        "batch_size": 3,
        "quality": {"exact_match": 0.25, "valid_json": 0.875},
        "validation": {"exact_match": 0.5, "valid_json": 0.75, "loss": 1.5},
        "metric": "exact_match",
        "loss": {"train_last": 2.0, "validation": 1.5},
        "n_test": 16,
        "parameters": {"trainable": 1000, "total": 8000, "share": 0.125},
        "bytes": {"delta": 4096, "full_copy": 32768},
        "memory": {"peak_bytes": 300 * 2**20, "training_increase_bytes": 20 * 2**20},
        "seconds": {"load": 1.0, "data": 1.0, "inject": 1.0, "train": 42.0, "evaluate": 3.0, "total": 48.0},
        "tokens_per_s": 123.0,
        "step_s": 0.75,
        "environment": {
            "torch": "t.t", "transformers": "f.f", "deltatune": "d.d", "python": "p.p", "cpu": "made-up CPU",
            "threads": 5, "device": "cpu", "commit": "c0ffee", "dirty": True, "platform": "made-up OS",
        },
        "data": {"sha256": "ab" * 32, "sources": {}, "n_train": 9, "n_val": 8, "n_test": 16},
        "base": "made-up base (no weights)",
    } | changes  # fmt: skip


UNTRAINED = {
    "lr": None,
    "steps": 0,
    "parameters": {"trainable": 0, "total": 8000, "share": 0.0},
    "bytes": {"delta": 0, "full_copy": 32768},
}


def put(folder: Path, result: Any, name: str | None = None) -> Path:
    path = folder / (name or f"made-up-{result['method']}") / "result.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(result if isinstance(result, str) else json.dumps(result))
    return path
