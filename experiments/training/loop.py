"""The training loop: plain steps of AdamW over batches in a fixed order, resumable after any of them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from deltatune.attention import fast_attention
from experiments.config.schema import OptimConfig
from experiments.data.encode import Row, by_length, collate
from experiments.support.files import write_text
from experiments.support.memory import Memory
from experiments.support.phase_clock import Ledger
from experiments.support.progress import progress
from experiments.training.checkpoint import Checkpoints, State
from experiments.training.loss import loss_sum
from experiments.training.optimizer import Optimizer, learning_rate


class NotFinite(ArithmeticError):
    """The loss or its gradient became NaN or infinite."""


def train(
    model: nn.Module,
    optimizer: Optimizer,
    rows: Sequence[Row],
    order: Callable[[int, int], list[int]],
    optim: OptimConfig,
    *,
    pad: int,
    device: torch.device,
    checkpoints: Checkpoints,
    metrics: Path,
    memory: Memory,
    ledger: Ledger,
    log_every: int,
    follow: Callable[[int, dict[str, float]], None],
) -> State:
    """Run, or go on to, the last step; a row of metrics a step, which `follow` is told too.

    order: the rows of a step's batch, by the step, from 0, and the batch's size.

    The ledger gets the seconds of the processes before this one, up to their last checkpoint: what a killed process
    did after that is done again. Raises NotFinite naming the step.
    """
    with ledger("checkpoint"):
        state = checkpoints.restore(optimizer) or State()
        # The rows of a dead process that lie after its last checkpoint are written again.
        write_text(metrics, "".join(json.dumps(row) + "\n" for row in state.metrics))
    ledger.add(state.seconds)
    earlier = replace(state)
    model.train()
    with metrics.open("a") as log, progress("train", optim.steps, log_every, state.step) as show:
        while state.step < optim.steps:
            began = time.perf_counter()
            with ledger("data"):
                chosen = [rows[i] for i in order(state.step, optim.batch_size)]
            loss, n_tokens = accumulate(model, chosen, optim, pad, device, ledger)
            with ledger("optimizer", wait=True):
                grad_norm = optimizer.step(state.step)
            if not (math.isfinite(loss) and math.isfinite(grad_norm)):
                raise NotFinite(
                    f"step {state.step + 1}: the loss is {loss}, the gradient's norm {grad_norm}; "
                    f"lower optim.lr ({optim.lr:g}) or optim.clip ({optim.clip:g})"
                )
            lr = learning_rate(state.step, optim)
            state.step += 1
            state.tokens += n_tokens
            step_s = time.perf_counter() - began
            state.wall_s += step_s
            row = {
                "step": state.step,
                "loss": loss,
                "lr": lr,
                "grad_norm": grad_norm,
                "tokens": state.tokens,
                "wall_s": state.wall_s,
            }
            state.metrics.append(row)
            with ledger("save"):
                log.write(json.dumps(row) + "\n")
                log.flush()
                show(state.step, f"loss {loss:.3f}  {n_tokens / step_s:.0f} tokens/s")
                follow(state.step, row)
            if state.step % optim.checkpoint_every == 0 or state.step == optim.steps:
                with ledger("checkpoint"):
                    state.peak_bytes = max(earlier.peak_bytes, memory.since_begin())
                    state.increase_bytes = max(earlier.increase_bytes, memory.increase_bytes())
                    if device.type == "cuda":
                        peak_bytes = torch.cuda.max_memory_allocated(device)
                        state.device_peak_bytes = max(earlier.device_peak_bytes, peak_bytes)
                    state.seconds = ledger.seconds()
                    checkpoints.save(optimizer, state)
    return state


def accumulate(
    model: nn.Module,
    rows: Sequence[Row],
    optim: OptimConfig,
    pad: int,
    device: torch.device,
    ledger: Ledger,
) -> tuple[float, int]:
    """Gradients of the mean loss over all labelled tokens of the rows, in parts; that loss, and the real tokens.

    Each part's summed loss is divided by the labels of the whole, so the parts' sizes do not matter. On a CPU, where
    padding costs what tokens cost, a batch of very different lengths is cut in parts unless micro_batch says how.
    """
    with ledger("data"):
        if optim.micro_batch is None and device.type == "cpu":
            chosen = by_length(rows)
        else:
            size = optim.micro_batch or len(rows)
            chosen = [rows[i : i + size] for i in range(0, len(rows), size)]
        parts = [collate(part, pad, device) for part in chosen]
        n_labelled = sum(part.n_labelled for part in parts)
        n_tokens = sum(part.n_tokens for part in parts)
    loss = 0.0
    with fast_attention():  # for every method alike
        for part in parts:
            with ledger("forward", wait=True):
                share = loss_sum(model, part) / n_labelled
            with ledger("backward"):
                share.backward()
                loss += share.item()  # waits for the device
    return loss, n_tokens
