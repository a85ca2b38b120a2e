"""Prefix tuning: Li & Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deltatune.attention import attend_gated, attend_prefixed
from deltatune.blocks import attention_shape
from deltatune.core import DeltaError, DeltaModule
from deltatune.hosts import delta_dtype, device_of
from deltatune.sites import attention_modules
from deltatune.written import Written


class Prefix(DeltaModule):
    """Attention over [P; K]: trainable keys and values, k and v (H_kv, length, D_head), seen by every query.

    They enter scaled_dot_product_attention itself, or the softmax that a module writes out (`written`): after position
    encoding, which they bypass (tokens keep their positions, from 0), after the KV cache, with the key/value heads of
    grouped-query models, and with the mask extended. No finite prefix is a no-op, so there are two starts. Given
    inject's `example`, k and v are those of its first real tokens, ungated. Without one they are gated per head,
    attn(K) + g · λ · (attn(P) − attn(K)), g (H_kv,) from zero, λ the prefix's softmax mass (He et al. 2022, eq. 7).
    Strength scales the gate.
    reparam: width of an MLP that is added to k and v, MLP(E) = W₂ tanh(W₁ E + b₁) + b₂, E (length, reparam), W₂ = 0
    at the start; one a site (the paper shares one between layers). heads, head_dim, value_dim: of the host's keys, and
    of its values where they differ (latent attention), read from the host where None.
    """

    site = "attention"
    primes = True
    weight_decay = False

    def __init__(
        self,
        host: nn.Module,
        *,
        length: int = 16,
        reparam: int | None = None,
        heads: int | None = None,
        head_dim: int | None = None,
        value_dim: int | None = None,
        gated: bool = True,
    ):
        super().__init__()
        if length < 1:
            raise DeltaError(f"Prefix: length must be at least 1, not {length}")
        if heads is None or head_dim is None:
            heads, head_dim, value_dim = attention_shape(host)
        self.length, self.reparam, self.gated, self.identity_at_init = length, reparam, gated, gated
        self.heads, self.head_dim, self.value_dim = heads, head_dim, head_dim if value_dim is None else value_dim
        kind: dict[str, Any] = {"dtype": delta_dtype(host), "device": device_of(host)}
        self.k = nn.Parameter(torch.randn(heads, length, head_dim, **kind) * 0.02)
        self.v = nn.Parameter(torch.randn(heads, length, self.value_dim, **kind) * 0.02)
        self.gate = nn.Parameter(torch.zeros(heads, **kind)) if gated else None
        if reparam is not None:
            self.E = nn.Parameter(torch.randn(length, reparam, **kind))
            width = heads * (head_dim + self.value_dim)
            self.mlp = nn.Sequential(nn.Linear(reparam, reparam, **kind), nn.Tanh(), nn.Linear(reparam, width, **kind))
            nn.init.zeros_(self.mlp[2].weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.mlp[2].bias)  # type: ignore[arg-type]

    @classmethod
    def usual(cls, model: nn.Module, hparams: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        return [(path, {}) for path in attention_modules(model)]

    def keys_values(self) -> tuple[Tensor, Tensor]:
        """k and v (H_kv, length, D_head), the MLP's part added: what an export without the MLP would hold."""
        if self.reparam is None:
            return self.k, self.v
        parts = self.mlp(self.E).split([self.heads * self.head_dim, self.heads * self.value_dim], 1)
        k, v = (part.view(self.length, self.heads, -1).transpose(0, 1) for part in parts)
        return self.k + k, self.v + v

    def prime(self, base: Callable[..., Any], real: Tensor | None, *args: Any, **kwargs: Any) -> None:
        """Start from the keys and values of the example's first `length` real tokens, and drop the gate."""
        taken = []
        for name, t, size in (("key", args[1], self.head_dim), ("value", args[2], self.value_dim)):
            rows = t.transpose(1, 2)  # (B, S, H_kv, D_head)
            rows = rows[real] if real is not None and real.shape == rows.shape[:2] else rows.flatten(0, 1)
            if len(rows) < self.length:
                raise DeltaError(
                    f"Prefix: the example has {len(rows)} real tokens, fewer than the prefix's {self.length}"
                )
            if rows.shape[1] > self.heads and rows.shape[1] % self.heads == 0:
                rows = rows[:, :: rows.shape[1] // self.heads]
            if rows.shape[1:] != (self.heads, size):
                raise DeltaError(
                    f"Prefix: the host's {name} heads are {tuple(rows.shape[1:])}, not {(self.heads, size)}"
                )
            taken.append(rows[: self.length].transpose(0, 1))
        self.k.copy_(taken[0])
        self.v.copy_(taken[1])
        self.gate, self.gated, self.identity_at_init = None, False, False

    def forward(
        self,
        base: Callable[..., Any],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *how: Any,
        strength: float = 1.0,
        written: Written | None = None,
        **kwargs: Any,
    ) -> Any:
        k, v = self.keys_values()
        if written is not None:
            if self.gate is None and strength == 1:
                return base(query, key, value, written=written.joined(k, v))
            gate = strength if self.gate is None else strength * self.gate
            return base(query, key, value, written=written).gated(written, gate, k, v)
        args = (base, query, key, value, k, v)
        kwargs |= zip(("attn_mask", "dropout_p", "is_causal"), how)  # these are its names of them
        if self.gate is None and strength == 1:
            return attend_prefixed(*args, **kwargs)
        return attend_gated(*args, strength if self.gate is None else strength * self.gate, **kwargs)
