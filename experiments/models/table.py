"""The table of models: where the checkpoint of each comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore

from experiments.config.schema import Dtype, ModelConfig
from experiments.config.table import Table, first_line
from experiments.models import minilm, smollm2, tiny

Directory = Callable[[], Path]


class ModelError(ValueError):
    """The model cannot be used; the message says why."""


@dataclass(frozen=True)
class Checkpoint:
    """A model by the function that gives its checkpoint's directory, fetched where need be."""

    directory: Directory
    source: str  # where its weights come from, as a result names it

    def whereabouts(self, config: ModelConfig) -> tuple[str, str]:
        """The checkpoint's directory, or its id on the hub; the weights' origin."""
        return str(self.directory()), self.source


class AnyCheckpoint:
    """Any model of text of transformers: model.path is its directory, or its id on the hub."""

    def whereabouts(self, config: ModelConfig) -> tuple[str, str]:
        if not config.path:
            raise ModelError("model=hf needs model.path: the directory of a model, or an id on the hub")
        return str(config.path), str(config.path)


MODELS: Table[Checkpoint | AnyCheckpoint] = Table(
    "model",
    {
        "smollm2": Checkpoint(smollm2.smollm2, smollm2.SOURCE),
        "minilm": Checkpoint(minilm.minilm, minilm.SOURCE),
        "tiny": Checkpoint(tiny.tiny, tiny.SOURCE),
        "tiny_encoder": Checkpoint(tiny.tiny_encoder, tiny.SOURCE),
        "hf": AnyCheckpoint(),
    },
    about=lambda entry: first_line(entry.directory if isinstance(entry, Checkpoint) else entry),
)


def model(name: str, *, source: str, dtype: Dtype = Dtype.bf16) -> Callable[[Directory], Directory]:
    """Add a model to the table, as a decorator of the function that gives its checkpoint's directory.

    source: the weights' origin, as a result names it. dtype: the default of model.dtype.
    """

    def add(directory: Directory) -> Directory:
        MODELS.add(name, Checkpoint(directory, source))
        ConfigStore.instance().store(group="model", name=name, node=ModelConfig(name, dtype=dtype))
        return directory

    return add
