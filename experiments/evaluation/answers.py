"""What a model is worth on a set of examples: its loss, and its answers, whatever its objective."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from experiments.config.schema import EvalConfig
from experiments.data.encode import Encoded
from experiments.data.reader import Reader
from experiments.objectives.base import Objective
from experiments.support.progress import progress


@torch.no_grad()
def mean_loss(objective: Objective, reader: Reader, rows: Sequence[Encoded], batch_size: int) -> float:
    """The loss a unit: a labelled token, or a row where a task head tells one thing of each."""
    reader.model.eval()
    batches = [objective.collate([rows[i] for i in part], reader.device) for part in parts(rows, batch_size)]
    total = sum(objective.loss_sum(reader.model, batch).item() for batch in batches)
    if not (n_units := sum(objective.n_units(batch) for batch in batches)):
        raise ValueError(f"{len(rows)} examples have nothing to learn: no token of theirs has a label")
    return total / n_units


@torch.no_grad()
def answers(
    objective: Objective, reader: Reader, rows: Sequence[Encoded], config: EvalConfig, log_every: int
) -> list[str]:
    """What the model answers to each row, in their order."""
    reader.model.eval()
    texts = [""] * len(rows)
    done = 0
    with progress("evaluate", len(rows), max(log_every, config.batch_size * 4)) as show:
        for part in parts(rows, config.batch_size):
            answered = objective.answers(reader, [rows[i] for i in part], config.max_new_tokens)
            for i, text in zip(part, answered, strict=True):
                texts[i] = text
            done += len(part)
            show(done, "")
    return texts


def parts(rows: Sequence[Encoded], size: int) -> Iterator[list[int]]:
    """Indices in batches, shortest prompts first, so that a batch holds little padding."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].prompt), i))
    for start in range(0, len(order), size):
        yield order[start : start + size]
