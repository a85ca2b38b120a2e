"""Whether a language model says what follows a token from what stands before, found by running it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from experiments.models.table import ModelError

LENGTH = 16  # tokens that are read at most
SLACK = 8  # roundings, of the dtype, by which equal logits may differ where experts or kernels are chosen anew


@torch.no_grad()
def check_causal(model: Any, ids: Sequence[int], name: str) -> None:
    """Raise ModelError where another last token changes what the model says before it: such a model learns to copy what
    it is to foretell, and writes nothing. ids: those of a row."""
    read = torch.tensor([ids[:LENGTH]], device=model.device)  # (1, T)
    if read.unique().numel() < 2:
        return  # nothing to put in the last one's place
    other = read.clone()
    other[0, -1] = read[read != read[0, -1]][0]
    before, after = (
        model(input_ids=each, attention_mask=torch.ones_like(each)).logits[0, :-1] for each in (read, other)
    )
    bound = SLACK * torch.finfo(before.dtype).eps * before.abs().max()
    if (before - after).abs().max() > bound:
        raise ModelError(
            f"model={name}: {type(model).__name__} reads the tokens after a place too when it says what follows there, "
            "so that it learns to copy and not to write; take a causal language model"
        )
