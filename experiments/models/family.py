"""The family of a model, by transformers' own mapping of tasks from configurations to classes."""

from __future__ import annotations

from typing import Any

from experiments.config.family import Family
from experiments.models.table import ModelError


def family_of(described: Any) -> Family:
    """The family of a configuration of transformers.

    One whose kind fills gaps in a text (masked language modelling) is an encoder, also where it could be made a
    decoder, unless it says that it is one. Raises ModelError for a model of something other than text.
    """
    from transformers.models.auto import modeling_auto as auto

    kind = described.model_type

    def maps(task: str) -> bool:
        return kind in getattr(auto, f"MODEL_FOR_{task}_MAPPING_NAMES")

    if getattr(described, "is_encoder_decoder", False):
        if maps("SEQ_TO_SEQ_CAUSAL_LM"):
            return Family.encoder_decoder
    elif maps("MASKED_LM") and not getattr(described, "is_decoder", False):
        return Family.encoder
    elif maps("CAUSAL_LM") or type(described) in registered("AutoModelForCausalLM"):
        return Family.decoder
    elif maps("SEQUENCE_CLASSIFICATION") or type(described) in registered("AutoModelForSequenceClassification"):
        return Family.encoder
    raise ModelError(
        f"{type(described).__name__} (model_type {kind!r}) reads and writes no text that is known how to learn: "
        "transformers maps it to no causal, masked or sequence-to-sequence language model and to no classifier of texts"
    )


def registered(auto: str) -> list[type]:
    """The configurations that a module of one's own has registered with one of transformers' automatic classes."""
    import transformers

    return list(getattr(transformers, auto)._model_mapping._extra_content)
