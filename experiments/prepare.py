"""A loaded model made ready for its method: deltas put in, what is trained marked, the encoder that fits."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

import deltatune as dt
from experiments.batches import Encoder, Row, collate, indices
from experiments.config import Config, Trains
from experiments.models import Loaded
from experiments.saved import NAME, load_in_place
from experiments.tasks import TaskData


def prepare(config: Config, loaded: Loaded, data: TaskData, device: torch.device) -> Encoder:
    """Make the method's parameters ready to train, with the values of config.start_from where it is given."""
    model, max_length = loaded.model, config.optim.max_length
    encoder = Encoder(loaded.tokenizer, max_length, data.labels)
    if config.method.trains is not Trains.deltas:
        if config.start_from:
            load_in_place(model, Path(config.start_from))
        model.requires_grad_(config.method.trains is Trains.everything)
        return encoder
    chosen = rules(config, data)
    if config.start_from:
        go_on(model, Path(config.start_from), chosen)
    else:
        first = rows_of_step(encoder, data, config, 0)
        starts_from_data = any(rule.method.prime is not dt.DeltaModule.prime for rule in chosen)
        example = collate(first, encoder.pad, device).inputs if starts_from_data else None
        print(dt.inject(model, *chosen, name=NAME, example=example))
    if any(issubclass(rule.method, dt.Prompt) for rule in chosen):
        encoder = Encoder(loaded.tokenizer, max_length, data.labels, tuple(dt.prompt_ids(model, NAME)))
    dt.verify(model, **collate(rows_of_step(encoder, data, config, 0)[:1], encoder.pad, device).inputs)
    return encoder


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


def rules(config: Config, data: TaskData) -> list[dt.Rule]:
    """The method's rules and, for classification, the new head."""
    found = []
    for rule in config.method.rules:
        if rule.method not in dt.METHODS:
            raise ValueError(f"method.rules: no method class {rule.method!r}; there are: {', '.join(dt.METHODS)}")
        found.append(dt.METHODS[rule.method].on(rule.where, **rule.hparams))
    return [*found, dt.Head.on()] if data.kind == "classify" else found


def rows_of_step(encoder: Encoder, data: TaskData, config: Config, step: int) -> list[Row]:
    chosen = indices(step, config.optim.batch_size, len(data.train), config.seed)
    return encoder.rows([data.train[i] for i in chosen])


def checkpoint_activations(model: nn.Module) -> None:
    """Keep each block's input alone and run the block again in the backward."""
    with warnings.catch_warnings():
        # Newer transformers 5 rename this method and warn; older ones have no other.
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
