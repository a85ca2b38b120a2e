"""Which baselines, arms that tune nothing or a head alone, fit a model."""

from __future__ import annotations

from experiments.config.family import Family
from experiments.config.schema import MethodConfig, ModelConfig, Trains


def has_task_head(model: ModelConfig) -> bool:
    """Whether the model ends in a head for the task."""
    from experiments.models.load import family  # torch and transformers, which take seconds

    return family(model) is Family.encoder


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
