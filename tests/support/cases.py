"""The methods as the laws see them, what is refused where, and the few verbs that the laws share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import deltatune as dt
from tests.support.hosts import Batch, Host, ids

Rules = tuple[dt.Rule, ...]


@dataclass(frozen=True)
class Case:
    """A method, or several under one name, put on a host.

    primed: started from an example batch. identity: the injected model computes what it did. exact: and that to
    the last bit. foldable: has a closed form as weights. everywhere: covers the output head and what is tied to it.
    """

    name: str
    rules: Callable[[Host], Rules]
    primed: bool = False
    identity: bool = True
    exact: bool = True
    foldable: bool = False
    everywhere: bool = False

    def inject(self, host: Host, model: nn.Module, name: str = "default") -> dt.Plan:
        example = host.batch(rows=2, tokens=5) if self.primed else None
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return dt.inject(model, *self.rules(host), name=name, example=example)

    def trained(self, host: Host, name: str = "default") -> nn.Module:
        """The host's model with this delta, its parameters no longer where they started."""
        model = host.model()
        self.inject(host, model, name)
        return shaken(model)


def same(*rules: dt.Rule) -> Callable[[Host], Rules]:
    return lambda host: rules


USED = tuple(sorted(set(ids(2, 6).flatten().tolist())))[:5]  # tokens that every batch holds
PARALLEL = dt.Adapter.on(width=5, form="parallel", act="silu")
CASES: tuple[Case, ...] = (
    Case("LoRA", same(dt.LoRA.on(rank=3)), foldable=True),
    Case("LoRA-rslora", same(dt.LoRA.on(rank=4, alpha=8.0, rslora=True)), foldable=True),
    Case("DoRA", same(dt.DoRA.on(rank=3)), exact=False, foldable=True),
    Case("Adapter-serial", same(dt.Adapter.on(width=5, act="gelu"))),
    Case("Adapter-parallel", same(PARALLEL)),
    Case("Prefix-gated", same(dt.Prefix.on(length=3))),
    Case("Prefix-primed", same(dt.Prefix.on(length=3)), primed=True, identity=False),
    Case("Prefix-reparam", same(dt.Prefix.on(length=3, reparam=7))),
    Case("Prompt", same(dt.Prompt.on(length=2))),
    Case("Prompt-primed", same(dt.Prompt.on(length=2)), primed=True),
    Case("BitFit", same(dt.BitFit.on()), foldable=True),
    Case("IA3", same(dt.IA3.on()), foldable=True),
    Case("Full", same(dt.Full.on()), foldable=True, everywhere=True),
    Case("Head", same(dt.Head.on()), foldable=True, everywhere=True),
    Case("Rows", same(dt.Rows.on(tokens=USED)), foldable=True, everywhere=True),
    Case("MAM", same(dt.Prefix.on(length=3), PARALLEL)),
)

NO_SPAN = (dt.NoMatch, "no module spans the feed-forward part alone")
NO_IDS = (dt.NoMatch, "has no token embedding")
NO_SITE = (dt.NoMatch, "matches no module of")
NO_SOFTMAX = (dt.NoMatch, "computes no softmax of queries and keys")
NO_HEAD = (dt.NoMatch, "has no head beside a backbone")
REFUSED: dict[tuple[str, str], tuple[type[dt.DeltaError], str]] = {
    ("Adapter-parallel", "bert"): NO_SPAN,
    ("Adapter-parallel", "encoder-layer"): NO_SPAN,
    ("MAM", "bert"): NO_SPAN,
    ("MAM", "encoder-layer"): NO_SPAN,
    ("Prompt", "encoder-layer"): NO_IDS,
    ("Prompt-primed", "encoder-layer"): NO_IDS,
    ("Prompt", "vit"): NO_IDS,
    ("Prompt-primed", "vit"): NO_IDS,
    **{(c, h): NO_IDS for c in ("Prompt", "Prompt-primed", "Rows") for h in ("conv-net", "u-net")},
    **{(c, "conv-net"): NO_SITE for c in ("Adapter-serial", "IA3", "MAM", "Prefix-gated", "Prefix-reparam")},
    ("Prefix-primed", "conv-net"): NO_SOFTMAX,  # its example has shown what the model computes
    **{("Adapter-parallel", h): NO_SPAN for h in ("conv-net", "u-net")},
    **{("Head", h): NO_HEAD for h in ("conv-net", "u-net")},
    ("MAM", "u-net"): NO_SPAN,
    ("Rows", "encoder-layer"): NO_IDS,
    ("Rows", "vit"): NO_IDS,
    ("Head", "nano"): NO_HEAD,
    ("Head", "encoder-layer"): NO_HEAD,
    ("Head", "gpt2"): NO_HEAD,  # lm_head is the token embedding, tied
    ("Head", "t5"): NO_HEAD,
}


def shaken(model: nn.Module, name: str | None = None, by: float = 0.1, seed: int = 5) -> nn.Module:
    """The model with seeded noise on every delta parameter, as if it had been trained."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in dt.parameters(model, name):
            p += by * torch.randn(p.shape, generator=noise, dtype=p.dtype)
    return model


def front(model: nn.Module) -> tuple[int, ...]:
    """The reserved ids of every prompt in the model."""
    ids = (d.first + i for d in model.modules() if isinstance(d, dt.Prompt) for i in range(d.length))
    return tuple(dict.fromkeys(ids))  # the tables of an encoder and a decoder hold one prompt


def batch_for(host: Host, model: nn.Module, rows: int = 2, tokens: int = 6) -> Batch:
    """A batch in which every delta of the model has something to do: prompts stand in front of the tokens."""
    return host.batch(rows, tokens, front(model))


def run(host: Host, model: nn.Module, batch: Batch | None = None) -> Tensor:
    """The output, without gradients: torch may attend by another kernel where inputs require them, so that outputs
    with and without are equal up to rounding alone."""
    with torch.no_grad():
        return host.run(model, batch_for(host, model) if batch is None else batch)


def tolerance(dtype: torch.dtype, reduction: int) -> float:
    """Two orders of one sum of n rounded products differ like a random walk, eps · √n; 16 of its deviations are
    allowed for, because softmax, norms and residual sums pass errors on magnified by small constant factors."""
    return 16 * torch.finfo(dtype).eps * reduction**0.5


def base_output(host: Host, batch: Batch | None = None) -> Tensor:
    """What the host computes without deltas. It is frozen as inject freezes it, because torch lays a product out by
    whether its weight requires a gradient, and rounds accordingly."""
    return run(host, host.model().requires_grad_(False), host.batch() if batch is None else batch)


def assert_close(got: Tensor, want: Tensor, reduction: int) -> None:
    """Equal up to rounding, measured against the largest value."""
    assert got.shape == want.shape and got.dtype == want.dtype
    assert torch.isfinite(want).all()
    error, scale = (got - want).abs().max(), want.abs().max()
    assert error <= tolerance(want.dtype, reduction) * scale, f"off by {error / scale:.2e} of the largest value"


def assert_gradients_close(got: dict[str, Tensor], want: dict[str, Tensor], reduction: int) -> None:
    """The same parameters' gradients, equal up to rounding of the largest: one may cancel to nothing (a key's bias
    does). Backward sums over rows and positions as well, here about twenty."""
    assert got.keys() == want.keys()
    largest = max(float(g.abs().max()) for g in want.values())
    for name, g in want.items():
        error = float((got[name] - g).abs().max())
        assert error <= tolerance(g.dtype, 20 * reduction) * largest, f"{name}: off by {error / largest:.2e}"


def assert_changed(got: Tensor, base: Tensor, reduction: int) -> None:
    """Different by far more than rounding: a law about a delta without effect would say nothing."""
    error, scale = (got - base).abs().max(), base.abs().max()
    assert error > 10 * tolerance(base.dtype, reduction) * scale, f"only {error / scale:.2e} of the largest value"
