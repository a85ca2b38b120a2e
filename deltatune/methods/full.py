"""Full fine-tuning as a delta: W_final = W_pre + Δ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from deltatune.core import DeltaError, DeltaModule
from deltatune.hosts import delta_dtype, modules, own_parameters, paired, unreachable
from deltatune.maps import plain


class Full(DeltaModule):
    """p ← p + strength · Δ for the host's own parameters p, of any kind: weights, biases, norms, bare Parameters.

    Δ starts at zero, in fp32. A tied weight has one Δ, applied at every use. only: names of the host's parameters to
    cover (None: all). Usual sites: every module that owns parameters. As a training method, plain unfreezing costs
    less; this gives full fine-tuning as a delta to store, scale, add and switch (`diff` fills it from a tuned model).
    """

    site = "parameters"

    def __init__(self, host: nn.Module, *, only: tuple[str, ...] | None = None):
        super().__init__()
        own = {n: p for n, p in own_parameters(host).items() if p is not None}
        if missing := set(only or ()) - set(own):
            raise DeltaError(f"Full: the host has no parameter {', '.join(sorted(missing))}; it has {', '.join(own)}")
        self.only = None if only is None else tuple(only)
        chosen = [n for n in own if only is None or n in only]
        if not chosen:
            raise DeltaError(f"Full: {type(host).__name__} owns no parameters; choose the modules inside it")
        if packed := [n for n in chosen if not plain(own[n])]:
            raise DeltaError(
                f"Full: {', '.join(packed)} of {type(host).__name__} is packed, no number to add to; see only="
            )
        for name in chosen:
            delta = torch.zeros_like(own[name], dtype=delta_dtype(host), memory_format=torch.contiguous_format)
            self._parameters[name.replace(".", "_")] = nn.Parameter(delta)  # a host may call its own by any name

    @classmethod
    def usual(cls, model: nn.Module, hparams: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        skipped = unreachable(model)
        owners = [(p, m) for p, m in modules(model) if any(q is not None for q in own_parameters(m).values())]
        return [(p, {}) for p, _ in owners if p not in skipped]

    @classmethod
    def at(cls, parameter: str) -> dict[str, Any]:
        return {"only": (parameter,)}

    def forward(self, base: Callable[..., Any], *args: Any, strength: float = 1.0, **kwargs: Any) -> Any:
        own = base()
        for name, p, delta in paired(own, self):
            own[name] = (p + strength * delta).to(p.dtype)  # rounded once: Δ in bf16 may lose it all
        return own
