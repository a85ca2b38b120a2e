"""DoRA: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deltatune.core import DeltaError, DeltaModule, Frozen
from deltatune.functional import along, dora_norm, rescaled
from deltatune.hosts import delta_dtype
from deltatune.maps import frozen, original, term
from deltatune.matrices import parameter_of
from deltatune.methods.lora import LoRA, all_at_once


class DoRA(LoRA):
    """y = m ⊙ (V x) / ‖V‖ + b with V = W + s · B A, norms by row; m (N,) starts as ‖W‖ (eq. 5).

    The norm is detached (section 4.3) and computed without an (N, K) temporary; dropout is on the delta's input
    alone, so with m/‖V‖ = c the forward is c ⊙ (W x) + c ⊙ s · B A · dropout(x) + b. At strength a the scale c
    is 1 + a (m/‖W + a s B A‖ − 1) and the low-rank part a s B A. A row of a convolution is an output channel.
    """

    def __init__(
        self,
        host: nn.Module,
        *,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        rslora: bool = False,
        parameter: str | None = None,
        shared: bool = False,
    ):
        super().__init__(
            host, rank=rank, alpha=alpha, dropout=dropout, rslora=rslora, parameter=parameter, shared=shared
        )
        if self.layout is not None and parameter is not None:
            weight = self.layout.matrices(parameter_of(host, parameter).detach())
        else:
            at = frozen(host, dict(host._parameters))
            if at is None or self.rows:
                raise DeltaError(f"DoRA needs the rows of a plain linear weight; {original(host).__name__} has none")
            weight = at.weight.detach().flatten(1)
        self.m = nn.Parameter(torch.linalg.vector_norm(weight, dim=-1, dtype=delta_dtype(host)))

    def rescale(self, at: Frozen, strength: float) -> Tensor:
        """c − 1 (N,), c being what the rows of W + a s B A are multiplied by. (In bf16, c itself has 0.4 % steps.)"""
        W, A = at.weight.detach().flatten(1), self.A.detach().flatten(1)
        return self.less_one(dora_norm(W, A, self.B.detach(), strength * self.scale), strength)

    def less_one(self, norm: Tensor, strength: float) -> Tensor:
        less_one = self.m / norm.clamp_min(torch.finfo(norm.dtype).tiny) - 1
        return less_one if strength == 1 else strength * less_one

    def forward(self, base: Callable[..., Any], *args: Any, strength: float = 1.0, **kwargs: Any) -> Any:
        if self.parameter is not None:
            return super().forward(base, *args, strength=strength, **kwargs)
        at = term(base).folded()
        h = super().forward(at._replace(bias=None), *args, strength=strength, **kwargs)
        return self.rescaled(h, at, strength)

    def changed(self, p: Tensor, strength: float) -> Tensor:
        """c ⊙ (W + a s B A), c of the factors without dropout."""
        assert self.layout is not None
        with torch.no_grad():
            low = self.layout.parameter(strength * self.scale * (self.B @ self.A))
            norm = torch.linalg.vector_norm(self.layout.matrices(p + low), dim=-1, dtype=self.m.dtype)
        V = self.layout.matrices(super().changed(p.to(self.m.dtype), strength))
        return self.layout.parameter(torch.addcmul(V, V, self.less_one(norm, strength)[..., None])).to(p.dtype)

    def rescaled(self, h: Tensor, at: Frozen, strength: float) -> Tensor:
        """c ⊙ h + b."""
        h = rescaled(h, self.rescale(at, strength), self.axis)
        return h if at.bias is None else h + along(at.bias.to(h.dtype), h, self.axis)

    @classmethod
    def together(cls, x: Tensor, calls: Sequence[tuple[DeltaModule, Frozen, float]]) -> Sequence[Tensor] | None:
        hs = all_at_once(DoRA, x, [(delta, base._replace(bias=None), a) for delta, base, a in calls])
        return hs and [delta.rescaled(h, *call) for h, (delta, *call) in zip(hs, calls)]  # type: ignore[operator]

    def fold(self, at: Frozen, strength: float = 1.0) -> Frozen:
        wide = super().fold(at, strength).weight
        c = self.rescale(at, strength).to(wide.dtype)
        return at._replace(weight=torch.addcmul(wide, wide, along(c, wide, 0)))
