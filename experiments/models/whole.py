"""Checkpoints that are read whole: what a model has and its files lack would stay random, without a word."""

from __future__ import annotations

from typing import Any

from safetensors import SafetensorError

from experiments.models.table import ModelError

SHOWN = 3  # names in a message


def read(chosen: Any, place: str, head: bool = False, **kind: Any) -> Any:
    """The model that this class of transformers makes of the checkpoint at the place.

    head: it ends in a head for a task, beside its base, which may be new. Raises ModelError where other parameters are
    lacking or of another shape.
    """
    how = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        model, found = chosen.from_pretrained(place, **how, **kind)
    except SafetensorError as error:
        raise ModelError(f"its weights cannot be read; fetch or save them again: {error}") from error
    shapes = {name for name, *_ in found["mismatched_keys"]}
    own = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    if head:
        own = {name for name in own if name.startswith(f"{model.base_model_prefix}.")}
    for names, what in (
        (shapes & own, "have another shape in its files"),
        (found["missing_keys"] & own, "are lacking"),
    ):
        if names:
            raise ModelError(
                f"{len(names)} of the weights of {type(model).__name__} {what} and would stay random: "
                f"{', '.join(sorted(names)[:SHOWN])}{' …' if len(names) > SHOWN else ''}; "
                + (
                    "say model.pooling=mean, which reads no pooler"
                    if all("pooler" in name.split(".") for name in names)
                    else "save the whole model there, of the class that its config.json names"
                )
            )
    return model
