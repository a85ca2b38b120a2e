"""BitFit: Ben Zaken et al. 2022, "BitFit: Simple Parameter-efficient Fine-tuning"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deltatune.blocks import output_head
from deltatune.core import DeltaError, DeltaModule, Frozen
from deltatune.functional import along, like
from deltatune.hosts import axes, delta_dtype, device_of, features, modules, own_parameters, paired
from deltatune.sites import linear_layers


def biases(host: nn.Module) -> dict[str, nn.Parameter]:
    """The host's own bias parameters: `bias`, what ends in `_bias` (experts, attention), a recurrent layer's."""
    recurrent = isinstance(host, nn.RNNBase)
    return {
        n: p
        for n, p in own_parameters(host).items()
        if p is not None and (n == "bias" or n.endswith(("_bias", ".bias")) or (recurrent and n.startswith("bias_")))
    }


class BitFit(DeltaModule):
    """b ← b + δ for every bias of the host (section 3); where a linear layer has none, h + δ. δ (N,) starts at zero.

    Usual sites: every module with a bias, inside the blocks and outside, LayerNorm's included, the task head (see
    `Head`) left out, and every bias-free linear layer of the blocks. RMSNorm has no bias and gets none. No weight
    decay. `note()` says which of the two. parameter: the name of one bias of the host, None for all of them.
    """

    weight_decay = False

    def __init__(self, host: nn.Module, *, parameter: str | None = None):
        super().__init__()
        found = biases(host)
        self.parameter, self.axis = parameter, -1
        if parameter is not None:
            if parameter not in found:
                raise DeltaError(f"BitFit: {parameter} is no bias of the host; it has {', '.join(found) or 'none'}")
            found = {parameter: found[parameter]}
        if found:
            self.site = "parameters"
            for name, bias in found.items():
                delta = torch.zeros_like(bias, dtype=delta_dtype(host), requires_grad=True)
                self._parameters[name.replace(".", "_")] = nn.Parameter(delta)  # a host may call its own by any name
        else:
            if isinstance(host, nn.Embedding):
                raise DeltaError("BitFit: an Embedding has no bias; choose linear layers or norms")
            size, self.axis = features(host).out, axes(host).out
            self.bias = nn.Parameter(torch.zeros(size, dtype=delta_dtype(host), device=device_of(host)))

    @classmethod
    def usual(cls, model: nn.Module, hparams: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        missing = set(linear_layers(model))
        inner = {id(m.out_proj) for _, m in modules(model) if isinstance(m, nn.MultiheadAttention)}
        inner |= {id(m) for _, m in output_head(model)}
        found = [p for p, m in modules(model) if (biases(m) or p in missing) and id(m) not in inner]
        return [(path, {}) for path in found]

    @classmethod
    def at(cls, parameter: str) -> dict[str, Any]:
        return {"parameter": parameter}

    def note(self) -> str:
        return "existing bias" if self.site == "parameters" else "added bias"

    def change(self, x: Tensor, h: Tensor) -> Tensor:
        return along(self.bias.to(h.dtype), h, self.axis).expand_as(h)

    def forward(self, base: Callable[..., Any], *args: Any, strength: float = 1.0, **kwargs: Any) -> Any:
        if self.site == "module":
            if not isinstance(base, Frozen):
                return super().forward(base, *args, strength=strength, **kwargs)
            bias = self.fold(base, strength).bias  # the matrix product adds it, so it costs no pass
            assert bias is not None
            return base._replace(bias=like(bias, args[0]))(*args, **kwargs)
        own = base()
        for name, p, delta in paired(own, self):
            own[name] = (p + strength * delta).to(p.dtype)  # rounded once: Δ in bf16 may lose it all
        return own

    def fold(self, at: Frozen, strength: float = 1.0) -> Frozen:
        bias = self.bias if strength == 1 else strength * self.bias
        return at._replace(bias=bias if at.bias is None else at.bias + bias.to(at.bias.dtype))
