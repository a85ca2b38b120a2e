"""The cross-entropy of a batch, in fp32, as a sum over labelled positions, so that parts of a batch add up exactly.

Legend: B rows, T tokens, D width, V vocabulary or classes, M labelled positions.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from experiments.batches import IGNORED, Batch


def loss_sum(model: nn.Module, batch: Batch) -> Tensor:
    """The summed loss of the batch; divide by its `n_labelled` for the mean."""
    if batch.labels.dim() == 1:
        logits, targets = model(**batch.inputs).logits, batch.labels
    else:
        logits, targets = labelled_logits(model, batch)
    return F.cross_entropy(logits.float(), targets, reduction="sum")


def labelled_logits(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (M, V) at the positions whose next token is labelled, and those tokens (M,).

    The output head, a large share of a small model's step, works on each position alone; so the rows of its input
    that have no label are dropped before it, and what the model does to the logits after it stays its own. Where the
    head is not called as a module, all logits come back and the rows are chosen from them.
    """
    wanted = F.pad(batch.labels[:, 1:] != IGNORED, (0, 1))  # (B, T)
    targets = batch.labels.roll(-1, dims=1)[wanted]

    def keep(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0]  # (B, T, D)
        return (hidden[wanted][None], *args[1:]) if hidden.shape[:2] == wanted.shape else args

    head = model.get_output_embeddings()  # type: ignore[operator]
    with head.register_forward_pre_hook(keep):
        logits = model(**batch.inputs, use_cache=False).logits
    # (1, M, V) has M < B·T: the last position is never labelled.
    return (logits[wanted] if logits.shape[:2] == wanted.shape else logits[0]), targets
