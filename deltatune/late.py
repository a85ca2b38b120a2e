"""Deltas made before their base was there: on the meta device, where nothing has values yet."""

from __future__ import annotations

import torch
from torch import nn

from deltatune.core import DeltaModule


def starts_later(delta: DeltaModule) -> bool:
    """Whether a delta has no values yet."""
    return any(t.is_meta for t in delta.state_dict(keep_vars=True).values())


@torch.no_grad()
def start(host: nn.Module, deltas: list[DeltaModule]) -> None:
    """Let these deltas start as they would have on the host as it is now, where nobody wrote values in meanwhile."""
    for delta in deltas:
        with torch.random.fork_rng():
            fresh = type(delta)(host, **delta.hparams())  # type: ignore[arg-type]
        for mine, value in zip(delta.state_dict(keep_vars=True).values(), fresh.state_dict().values(), strict=True):
            if mine._version == 0:  # `to_empty` gives new tensors; loading a state dict counts as a write
                mine.copy_(value)
