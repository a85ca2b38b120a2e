"""Every architecture of the installed transformers, by its own configuration and model classes."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import nn
from transformers import GenerationMixin
from transformers.models.auto import configuration_auto, modeling_auto

from tests.certify.architectures import LARGEST, Architecture, CannotBuild, Subject, checked, roughened, run
from tests.certify.batches import candidates
from tests.certify.shrink import RECIPES, tiny

# The task whose class stands for an architecture, the first that it has; a bare backbone where it has none of them.
TASKS = (
    "SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM", "MASKED_LM", "CTC",
    "ZERO_SHOT_IMAGE_CLASSIFICATION", "IMAGE_CLASSIFICATION", "AUDIO_CLASSIFICATION", "VIDEO_CLASSIFICATION",
    "OBJECT_DETECTION", "SEMANTIC_SEGMENTATION", "UNIVERSAL_SEGMENTATION", "DEPTH_ESTIMATION",
    "SEQUENCE_CLASSIFICATION", "PRETRAINING",
)  # fmt: skip


def mapping(task: str) -> dict[str, Any]:
    return getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {})


def class_names() -> Iterator[tuple[str, str, str]]:
    """(architecture, configuration's class, model's class); classifiers of encoder-decoders besides their own task."""
    bare = modeling_auto.MODEL_MAPPING_NAMES
    rest = [n for n in dir(modeling_auto) if n.startswith("MODEL_FOR_") and n.endswith("_MAPPING_NAMES")]
    for kind, config in configuration_auto.CONFIG_MAPPING_NAMES.items():
        tables = [mapping(task) for task in TASKS] + [getattr(modeling_auto, n) for n in rest] + [bare]
        chosen = next((table[kind] for table in tables if kind in table), None)
        if chosen is not None:
            yield kind, config, chosen if isinstance(chosen, str) else chosen[0]
        other = mapping("SEQUENCE_CLASSIFICATION").get(kind)
        if other is not None and kind in mapping("SEQ_TO_SEQ_CAUSAL_LM"):
            yield f"{kind}:classifier", config, other


def architectures() -> list[Architecture]:
    return [
        Architecture(name, "transformers", functools.partial(make, config, model))
        for name, config, model in class_names()
    ]


def make(config_name: str, model_name: str) -> Subject:
    """The first recipe and batch that give a tiny model that runs. Raises CannotBuild."""
    try:
        config_class, model_class = getattr(transformers, config_name), getattr(transformers, model_name)
    except (AttributeError, ImportError) as error:
        raise CannotBuild(str(error)) from None
    reasons = []
    for recipe in RECIPES:
        reason = ""
        try:
            model = built(config_class, model_class, recipe)
            for batch in candidates(model):
                try:
                    return with_batch(model, batch)
                except Exception as error:
                    reason = reason or f"{type(error).__name__}: {error} on {', '.join(batch)}"
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        reasons.append(" ".join((reason or "no batch was offered").split()))
    raise CannotBuild(reasons[0])


def built(config_class: Any, model_class: Any, recipe: Any) -> nn.Module:
    """The model that a recipe gives; on the meta device first, which tells whether it is small."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = tiny(config_class, recipe)
        try:
            with torch.device("meta"):
                size = sum(p.numel() for p in model_class(config).parameters())
        except (NotImplementedError, RuntimeError):  # some read numbers while they are built
            size = 0
        if size > LARGEST:
            raise CannotBuild(f"{size:,} parameters")
        if getattr(config, "is_encoder_decoder", False) and getattr(config, "decoder_start_token_id", None) is None:
            config.decoder_start_token_id = 0  # some checkpoints alone say it
        torch.manual_seed(7)
        return roughened(model_class(config))


def with_batch(model: nn.Module, batch: dict[str, Any]) -> Subject:
    """The subject of this model and batch, without a cache where the model keeps one unasked."""
    config = model.config
    for part in (config, *vars(config).values()):
        if hasattr(part, "use_cache"):
            part.use_cache = False
    with torch.no_grad():
        run(model, batch)
    generates = isinstance(model, GenerationMixin) and model.can_generate() and "input_ids" in batch
    return checked(Subject(model, batch, generates=generates))
