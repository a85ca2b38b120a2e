"""What a training leaves in a file, and how a model takes it back."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import deltatune as dt
from experiments.config.schema import FILES, Config, Trains
from experiments.support.files import replaced

NAME = "run"  # the delta's name in the model and in its file


def file_of(config: Config, directory: Path) -> Path | None:
    """The file that holds what the method trained: the delta or the whole model; None where it trains nothing."""
    name = FILES.get(config.method.trains)
    return directory / name if name else None


def save(config: Config, directory: Path, model: nn.Module) -> int:
    """Write what the method trained and return its size on disk: the delta, or the whole model in its dtype."""
    file = file_of(config, directory)
    if file is None:
        return 0
    if config.method.trains is Trains.deltas:
        return dt.save(model, file, name=NAME)
    tensors = {name: t.detach().cpu().contiguous() for name, t in own_tensors(model).items()}
    with replaced(file) as written:
        save_file(tensors, written, {"format": "pt"})
    return file.stat().st_size


@torch.no_grad()
def load_in_place(model: nn.Module, file: Path) -> None:
    """The values of a whole model's file into the model as it stands. Raises ValueError where they do not fit."""
    own = own_tensors(model)
    with safe_open(str(file), framework="pt") as opened:
        names = set(opened.keys())
        if different := sorted(names ^ own.keys()):
            raise ValueError(
                f"{file}: not the tensors of this {type(model).__name__}: {different[0]!r} has no counterpart"
            )
        for name, tensor in own.items():
            saved = opened.get_tensor(name)
            if saved.shape != tensor.shape:
                raise ValueError(
                    f"{file}: {name!r} has shape {list(saved.shape)}, this model needs {list(tensor.shape)}"
                )
            tensor.copy_(saved)


def own_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters, tied ones once, and the buffers that belong to the model's state."""
    kept = model.state_dict().keys()
    return {**dict(model.named_parameters()), **{name: b for name, b in model.named_buffers() if name in kept}}
