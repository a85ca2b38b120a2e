"""An encoder under a task head that reads the mean over a text's tokens, which sentence encoders are trained for."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from experiments.models.whole import read


class MeanPooled(PreTrainedModel):
    """W · mean_t encoder(text)_t + b over the tokens t that are no padding (Reimers & Gurevych 2019, Sentence-BERT).

    Shapes: input_ids and attention_mask (B, T); logits (B, outputs).
    """

    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, encoder: Any, n_outputs: int) -> None:
        super().__init__(encoder.config)
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.config.hidden_size, n_outputs, dtype=encoder.dtype)
        self.classifier.weight.data.normal_(std=getattr(encoder.config, "initializer_range", 0.02))
        self.classifier.bias.data.zero_()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **inputs: Any) -> SequenceClassifierOutput:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        # A trained prompt's states stand before the text's: the text is what is read.
        mask = attention_mask[:, -hidden.shape[1] :, None].to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return SequenceClassifierOutput(logits=self.classifier(mean))


def mean_pooled(place: str, described: Any, n_outputs: int, **kind: Any) -> MeanPooled:
    """The encoder at this place, of this configuration, under a new head, drawn from torch's global generator.

    A pooler, which would be read nowhere, is left out where the encoder can be had without.
    """
    return MeanPooled(read(AutoModel, place, **without_pooler(described), **kind), n_outputs)


def skeleton(described: Any) -> MeanPooled:
    """The same without weights; for torch's meta device."""
    return MeanPooled(AutoModel.from_config(described, **without_pooler(described)), described.num_labels)


def without_pooler(described: Any) -> dict[str, bool]:
    with torch.device("meta"):
        chosen = type(AutoModel.from_config(described))
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(chosen.__init__).parameters else {}
