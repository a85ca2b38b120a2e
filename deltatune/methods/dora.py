"""DoRA: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deltatune.core import DeltaError, DeltaModule, Frozen
from deltatune.functional import dora_norm, rescaled
from deltatune.hosts import delta_dtype, frozen, is_linear, term
from deltatune.methods.lora import LoRA, all_at_once


class DoRA(LoRA):
    """y = m ⊙ (V x) / ‖V‖ + b with V = W + s · B A, norms by row; m (N,) starts as ‖W‖ (eq. 5).

    The norm is detached (section 4.3) and computed without an (N, K) temporary; dropout is on the delta's input
    alone, so with m/‖V‖ = c the forward is c ⊙ (W x) + c ⊙ s · B A · dropout(x) + b. At strength a the scale c
    is 1 + a (m/‖W + a s B A‖ − 1) and the low-rank part a s B A.
    """

    def __init__(
        self, host: nn.Module, *, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0, rslora: bool = False
    ):
        super().__init__(host, rank=rank, alpha=alpha, dropout=dropout, rslora=rslora)
        at = frozen(host, dict(host._parameters))
        if at is None or not is_linear(host):
            raise DeltaError(f"DoRA needs the rows of a plain linear weight; {type(host).__name__} has none to read")
        self.m = nn.Parameter(torch.linalg.vector_norm(at.weight.detach(), dim=1, dtype=delta_dtype(host)))

    def rescale(self, at: Frozen, strength: float) -> Tensor:
        """c − 1 (N,), c being what the rows of W + a s B A are multiplied by. (In bf16, c itself has 0.4 % steps.)"""
        norm = dora_norm(at.weight.detach(), self.A.detach(), self.B.detach(), strength * self.scale)
        less_one = self.m / norm.clamp_min(torch.finfo(norm.dtype).tiny) - 1
        return less_one if strength == 1 else strength * less_one

    def forward(self, base: Callable[..., Any], x: Tensor, *args: Any, strength: float = 1.0, **kwargs: Any) -> Tensor:
        at = term(base).folded()
        return self.rescaled(super().forward(at._replace(bias=None), x, strength=strength), at, strength)

    def rescaled(self, h: Tensor, at: Frozen, strength: float) -> Tensor:
        """c ⊙ h + b."""
        h = rescaled(h, self.rescale(at, strength))
        return h if at.bias is None else h + at.bias.to(h.dtype)

    @classmethod
    def together(cls, x: Tensor, calls: Sequence[tuple[DeltaModule, Frozen, float]]) -> Sequence[Tensor] | None:
        hs = all_at_once(DoRA, x, [(delta, base._replace(bias=None), a) for delta, base, a in calls])
        return hs and [delta.rescaled(h, *call) for h, (delta, *call) in zip(hs, calls)]  # type: ignore[operator]

    def fold(self, at: Frozen, strength: float = 1.0) -> Frozen:
        wide = super().fold(at, strength).weight
        return at._replace(weight=torch.addcmul(wide, wide, self.rescale(at, strength).to(wide.dtype)[:, None]))
