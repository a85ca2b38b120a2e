"""What a trained task costs to use: the time to switch to it, the speed of generation; and its training, in FLOPs."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import deltatune as dt
from experiments.config.family import Family
from experiments.config.schema import Trains
from experiments.data.encode import Encoded
from experiments.data.reader import Reader
from experiments.models.positions import positions_of
from experiments.models.weights import NAME, load_in_place
from experiments.objectives.base import Objective
from experiments.objectives.generation import written

PROMPTS, TOKENS = 4, 16  # what is generated to take the speed
SWITCHES = 5  # the median of so many


def switch_s(model: nn.Module, trains: Trains, file: Path | None, device: torch.device) -> float | None:
    """Seconds to make the task live in a model that holds the base: the median of a few.

    A delta lies beside the base and is switched on; after full fine-tuning every weight comes from the file, which the
    system has in its cache. None where nothing was trained.
    """
    if file is None:
        return None
    found = []
    for _ in range(SWITCHES):
        if trains is Trains.deltas:
            dt.use(model)
        found.append(timed(lambda: _switch(model, trains, file), device))
    return statistics.median(found)


def _switch(model: nn.Module, trains: Trains, file: Path) -> None:
    if trains is Trains.deltas:
        dt.use(model, NAME)
    else:
        load_in_place(model, file)


def generate_tokens_per_s(reader: Reader, trains: Trains, rows: Sequence[Encoded]) -> dict[str, float | None]:
    """New tokens a second over a small batch of prompts, as the model is and with the delta merged into its weights.

    None for a model that writes no text, and for "merged" where the method has no merged form.
    """
    if not reader.writes:
        return {"unmerged": None, "merged": None}
    prompts = [row.prompt for row in rows[:PROMPTS]]
    written(reader, prompts, 1)  # what happens on a first call alone
    unmerged = speed(reader, prompts)
    if trains is not Trains.deltas:
        return {"unmerged": unmerged, "merged": unmerged}  # it has no other form
    try:
        with dt.merged(reader.model, NAME):
            return {"unmerged": unmerged, "merged": speed(reader, prompts)}
    except dt.NotFoldable:
        return {"unmerged": unmerged, "merged": None}


def speed(reader: Reader, prompts: Sequence[list[int]]) -> float:
    """New tokens a second; fewer of them where the model has no more places."""
    positions = positions_of(reader.model)
    apart = reader.family is Family.encoder_decoder
    room = positions.n - (1 if apart else max(map(len, prompts))) if positions and positions.fixed else TOKENS
    n_tokens = max(1, min(TOKENS, room))
    return len(prompts) * n_tokens / timed(lambda: written(reader, prompts, n_tokens), reader.device)


def flops(objective: Objective, reader: Reader, rows: Sequence[Encoded], n_tokens: int) -> dict[str, Any]:
    """Floating-point operations of a training step a token, and of the training's n_tokens.

    Counted by torch's flop counter, a multiply-add as two, on forward and backward of the training example of median
    length, with plain attention and deltatune's fused kernels off, since it cannot see into those. Only matrix products
    count; what is computed twice, as in gradient checkpointing, counts twice. Without anything to train: a forward.
    """
    row = sorted(rows, key=lambda r: r.n_tokens)[len(rows) // 2]
    model, device = reader.model, reader.device
    batch = objective.collate([row], device)
    trained = [p for p in model.parameters() if p.requires_grad]
    model.train(bool(trained))
    cuda = [device] if device.type == "cuda" else []
    counter = FlopCounterMode(display=False)
    with plain_kernels(), torch.random.fork_rng(cuda), sdpa_kernel(SDPBackend.MATH), counter:
        with torch.set_grad_enabled(bool(trained)):
            loss = objective.loss_sum(model, batch)
        if trained:
            torch.autograd.grad(loss, trained, allow_unused=True)
    model.eval()
    per_token = counter.get_total_flops() / row.n_tokens
    return {"train": per_token * n_tokens, "per_token": per_token}


@contextmanager
def plain_kernels() -> Iterator[None]:
    """torch's own operators alone."""
    before = os.environ.get("DELTATUNE_KERNELS")
    os.environ["DELTATUNE_KERNELS"] = "off"
    try:
        yield
    finally:
        if before is None:
            del os.environ["DELTATUNE_KERNELS"]
        else:
            os.environ["DELTATUNE_KERNELS"] = before


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds that the work takes, the device's share of it included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
