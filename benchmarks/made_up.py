"""Result files of no real run: every number and most names in them are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from experiments import ROOT
from experiments.store.result import (
    Bytes,
    Change,
    Complete,
    Corpus,
    Cost,
    Data,
    Environment,
    Failed,
    Flops,
    Forgetting,
    Loss,
    MemoryPeaks,
    OtherTask,
    Parameters,
    Perplexity,
    Seconds,
    Seeds,
    Spectra,
    Speed,
    plain,
)  # fmt: skip

COMPLETE = Complete(
    status="complete",
    error=None,
    failure_kind=None,
    config={
        "method": {"name": "fable"},
        "optim": {"lr": 0.01},
        "eval": {"batch_size": 5},
        "model": {"path": str(ROOT / "nowhere")},
    },
    key="0123456789ab",
    sources_sha256="fedcba9876543210",
    method="fable",
    model="made-up-model",
    task="made-up-task",
    seed=7,
    lr=0.01,
    steps=11,
    batch_size=3,
    metric="exact_match",
    quality={"exact_match": 0.25, "valid_json": 0.875},
    quality_by_part={
        "north": {"exact_match": 0.5, "valid_json": 1.0},
        "south": {"exact_match": 0.0, "valid_json": 0.75},
    },
    scores=(1.0, 0.0, 0.0, 0.0) * 4,
    validation={"exact_match": 0.5, "valid_json": 0.75, "loss": 1.5},
    loss=Loss(train_last=2.0, validation=1.5),
    n_test=16,
    parameters=Parameters(trainable=1000, added=900, total=8000, share=0.125),
    bytes=Bytes(delta=4096, full_copy=32768),
    memory=MemoryPeaks(
        peak_bytes=300 * 2**20, training_peak_bytes=290 * 2**20, training_increase_bytes=20 * 2**20
    ),
    seconds=Seconds(
        data=1.0, load=1.0, inject=1.0, forward=12.0, backward=24.0, optimizer=6.0, checkpoint=0.5, save=0.25,
        evaluate=3.0, forgetting=2.0, cost=1.0, other=0.25, total=52.0,
    ),
    tokens_per_s=123.0,
    step_s=0.75,
    flops=Flops(train=6e9, per_token=16000.0),
    ceiling=1.0,
    seeds=Seeds(init=1, order=1, dropout=1, data=1),
    cost=Cost(switch_s=0.125, generate_tokens_per_s=Speed(unmerged=30.0, merged=40.0)),
    forgetting=Forgetting(
        text_perplexity=Perplexity(before=20.0, after=25.0),
        kl_per_token=0.0625,
        feature_drift=None,
        tasks={"made-up-other": OtherTask(before=0.5, after=0.375, metric="accuracy", n_examples=8)},
        corpora={
            "made-up-text": Corpus(
                sha256="cd" * 32, text_perplexity=Perplexity(before=20.0, after=25.0), kl_per_token=0.0625,
                n_texts=4, n_text_tokens=400, n_written=4, n_written_tokens=40,
            )
        },
        n_texts=4,
        n_text_tokens=400,
        n_written=4,
        n_written_tokens=40,
        reason=None,
    ),
    environment=Environment(
        torch="t.t", transformers="f.f", deltatune="d.d", python="p.p", cpu="made-up CPU", threads=5, device="cpu",
        commit="c0ffee", dirty=True, platform="made-up OS",
    ),
    data=Data(
        sha256="ab" * 32, test_sha256="ab" * 32, sources={}, n_train=9, n_pool=18,
        n_val=8, n_test=16, n_truncated=0, n_turns_cut=0, n_sentences_cut=0,
        checks={"duplicates": 0},
        replay=None,
    ),
    spectra=Spectra(
        top=10, cosine=0.5, reason=None,
        sites={"made_up": Change(n_weights=2, norm=0.25, rank=4, stable_rank=2, effective_rank=3, intruders=1)},
        all=Change(n_weights=2, norm=0.25, rank=4, stable_rank=2, effective_rank=3, intruders=1),
    ),
    base="made-up base (no weights)",
)  # fmt: skip


def made_up(method: str = "fable", **changes: Any) -> dict[str, Any]:
    """What stands in a complete result file of no real run; changes: of its outer keys."""
    content = plain(COMPLETE)
    content |= {"method": method, "config": content["config"] | {"method": {"name": method}}} | changes
    if "loss" not in changes:
        content["loss"]["validation"] = content["validation"].get("loss", content["loss"]["validation"])
    return content


def made_up_result(method: str = "fable", **changes: Any) -> Complete:
    """The same as it is read."""
    return msgspec.convert(made_up(method, **changes), Complete)


def made_up_failure(method: str = "fable", error: str = "made-up failure", **changes: Any) -> Failed:
    """The result of a run that failed."""
    return msgspec.convert(made_up(method, **{"status": "failed", "error": error, **changes}), Failed)


UNTRAINED = {
    "lr": None,
    "steps": 0,
    "loss": {"train_last": None, "validation": 1.5},
    "parameters": {"trainable": 0, "added": 0, "total": 8000, "share": 0.0},
    "bytes": {"delta": 0, "full_copy": 32768},
    "cost": {"switch_s": None, "generate_tokens_per_s": {"unmerged": 40.0, "merged": None}},
    "forgetting": None,
}


def put(folder: Path, result: Any, name: str | None = None) -> Path:
    path = folder / (name or f"made-up-{result['method']}") / "result.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(result if isinstance(result, str) else json.dumps(result))
    return path
