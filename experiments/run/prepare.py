"""A loaded model made ready for its method: deltas put in, what is trained marked, the encoder that fits."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import deltatune as dt
from experiments.config.schema import Config, Trains
from experiments.data.encode import Encoder, Row, collate, indices
from experiments.models.load import Loaded
from experiments.models.method import rules
from experiments.models.weights import NAME, load_in_place
from experiments.tasks.base import TaskData


def prepare(config: Config, loaded: Loaded, data: TaskData, device: torch.device) -> Encoder:
    """Make the method's parameters ready to train, with the values of config.start_from where it is given."""
    model = loaded.model
    encoder = base_encoder(config, loaded, data)
    if config.method.trains is not Trains.deltas:
        if config.start_from:
            load_in_place(model, Path(config.start_from))
        model.requires_grad_(config.method.trains is Trains.everything)
        return encoder
    chosen = rules(config, loaded.head)
    if config.start_from:
        go_on(model, Path(config.start_from), chosen)
    else:
        first = rows_of_step(encoder, data, config, 0)
        starts_from_data = any(rule.method.prime is not dt.DeltaModule.prime for rule in chosen)
        example = collate(first, encoder.pad, device).inputs if starts_from_data else None
        print(dt.inject(model, *chosen, name=NAME, example=example))
    if any(issubclass(rule.method, dt.Prompt) for rule in chosen):
        encoder = replace(encoder, front=tuple(dt.prompt_ids(model, NAME)))
    dt.verify(model, **collate(rows_of_step(encoder, data, config, 0)[:1], encoder.pad, device).inputs)
    return encoder


def base_encoder(config: Config, loaded: Loaded, data: TaskData) -> Encoder:
    """For the model as it was loaded."""
    return Encoder(loaded.tokenizer, config.optim.max_length, data.labels, kind=data.kind, head=loaded.head)


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


def rows_of_step(encoder: Encoder, data: TaskData, config: Config, step: int) -> list[Row]:
    chosen = indices(step, config.optim.batch_size, len(data.train), config.seed)
    return encoder.rows([data.train[i] for i in chosen])


def checkpoint_activations(model: nn.Module) -> None:
    """Keep each block's input alone and run the block again in the backward."""
    with warnings.catch_warnings():
        # Newer transformers 5 rename this method and warn; older ones have no other.
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
