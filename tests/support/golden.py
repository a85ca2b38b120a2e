"""Runs whose numbers are kept: a change of code that moves them is a decision, and not an accident.

    python -m tests.support.golden

measures them again and writes golden.json, where the numbers are meant to change; say why in the commit.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tests.support.runs import config, directory, metrics, run

FILE = Path(__file__).with_name("golden.json")
SMALL = ("optim=quick", "optim.steps=6", "device=cpu", "threads=1", "model.dtype=fp32", "eval.points=2")
DATA = ("task.n_train=60", "task.n_val=12", "task.n_test=12", "forgetting.n_text=2", "forgetting.n_kl=1")
TINY = ("model=tiny", "task=ha_json", *SMALL, *DATA)
MINILM = ("model=minilm", "task=ha_intent", *SMALL, *DATA)
RUNS = {
    "tiny lora": (*TINY, "method=lora"),
    "tiny full": (*TINY, "method=full"),
    "tiny prefix": (*TINY, "method=prefix"),
    "minilm lora": (*MINILM, "method=lora"),
    "minilm head": (*MINILM, "method=head"),
}


def numbers(name: str, folder: Path, *more: str) -> dict[str, Any]:
    """What is kept of a run: every step's loss and gradient, the curve, and the losses after it."""
    made = config(*RUNS[name], f"out={folder}", *more)
    result = run(made)
    rows = metrics(directory(made))
    forgotten = result["forgetting"]
    perplexity = forgotten["text_perplexity"] or {}
    return {
        "data": result["data"]["sha256"],
        "loss": [row["loss"] for row in rows],
        "grad_norm": [row["grad_norm"] for row in rows],
        "curve": [point["loss"] for point in result["curve"]],
        "validation": result["validation"]["loss"],
        "probes": [
            *(forgotten[name] for name in ("kl_per_token", "feature_drift") if forgotten[name] is not None),
            *perplexity.values(),
        ],
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        kept = {name: numbers(name, Path(folder)) for name in RUNS}
    FILE.write_text(json.dumps(kept, indent=1) + "\n")
    print(FILE)
