"""The training loop: plain steps of AdamW over batches in a fixed order, resumable after any of them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from deltatune.attention import fast_attention
from experiments.config.schema import OptimConfig
from experiments.data.batch import by_length
from experiments.data.encode import Encoded
from experiments.data.reader import Reader
from experiments.objectives.base import Objective
from experiments.support.files import write_text
from experiments.support.memory import Memory, release
from experiments.support.phase_clock import PhaseClock
from experiments.support.progress import progress
from experiments.training.checkpoint import Checkpoints, State
from experiments.training.curve import Curve
from experiments.training.optimizer import Optimizer, schedule

Order = Callable[[int, int], list[int]]  # the rows of a step's batch, by the step, from 0, and the batch's size


class NotFinite(ArithmeticError):
    """The loss or its gradient became NaN or infinite."""


@dataclass(frozen=True)
class Record:
    """What is kept of a training while it runs, and who is told. metrics: the file of a row a step; curve: when the
    model is scored meanwhile, whose time and memory are not the training's."""

    checkpoints: Checkpoints
    metrics: Path
    memory: Memory
    clock: PhaseClock
    log_every: int
    follow: Callable[[int, dict[str, float]], None]
    curve: Curve = field(default_factory=Curve)


def train(
    reader: Reader,
    objective: Objective,
    optimizer: Optimizer,
    rows: Sequence[Encoded],
    order: Order,
    optim: OptimConfig,
    record: Record,
) -> State:
    """Run, or go on to, the last step; a row of metrics a step, which `record.follow` is told too.

    The clock gets the seconds of the processes before this one, up to their last checkpoint: what a killed process
    did after that is done again. Raises NotFinite naming the step.
    """
    clock = record.clock
    with clock("checkpoint"):
        state = record.checkpoints.restore(optimizer) or State()
        # The rows of a dead process that lie after its last checkpoint are written again.
        write_text(record.metrics, "".join(json.dumps(row) + "\n" for row in state.metrics))
    clock.add(state.seconds)
    peaks = Peaks(record.memory, reader.device, replace(state))
    score(reader, record, state, peaks, optim)
    reader.model.train()
    with record.metrics.open("a") as log, progress("train", optim.steps, record.log_every, state.step) as show:
        while state.step < optim.steps:
            began = time.perf_counter()
            with clock("data"):
                batch = [rows[i] for i in order(state.step, optim.batch_size)]
            loss, n_tokens = accumulate(reader, objective, batch, optim, clock)
            with clock("optimizer", wait=True):
                grad_norm = optimizer.step(state.step)
            check_finite(state.step, loss, grad_norm, optim)
            step_s = time.perf_counter() - began
            row = state.advance(loss, optim.lr * schedule(state.step, optim), grad_norm, n_tokens, step_s)
            with clock("save"):
                log.write(json.dumps(row) + "\n")
                log.flush()
                show(state.step, f"loss {loss:.3f}  {n_tokens / step_s:.0f} tokens/s")
                record.follow(state.step, row)
            score(reader, record, state, peaks, optim)
            if state.step % optim.checkpoint_every == 0 or state.step == optim.steps:
                with clock("checkpoint"):
                    peaks.note(state)
                    state.seconds = clock.seconds()
                    record.checkpoints.save(optimizer, state)
    return state


def check_finite(step: int, loss: float, grad_norm: float, optim: OptimConfig) -> None:
    """Raise NotFinite where the loss of a step, from 0, or its gradient's norm is no finite number."""
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise NotFinite(
            f"step {step + 1}: the loss is {loss}, the gradient's norm {grad_norm}; "
            f"lower optim.lr ({optim.lr:g}) or optim.clip ({optim.clip:g})"
        )


def score(reader: Reader, record: Record, state: State, peaks: Peaks, optim: OptimConfig) -> None:
    """Score the model where a point of the curve is due, and leave it as it was: training, its peaks its own."""
    if not record.curve.due(state):
        return
    peaks.note(state)
    with record.clock("evaluate"):
        record.curve.take(state, optim.batch_size)
    peaks.forget()
    reader.model.train()


@dataclass
class Peaks:
    """The peaks of a training's memory, those of earlier processes of the run included, and no evaluation's."""

    memory: Memory
    device: torch.device
    state: State  # the peaks up to here

    def note(self, state: State) -> None:
        """Write the peaks up to now into the state."""
        held = self.state
        held.peak_bytes = max(held.peak_bytes, self.memory.since_begin())
        held.increase_bytes = max(held.increase_bytes, self.memory.increase_bytes())
        if self.device.type == "cuda":
            held.device_peak_bytes = max(held.device_peak_bytes, torch.cuda.max_memory_allocated(self.device))
        state.peak_bytes, state.increase_bytes = held.peak_bytes, held.increase_bytes
        state.device_peak_bytes = held.device_peak_bytes

    def forget(self) -> None:
        """Leave out what memory an evaluation has used since the last note."""
        release()
        self.memory.begin(self.memory.start)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)


def accumulate(
    reader: Reader, objective: Objective, rows: Sequence[Encoded], optim: OptimConfig, clock: PhaseClock
) -> tuple[float, int]:
    """Gradients of the mean loss over all units of the rows, in micro-batches; that loss, and the real tokens.

    Each micro-batch's summed loss is divided by the units of the whole, so the sizes do not matter. On a CPU, where
    padding costs what tokens cost, a batch of very different lengths is cut unless optim.micro_batch says how.
    """
    with clock("data"):
        if optim.micro_batch is None and reader.device.type == "cpu":
            groups = by_length(rows)
        else:
            size = optim.micro_batch or len(rows)
            groups = [list(rows[i : i + size]) for i in range(0, len(rows), size)]
        micro_batches = [objective.collate(group, reader.device) for group in groups]
        n_units = sum(objective.n_units(batch) for batch in micro_batches)
        n_tokens = sum(batch.n_tokens for batch in micro_batches)
    if not n_units:
        raise ValueError(
            f"a batch of {len(rows)} examples has nothing to learn: no token of it has a label; look at what the "
            f"objective {type(objective).__name__} makes of them, or raise optim.batch_size"
        )
    loss = 0.0
    with fast_attention():  # every method's step, and full fine-tuning's, is computed with it
        for batch in micro_batches:
            with clock("forward", wait=True):
                share = objective.loss_sum(reader.model, batch) / n_units
            with clock("backward"):
                share.backward()
                loss += share.item()  # waits for the device
    return loss, n_tokens
