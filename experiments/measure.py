"""The work of one run, and what is measured of it: the part of result.json that was not known before."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments import cost, forgetting
from experiments.batches import Encoder, Row
from experiments.checkpoint import Checkpoints, State
from experiments.config import Config, Dtype, key
from experiments.evaluate import answers, mean_loss
from experiments.ledger import Ledger
from experiments.memory import Memory, release, resident_bytes
from experiments.models import load_model
from experiments.optimizer import Optimizer, groups
from experiments.prepare import checkpoint_activations, prepare
from experiments.saved import file_of, save, write_predictions
from experiments.tasks import TaskData, load_task
from experiments.train import NotFinite, train

CHECKPOINTS = "checkpoints"
DTYPES = {Dtype.bf16: torch.bfloat16, Dtype.fp32: torch.float32}


def measured(config: Config, directory: Path, device: torch.device, ledger: Ledger) -> dict[str, Any]:
    """Carry the run out, or what is left of it."""
    memory = Memory()
    try:
        return _measured(config, directory, device, ledger, memory)
    finally:
        memory.end()


def _measured(
    config: Config, directory: Path, device: torch.device, ledger: Ledger, memory: Memory
) -> dict[str, Any]:
    with ledger("data"):
        data = load_task(config.task, seed=config.task.seed)
        parts = {"train": data.train, "val": data.val, "test": data.test}
        if empty := [part for part, examples in parts.items() if not examples]:
            raise ValueError(f"task={data.name} has no examples in {', '.join(empty)}; give it some, or raise task.n_*")
    with ledger("load"):
        loaded = load_model(config.model, dtype=DTYPES[config.model.dtype], device=device, labels=data.labels)
        model = loaded.model
        model.requires_grad_(False)
        for p in model.parameters():  # so that weights mapped from a file are in memory before training is measured
            p.sum()
    total = sum(p.numel() for p in model.parameters())
    full_copy_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    loaded_bytes = resident_bytes()
    with ledger("forgetting"):
        base = None
        if config.forgetting.enabled:
            plain = Encoder(loaded.tokenizer, config.optim.max_length, data.labels)
            base = forgetting.before(config, model, plain, device)
    with ledger("inject"):
        encoder = prepare(config, loaded, data, device)
        trained = [p for p in model.parameters() if p.requires_grad]
    with ledger("data"):
        rows = {part: encoder.rows(examples) for part, examples in parts.items()}
    state = State()
    if trained:
        checkpoints = Checkpoints(directory / CHECKPOINTS, f"{key(config)}-{data.sha256[:16]}")
        state = trained_state(config, directory, model, encoder, rows["train"], checkpoints, memory, loaded_bytes, ledger, device)
    with ledger("save"):
        delta_bytes = save(config, directory, model)
    with ledger("evaluate"):
        loss = mean_loss(model, rows["val"], encoder.pad, config.eval.batch_size, device)
        if not math.isfinite(loss):
            raise NotFinite(f"after the training the validation loss is {loss}; lower optim.lr ({config.optim.lr:g})")
        said = answers(model, encoder, rows["val"], config.eval, device, config.log_every)
        validation = data.score(data.val, said).means | {"loss": loss}
        said = answers(model, encoder, rows["test"], config.eval, device, config.log_every)
        scores = data.score(data.test, said)
        by_part = data.by_part(data.test, said)
    with ledger("save"):
        write_predictions(directory / "predictions.jsonl", data.test, said, scores)
    with ledger("forgetting"):
        known = {data.sha256: scores.each}
        forgot = forgetting.after(config, base, model, encoder, device, known) if base else None
    with ledger("cost"):
        use = costs(config, directory, model, encoder, rows, device)
        flops = cost.flops(model, encoder, rows["train"], state.tokens, device)
    n_trainable = sum(p.numel() for p in trained)
    return {
        "metric": data.metric,
        "quality": scores.means,
        "quality_by_part": by_part,
        "scores": scores.each,
        "validation": validation,
        "loss": {"train_last": state.metrics[-1]["loss"] if state.metrics else None, "validation": loss},
        "n_test": len(data.test),
        "parameters": {
            "trainable": n_trainable,
            "added": sum(p.numel() for p in model.parameters()) - total,
            "total": total,
            "share": n_trainable / total,
        },
        "bytes": {"delta": delta_bytes, "full_copy": full_copy_bytes},
        "memory": {
            "peak_bytes": max(memory.peak_bytes(), state.peak_bytes),
            "training_peak_bytes": state.peak_bytes,
            "training_increase_bytes": state.increase_bytes,
            "device_peak_bytes": state.device_peak_bytes if device.type == "cuda" else None,
        },
        "tokens_per_s": state.tokens / state.wall_s if state.wall_s else 0.0,
        "step_s": median_step_s(state),
        "flops": flops,
        "cost": use,
        "forgetting": forgot,
        "data": {
            "sha256": data.sha256,
            "sources": data.sources,
            "n_train": len(data.train),
            "n_val": len(data.val),
            "n_test": len(data.test),
            "n_truncated": sum(row.truncated for part in rows.values() for row in part),
            "checks": {},
            "replay": None,
        },
        "base": loaded.source,
        "seconds": ledger.seconds(),
    }
