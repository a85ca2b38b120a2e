"""Prompt tuning: Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from deltatune.core import DeltaError, DeltaModule, NoMatch, NotReached
from deltatune.hosts import delta_dtype, original, stacks
from deltatune.token_tables import normalised, token_tables


class Prompt(DeltaModule):
    """Rows P (length, D) looked up by reserved ids: first + i -> a · P[i] at strength a; all other ids go to the base.

    centred: a row is μ + a · (P[i] − μ), μ the table's mean row, as a norm right behind the table undoes a scale.
    The reserved ids lie above the vocabulary (`deltatune.prompt_ids`), each named prompt in a range of its own, so
    lengths, masks, labels (-100 there) and caches stay the caller's. They never reach the base; while the prompt is
    switched off they raise NotReached. P starts from what the table gives, its scale included, for `tokens` (ids,
    repeated as needed), for an example batch given to inject, or for ids drawn from the first 5,000 (frequent in BPE
    and WordPiece vocabularies). Usual sites: the token embedding; of an encoder and a decoder that share its weight
    the tables of both, with one P.
    """

    weight_decay = False
    primes = True
    FREQUENT = 5000

    def __init__(
        self, host: nn.Module, *, length: int = 16, tokens: tuple[int, ...] | None = None, centred: bool = False
    ):
        super().__init__()
        if not isinstance(host, nn.Embedding):
            raise DeltaError(f"Prompt: the host is the input Embedding, not {type(host).__name__}")
        if length < 1:
            raise DeltaError(f"Prompt: length must be at least 1, not {length}")
        size = host.num_embeddings
        if tokens is not None and (not tokens or not all(0 <= t < size for t in tokens)):
            raise DeltaError(f"Prompt: tokens must be ids below the vocabulary's {size}, not {tokens}")
        self.length, self.tokens, self.centred = length, None if tokens is None else tuple(tokens), centred
        others = [d for _, d in prompts_of(host)]
        self.first = max([size, *(d.first + d.length for d in others)])
        ids = torch.tensor(tokens) if tokens else torch.randperm(min(size, self.FREQUENT))
        ids = ids.repeat(-(-length // len(ids)))[:length]
        rows = rows_of(host, ids)
        self.P = nn.Parameter(rows.to(delta_dtype(host), copy=True))
        mean = rows_of(host, torch.arange(size)).mean(0, dtype=self.P.dtype) if centred else None
        self.register_buffer("centre", mean, persistent=False)  # the base's, so no file has to hold it

    @classmethod
    def usual(cls, model: nn.Module, hparams: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        tables = token_tables(model)
        if not tables:
            raise NoMatch(f"{type(model).__name__} has no token embedding, so a prompt has no place in it")
        return [(path, {"centred": True} if normalised(model, path) else {}) for path, _ in tables]

    def tied_to(self, host: nn.Module) -> dict[str, Any]:
        return {"P": host._parameters["weight"]}

    def mine(self, ids: Tensor) -> Tensor:
        return (ids >= self.first) & (ids < self.first + self.length)

    def prime(self, base: Callable[..., Any], real: Tensor | None, *args: Any, **kwargs: Any) -> None:
        """Start from the example's first tokens, padding left out, unless `tokens` said from which."""
        ids = args[0]
        if self.tokens is None:
            chosen = ids[real] if real is not None and real.shape == ids.shape else ids.flatten()
            chosen = chosen.repeat(-(-self.length // len(chosen)))[: self.length]
            self.P.copy_(base(chosen))

    def fits(self, host: nn.Module) -> None:
        size = cast(int, host.num_embeddings)
        if size > self.first:
            raise DeltaError(
                f"the vocabulary grew to {size} ids, and this prompt's begin at {self.first}: save it, eject it, and "
                "load it again, which gives it ids above the new tokens"
            )

    def inactive(self, *args: Any) -> None:
        if torch.compiler.is_compiling():  # a graph cannot raise on data; eager runs do
            return
        if args and isinstance(args[0], Tensor) and bool(self.mine(args[0]).any()):
            last = self.first + self.length - 1
            raise NotReached(
                f"the ids hold those of a prompt ({self.first}..{last}) that is switched off; switch it on with "
                "use() or active(), or leave its ids out"
            )

    def forward(self, base: Callable[..., Any], x: Tensor, *args: Any, strength: float = 1.0, **kwargs: Any) -> Tensor:
        mine = self.mine(x)
        h = base(torch.where(mine, 0, x), *args, **kwargs)
        centre = cast("Tensor | None", self.centre)
        P = strength * self.P if centre is None else torch.lerp(centre.expand_as(self.P), self.P, strength)
        return torch.where(mine[..., None], P[(x - self.first).clamp(0, self.length - 1)].to(h.dtype), h)


@torch.no_grad()
def rows_of(host: nn.Embedding, ids: Tensor) -> Tensor:
    """What the table gives for ids (n,) without deltas: its rows, or what a forward of its own makes of them."""
    cls, ids = original(host), ids.to(host.weight.device)
    if cls.forward is not nn.Embedding.forward:
        return cls.forward(host, ids)
    rows = host.weight.detach()[ids]
    return rows if host.max_norm is None else torch.renorm(rows, host.norm_type, 0, host.max_norm)


def prompts_of(host: nn.Module) -> list[tuple[str, Prompt]]:
    """The prompts that already stand on this host, whatever their name."""
    return [(n, d) for n, stack in stacks(host).items() for d in stack if isinstance(d, Prompt)]
