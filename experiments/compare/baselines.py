"""Which baselines, arms that tune nothing or a head alone, fit a model."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.config.schema import MethodConfig, ModelConfig, Trains
from experiments.models.table import ENCODERS, MODELS


def has_task_head(model: ModelConfig) -> bool:
    """Whether the model ends in a head for the task; read from its files, without torch where they are local."""
    if model.name in MODELS:
        place = Path(MODELS[model.name].whereabouts(model)[0]) / "config.json"
        if place.is_file():
            return json.loads(place.read_text(encoding="utf-8")).get("model_type") in ENCODERS
    from experiments.models.load import has_task_head as described  # torch and transformers, which take seconds

    return described(model)


def head_alone(method: MethodConfig) -> bool:
    """Whether the method trains the task head and nothing else: a linear probe."""
    return method.trains is Trains.deltas and not method.rules


def fits(method: MethodConfig, task_head: bool) -> bool:
    """Whether the baseline fits a model with a task head, or one that writes text.

    A head needs a model that has one; demonstrations need one that reads and writes. What predicts classes in a
    model's place fits where the task is to tell classes apart, and of that a task head is the sign.
    """
    if method.shots:
        return not task_head
    return task_head or not (method.predictor or head_alone(method))
