"""The cross-entropy of labelled tokens, in fp32, as a sum, so that parts of a batch add up exactly.

Legend: B rows, T tokens, D width, V vocabulary, M labelled positions.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltatune.loss import linear_cross_entropy
from experiments.data.batch import IGNORED, Batch

ENDS_WITH_HEAD: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def token_loss_sum(model: nn.Module, batch: Batch) -> Tensor:
    """−Σ log p of the labelled tokens; the logits of other positions are not computed."""
    wanted = F.pad(batch.labels[:, 1:] != IGNORED, (0, 1))  # (B, T)
    targets = batch.labels.roll(-1, dims=1)[wanted]
    head = model.get_output_embeddings()  # type: ignore[operator]
    if ends_with_head(model, head, batch):
        return linear_cross_entropy(labelled_hidden(model, head, batch, wanted), head.weight, targets, head.bias)
    return F.cross_entropy(labelled_logits(model, head, batch, wanted).float(), targets, reduction="sum")


def token_losses(model: nn.Module, batch: Batch) -> Tensor:
    """The loss of every labelled token, (M,), row by row."""
    wanted = F.pad(batch.labels[:, 1:] != IGNORED, (0, 1))
    targets = batch.labels.roll(-1, dims=1)[wanted]
    head = model.get_output_embeddings()  # type: ignore[operator]
    return F.cross_entropy(labelled_logits(model, head, batch, wanted).float(), targets, reduction="none")


def ends_with_head(model: nn.Module, head: nn.Module, batch: Batch) -> bool:
    """Whether the logits are a plain linear layer's output as it is, found out on one token, once a model.

    Some models scale or cap the logits after the head; a head that carries a delta is no plain layer.
    """
    if type(head).forward is not nn.Linear.forward or head.weight.dtype != next(model.parameters()).dtype:
        return False
    if model not in ENDS_WITH_HEAD:
        outputs: list[Tensor] = []
        one = {name: value[:1, :1] for name, value in batch.inputs.items()}
        on_cuda = [batch.labels.device] if batch.labels.is_cuda else []
        # Dropout may draw in this forward; the training's random numbers must not depend on it.
        hook = head.register_forward_hook(lambda *call: outputs.append(call[2]))
        with hook, torch.random.fork_rng(on_cuda), torch.no_grad():
            logits = model(**one, use_cache=False).logits
        ENDS_WITH_HEAD[model] = len(outputs) == 1 and torch.equal(outputs[0], logits)
    return ENDS_WITH_HEAD[model]


def labelled_hidden(model: nn.Module, head: nn.Module, batch: Batch, wanted: Tensor) -> Tensor:
    """The head's input at the wanted positions, (M, D); the head itself sees one position only."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        kept.append(args[0][wanted])  # the input is (B, T, D)
        return (args[0][:1, :1].detach(),)

    with head.register_forward_pre_hook(keep):
        model(**batch.inputs, use_cache=False)
    return kept[0]


def labelled_logits(model: nn.Module, head: nn.Module, batch: Batch, wanted: Tensor) -> Tensor:
    """Logits (M, V) at the wanted positions, of any model.

    The output head works on each position alone; so the rows of its input that have no label are dropped before it,
    and what the model does to the logits after it stays its own. Where the head is not called as a module, all
    logits come back and the rows are chosen from them.
    """

    def keep(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0]  # (B, T, D)
        return (hidden[wanted][None], *args[1:]) if hidden.shape[:2] == wanted.shape else args

    with head.register_forward_pre_hook(keep):
        logits = model(**batch.inputs, use_cache=False).logits
    # (1, M, V) has M < B·T: the last position is never labelled.
    return logits[wanted] if logits.shape[:2] == wanted.shape else logits[0]
