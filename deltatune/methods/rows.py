"""Rows of an embedding: chosen or new tokens alone are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deltatune.core import DeltaError, DeltaModule, NoMatch
from deltatune.hosts import delta_dtype, modules
from deltatune.maps import plain
from deltatune.token_tables import token_tables


class Rows(DeltaModule):
    """W[t] ← W[t] + strength · (own[t] − W[t]) for the tokens t; own (n, D) starts as a copy of these rows, in fp32.

    The rows are stored as they are, not as differences, and the base's fingerprint leaves them out: new tokens are the
    last rows of a table that was resized, and their start differs from one resizing to the next.
    Usual sites: the token embedding, and every layer that its weight is tied to, such as the output head, which then
    has the same rows. No weight decay.
    """

    site = "parameters"
    weight_decay = False

    def __init__(self, host: nn.Module, *, tokens: Sequence[int] = ()):
        super().__init__()
        table = host._parameters.get("weight")
        if table is None or not plain(table) or table.dim() != 2:
            raise DeltaError(f"Rows: {type(host).__name__} has no plain table of rows; choose the embedding")
        self.tokens = tuple(int(t) for t in tokens)
        if not self.tokens:
            raise DeltaError("Rows: say which rows are trained, tokens=[…]")
        if len(set(self.tokens)) < len(self.tokens):
            raise DeltaError("Rows: a token is named twice")
        if odd := [t for t in self.tokens if not 0 <= t < len(table)]:
            raise DeltaError(
                f"Rows: the table has {len(table)} rows, so none for token {odd[0]}; resize it first "
                "(resize_token_embeddings)"
            )
        self.ids: Tensor
        self.register_buffer("ids", torch.tensor(self.tokens, device=table.device), persistent=False)
        self.weight = nn.Parameter(table.detach()[self.ids].to(delta_dtype(host), copy=True))

    @classmethod
    def usual(cls, model: nn.Module, hparams: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        tables = token_tables(model)
        if not tables:
            raise NoMatch(f"{type(model).__name__} has no token embedding; say where its rows are")
        table = tables[0][1]._parameters["weight"]
        return [(path, {}) for path, m in modules(model) if m._parameters.get("weight") is table]

    @classmethod
    def holds(cls, host: nn.Module, hparams: dict[str, Any]) -> dict[str, Sequence[int] | None]:
        return {"weight": hparams["tokens"]}

    def fits(self, host: nn.Module) -> None:
        table = host._parameters.get("weight")
        size = 0 if table is None else len(table)
        if size <= max(self.tokens):
            raise DeltaError(
                f"Rows: the table was cut to {size} rows after the injection, below token {max(self.tokens)}; eject "
                "these rows, or give the table back its own"
            )

    def forward(self, base: Callable[..., Any], *args: Any, strength: float = 1.0, **kwargs: Any) -> Any:
        own = base()
        table = own["weight"]
        rows = torch.lerp(table[self.ids].to(self.weight.dtype), self.weight, strength)  # exactly `own` at strength 1
        own["weight"] = table.index_copy(0, self.ids, rows.to(table.dtype))
        return own
