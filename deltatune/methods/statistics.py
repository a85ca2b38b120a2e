"""Running statistics that move: the buffers of a norm as a delta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deltatune.core import DeltaError, DeltaModule, NoMatch
from deltatune.hosts import modules
from deltatune.maps import original
from deltatune.still import own_buffers, runs_in_eval


class Statistics(DeltaModule):
    """b ← b + strength · (own − b) for the host's persistent buffers b; the own ones start as copies and move as the
    host moves its own in training.

    Frozen norms run with their stored statistics, in training too, unless this stands on them. The statistics are saved
    with the delta and gone with it: eject gives the old ones back. only: names of the host's buffers (None: all). Usual
    sites: every norm that keeps running statistics. Nothing here is trained by gradients.
    """

    site = "buffers"

    def __init__(self, host: nn.Module, *, only: tuple[str, ...] | None = None):
        super().__init__()
        own = own_buffers(host)
        if missing := set(only or ()) - set(own):
            raise DeltaError(f"Statistics: no buffer {', '.join(sorted(missing))}; it has {', '.join(own)}")
        if not own:
            raise DeltaError(f"Statistics: {original(host).__name__} keeps no buffers; choose norms that do")
        self.only = None if only is None else tuple(only)
        for name in own if only is None else only:
            self._buffers[name] = own[name].detach().clone()  # a host may call its own by any name

    @classmethod
    def usual(cls, model: nn.Module, hparams: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        norms = [(path, {}) for path, module in modules(model) if runs_in_eval(module)]
        if not norms:
            raise NoMatch(f"{type(model).__name__} has no norm with running statistics; say where")
        return norms

    def forward(self, base: Callable[..., Any], *args: Any, strength: float = 1.0, **kwargs: Any) -> Any:
        """base() gives the buffers by name; the own tensors themselves at strength 1, so that they move."""
        own = base()
        for name, mine in self._buffers.items():
            assert mine is not None
            own[name] = mine if strength == 1 else between(own[name], mine, strength)
        return own


def between(b: Tensor, mine: Tensor, strength: float) -> Tensor:
    return torch.lerp(b, mine, strength) if b.is_floating_point() else mine
