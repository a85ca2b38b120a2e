"""A new task head, trained and stored whole beside a delta."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from deltatune.blocks import output_head
from deltatune.core import DeltaError, DeltaModule, NoMatch
from deltatune.hosts import delta_dtype, own_parameters, paired
from deltatune.maps import plain


class Head(DeltaModule):
    """p ← p + strength · (own − p): the host's parameters replaced by the delta's own, which start as copies in fp32.

    For layers that are new to the task, such as a classifier: they are stored as they are, not as a difference, and
    the base's fingerprint leaves them out, because they differ from one initialisation to the next.
    only: names of the host's parameters to hold (None: all).
    Usual sites: the head of a Hugging Face model (what stands beside its backbone).
    """

    site = "parameters"

    def __init__(self, host: nn.Module, *, only: tuple[str, ...] | None = None):
        super().__init__()
        self.only = None if only is None else tuple(only)
        there = {n: p for n, p in own_parameters(host).items() if p is not None}
        if missing := set(only or ()) - set(there):
            raise DeltaError(f"Head: the host has no parameter {', '.join(sorted(missing))}; it has {', '.join(there)}")
        own = {n: p for n, p in there.items() if only is None or n in only}
        if not own:
            raise DeltaError(f"Head: {type(host).__name__} owns no parameters; choose the layers inside it")
        if packed := [n for n, p in own.items() if not plain(p)]:
            raise DeltaError(f"Head: {', '.join(packed)} of {type(host).__name__} is packed, no number to copy")
        for name, p in own.items():
            copy = p.detach().to(delta_dtype(host), copy=True)
            self._parameters[name.replace(".", "_")] = nn.Parameter(copy)  # a host may call its own by any name

    @classmethod
    def usual(cls, model: nn.Module, hparams: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        heads = [(p, {}) for p, _ in output_head(model)]
        if not heads:
            raise NoMatch(f"{type(model).__name__} has no head beside a backbone; say where, Head.on('classifier')")
        return heads

    @classmethod
    def holds(cls, host: nn.Module, hparams: dict[str, Any]) -> dict[str, Sequence[int] | None]:
        return dict.fromkeys(hparams.get("only") or own_parameters(host))

    def forward(self, base: Callable[..., Any], *args: Any, strength: float = 1.0, **kwargs: Any) -> Any:
        own = base()
        for name, p, mine in paired(own, self):
            own[name] = torch.lerp(p.to(mine.dtype), mine, strength).to(p.dtype)  # exactly `mine` where strength is 1
        return own
