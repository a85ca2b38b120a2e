"""A loaded model made ready for its method: deltas put in, what is trained marked, the encoder that fits."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import deltatune as dt
from experiments.config.schema import Config, Trains
from experiments.data.batch import indices
from experiments.models.load import Loaded
from experiments.models.method import rules
from experiments.models.weights import NAME, load_in_place
from experiments.objectives.base import Objective
from experiments.tasks.base import TaskData
from experiments.training import seeds


def prepare(config: Config, loaded: Loaded, data: TaskData, objective: Objective, device: torch.device) -> Objective:
    """Make the method's parameters ready to train, with the values of config.start_from where it is given.

    Returns the objective whose encoder puts a trained prompt's reserved ids before every row.
    """
    model = loaded.model
    if config.method.trains is not Trains.deltas:
        if config.start_from:
            load_in_place(model, Path(config.start_from))
        model.requires_grad_(config.method.trains is Trains.everything)
        return objective
    chosen = rules(config, loaded.task_head)
    if not chosen:
        raise ValueError(
            f"method={config.method.name}: it has no rules, and model={config.model.name} has no task head that it "
            "could train alone; take an encoder, or a method with rules"
        )
    if config.start_from:
        go_on(model, Path(config.start_from), chosen)
    else:
        starts_from_data = any(rule.method.primes for rule in chosen)
        example = first_inputs(objective, data, config, device) if starts_from_data else None
        print(dt.inject(model, *chosen, name=NAME, example=example))
    if any(issubclass(rule.method, dt.Prompt) for rule in chosen):
        objective = objective.on(replace(objective.encoder, front=tuple(dt.prompt_ids(model, NAME))))
    dt.verify(model, **first_inputs(objective, data, config, device, n_rows=1))
    return objective


def first_inputs(
    objective: Objective, data: TaskData, config: Config, device: torch.device, n_rows: int | None = None
) -> dict[str, Tensor]:
    """What the model is called with in the first step, or the first rows of that."""
    chosen = indices(0, config.optim.batch_size, len(data.train), seeds.stream(config, "order"))[:n_rows]
    return objective.collate(objective.rows([data.train[i] for i in chosen]), device).inputs


def go_on(model: nn.Module, file: Path, chosen: list[dt.Rule]) -> None:
    """Put in the delta of a file, to be trained further. Raises ValueError where its methods are not the run's."""
    print(dt.load(model, file, name=NAME, freeze=False))
    held = {type(m).__name__ for m in model.modules() if isinstance(m, dt.DeltaModule)}
    wanted = {rule.method.__name__ for rule in chosen}
    if held != wanted:
        raise ValueError(
            f"start_from={file}: a delta of {', '.join(sorted(held))}; this run's method is of "
            f"{', '.join(sorted(wanted))}: give the method that the file was made with"
        )


def checkpoint_activations(model: nn.Module) -> None:
    """Keep each block's input alone and run the block again in the backward."""
    with warnings.catch_warnings():
        # Newer transformers 5 rename this method and warn; older ones have no other.
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
