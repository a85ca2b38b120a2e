"""A model that can be asked: with the encoder that fits it and the device it lies on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from experiments.config.family import Family
from experiments.data.encode import Encoder


@dataclass(frozen=True)
class Reader:
    """A model, what turns texts into its tokens, and where it computes."""

    model: nn.Module
    encoder: Encoder
    device: torch.device

    @property
    def writes(self) -> bool:
        """Whether the model predicts tokens; one that ends in a task head does not."""
        return self.model.get_output_embeddings() is not None  # type: ignore[operator]

    @property
    def family(self) -> Family:
        """What the model reads and writes."""
        if not self.writes:
            return Family.encoder
        both = getattr(self.model.config, "is_encoder_decoder", False)
        return Family.encoder_decoder if both else Family.decoder
