"""BitFit: Ben Zaken et al. 2022, "BitFit: Simple Parameter-efficient Fine-tuning"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltatune.blocks import blocks, output_head
from deltatune.core import DeltaError, DeltaModule, Frozen
from deltatune.functional import like
from deltatune.hosts import delta_dtype, device_of, features, linears, modules, own_parameters, paired


def biases(host: nn.Module) -> dict[str, nn.Parameter]:
    """The host's own bias parameters: `bias`, and nn.MultiheadAttention's `in_proj_bias` and `out_proj.bias`."""
    ends = ("bias", "in_proj_bias", "out_proj.bias")
    return {n: p for n, p in own_parameters(host).items() if n in ends and p is not None}


class BitFit(DeltaModule):
    """b ← b + δ for every bias of the host (section 3); where a linear layer has none, h + δ. δ (N,) starts at zero.

    Usual sites: every module with a bias, inside the blocks and outside, LayerNorm's included, the task head (see
    `Head`) left out, and every bias-free linear layer of the blocks. RMSNorm has no bias and gets none. No weight
    decay. `note()` says which of the two.
    """

    weight_decay = False

    def __init__(self, host: nn.Module):
        super().__init__()
        found = biases(host)
        if found:
            self.site = "parameters"
            for name, bias in found.items():
                delta = torch.zeros_like(bias, dtype=delta_dtype(host), requires_grad=True)
                self._parameters[name.replace(".", "_")] = nn.Parameter(delta)  # a host may call its own by any name
        else:
            if isinstance(host, nn.Embedding):
                raise DeltaError("BitFit: an Embedding has no bias; choose linear layers or norms")
            size = features(host).out
            self.bias = nn.Parameter(torch.zeros(size, dtype=delta_dtype(host), device=device_of(host)))

    @classmethod
    def usual(cls, model: nn.Module, hparams: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        missing = {id(m) for block in blocks(model) for _, m in linears(block.module)}
        inner = {id(m.out_proj) for _, m in modules(model) if isinstance(m, nn.MultiheadAttention)}
        inner |= {id(m) for _, m in output_head(model)}
        found = [p for p, m in modules(model) if (biases(m) or id(m) in missing) and id(m) not in inner]
        return [(path, {}) for path in found]

    def note(self) -> str:
        return "existing bias" if self.site == "parameters" else "added bias"

    def change(self, x: Tensor, h: Tensor) -> Tensor:
        return self.bias.to(h.dtype).expand_as(h)

    def forward(self, base: Callable[..., Any], *args: Any, strength: float = 1.0, **kwargs: Any) -> Any:
        if self.site == "module":
            if not (isinstance(base, Frozen) and base.op is F.linear):
                return super().forward(base, *args, strength=strength, **kwargs)
            bias = self.fold(base, strength).bias  # the matrix product adds it, so it costs no pass
            assert bias is not None
            return base._replace(bias=like(bias, *args))(*args)
        own = base()
        for name, p, delta in paired(own, self):
            own[name] = (p + strength * delta).to(p.dtype)  # rounded once: Δ in bf16 may lose it all
        return own

    def fold(self, at: Frozen, strength: float = 1.0) -> Frozen:
        bias = self.bias if strength == 1 else strength * self.bias
        return at._replace(bias=bias if at.bias is None else at.bias + bias.to(at.bias.dtype))
