"""How many places a model has for the tokens of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Positions:
    """The positions of a model that has a last one. fixed: each is a row of a table, so that none lies beyond."""

    n: int
    fixed: bool


def positions_of(model: Any) -> Positions | None:
    """How many places a row may have, by the configuration, where the model has a table of them or turns by them
    (RoPE); None where nothing bounds it, as with biases of the distance."""
    described = model.config.get_text_config()
    n = getattr(described, "max_position_embeddings", None)
    if n is None and isinstance(biases := getattr(described, "max_seq_len", None), int):
        return Positions(biases, fixed=True)  # MPT's table of biases by distance
    if not isinstance(n, int) or n < 1:
        return None
    # A table may have rows that are no place: those up to the padding's, or two that stand before all.
    words = word_table(model)
    spent = [
        0 if module.padding_idx is None or module.num_embeddings > n else module.padding_idx + 1
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module is not words and n <= module.num_embeddings <= n + 2
    ]
    if spent or any(buffer.dim() > 1 and buffer.shape[0] == n for buffer in model.buffers()):
        return Positions(n - max(spent, default=0), fixed=True)
    turned = getattr(described, "rope_parameters", None) or getattr(described, "rope_theta", None)
    return Positions(n, fixed=False) if turned else None


def word_table(model: Any) -> Any:
    """The embedding of the tokens; None where a model, as one of hashed characters, has none."""
    try:
        return model.get_input_embeddings()
    except NotImplementedError:
        return None
