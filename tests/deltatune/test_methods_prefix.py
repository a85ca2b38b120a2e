"""Prefix tuning against attention written out here: softmax over [P; K], the gate, masks, groups, the start.

Legend: B batch, H query heads, G key/value heads, T queries, S keys, L prefix length, C head size.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deltatune as dt
from deltatune.attention import attend_gated, attend_prefixed
from deltatune.host import deltas
from tests.support.cases import shaken
from tests.support.hosts import GPT2, Bert, Llama, ids, pad_ids
from tests.support.linear_host import near

B, H, G, T, S, L, C = 2, 4, 2, 3, 5, 4, 6


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def by_hand(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float | None = None) -> Tensor:
    """softmax(q kᵀ · scale + seen) v; seen (T, S) or larger, −inf where a key is hidden; heads in groups."""
    k, v = (t.repeat_interleave(q.shape[-3] // t.shape[-3], -3) for t in (k, v))
    weights = torch.exp(q @ k.transpose(-1, -2) * (scale or 1 / math.sqrt(C)) + seen)
    return weights @ v / weights.sum(-1, keepdim=True)


def with_prefix(p: Tensor, t: Tensor) -> Tensor:
    return torch.cat([p.expand(len(t), -1, -1, -1), t], -2)


HIDDEN = torch.tensor([[1, 1, 0, 1, 1], [1, 0, 0, 1, 1], [1, 1, 1, 1, 0]]).bool()
ROWS = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()[:, None, None, :]  # (B, 1, 1, S), padding
MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "bool": {"attn_mask": HIDDEN},
    "padding": {"attn_mask": ROWS},
    "float": {"attn_mask": normal(T, S)},
    "float-padding": {"attn_mask": torch.zeros(B, 1, 1, S).double().masked_fill(~ROWS, -math.inf)},
    "causal": {"is_causal": True},
    "broadcast": {"attn_mask": torch.ones(T, 1, dtype=torch.bool)},
    "scale": {"scale": 0.7},
}


def as_sum(given: dict[str, Any]) -> Tensor:
    """The mask as it is added to the scores, (…, S)."""
    mask = torch.ones(T, S).tril().bool() if given.get("is_causal") else given.get("attn_mask")
    if mask is None:
        return torch.zeros(T, S, dtype=torch.float64)
    if mask.dtype is not torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -math.inf).expand(*mask.shape[:-1], S)


@pytest.fixture(params=[G, H], ids=["grouped", "per-head"])
def qkv(request: pytest.FixtureRequest) -> tuple[Tensor, ...]:
    """q, k, v, and the prefix's keys and values."""
    heads = request.param
    return (
        normal(B, H, T, C),
        normal(B, heads, S, C),
        normal(B, heads, S, C),
        normal(G, L, C),
        normal(G, L, C),
    )


every_mask = pytest.mark.parametrize("mask", MASKS)


@every_mask
def test_a_prefix_is_more_keys_and_values(mask: str, qkv: tuple[Tensor, ...]) -> None:
    """softmax over [P; K], every query seeing the whole prefix."""
    q, k, v, pk, pv = qkv
    given = MASKS[mask]
    grouped = {"enable_gqa": True} if k.shape[1] == G else {}
    got = attend_prefixed(F.scaled_dot_product_attention, q, k, v, pk, pv, **given, **grouped)
    pk, pv = (p.repeat_interleave(k.shape[1] // G, 0) for p in (pk, pv))
    seen = F.pad(as_sum(given), (L, 0))
    near(got, by_hand(q, with_prefix(pk, k), with_prefix(pv, v), seen, given.get("scale")), 100)


@every_mask
@pytest.mark.parametrize("gate", [0.0, 0.3, 1.0, "per head"])
def test_the_gate_scales_the_prefixs_softmax_mass(mask: str, gate: float | str, qkv: tuple[Tensor, ...]) -> None:
    """attn(K) + g λ (attn(P) − attn(K)), λ the sum of the prefix's weights over that of all."""
    q, k, v, pk, pv = qkv
    given = MASKS[mask]
    grouped = {"enable_gqa": True} if k.shape[1] == G else {}
    g = torch.tensor([0.4, -1.2], dtype=torch.float64) if isinstance(gate, str) else gate
    got = attend_gated(F.scaled_dot_product_attention, q, k, v, pk, pv, g, **given, **grouped)
    scale, seen = given.get("scale") or 1 / math.sqrt(C), as_sum(given)
    own, theirs = (p.repeat_interleave(H // p.shape[-3], -3) for p in (k, pk))
    mass, prefix = (q @ own.mT * scale + seen).exp().sum(-1), (q @ theirs.mT * scale).exp().sum(-1)
    share = (prefix / (prefix + mass))[..., None]
    h, p = by_hand(q, k, v, seen, scale), by_hand(q, pk, pv, torch.zeros(T, L).double(), scale)
    factor = g.repeat_interleave(H // G)[:, None, None] if isinstance(g, Tensor) else g
    want = h + factor * share * (p - h)
    near(got, want, 100)


@every_mask
def test_a_gate_of_one_is_concatenation_and_of_zero_the_base(mask: str, qkv: tuple[Tensor, ...]) -> None:
    """The λ identity of He et al. 2022, eq. 7."""
    q, k, v, pk, pv = qkv
    given = MASKS[mask] | ({"enable_gqa": True} if k.shape[1] == G else {})
    attend = F.scaled_dot_product_attention
    whole = attend_prefixed(attend, q, k, v, pk, pv, **given)
    near(attend_gated(attend, q, k, v, pk, pv, 1.0, **given), whole, 100)
    assert torch.equal(attend_gated(attend, q, k, v, pk, pv, 0.0, **given), attend(q, k, v, **given))


def test_a_long_causal_prefix_reads_any_layout() -> None:
    """The fused kernel takes the head size as dense, whatever the strides say."""
    pk, pv = normal(H, L, C), normal(H, L, C)
    q, k, v = (normal(1, H, C, 256).mT for _ in range(3))
    for strided in ((q, k, v), (q, k.contiguous(), v.contiguous()), (q.contiguous(), k.contiguous(), v)):
        got = attend_prefixed(F.scaled_dot_product_attention, *strided, pk, pv, is_causal=True)
        seen = torch.zeros(256, 256).double().masked_fill(torch.ones(256, 256).triu(1).bool(), -math.inf)
        near(got, by_hand(q, with_prefix(pk, k), with_prefix(pv, v), F.pad(seen, (L, 0))), 1000)


@pytest.mark.parametrize("kind", ["bool", "float", "infinite"])
def test_a_query_that_sees_no_key_sees_the_prefix(kind: str) -> None:
    """Padding on the left hides every key from a padding query: with a prefix, λ = 1, and gradients exist."""
    q, k, v = (normal(1, 2, 3, C).requires_grad_() for _ in range(3))
    pk, pv = (normal(2, L, C).requires_grad_() for _ in range(2))
    mask = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 1, 1]]).bool()
    if kind != "bool":
        hidden = torch.finfo(torch.float64).min if kind == "float" else -math.inf
        mask = torch.zeros(3, 3, dtype=torch.float64).masked_fill(~mask, hidden)
    attend, wanted = F.scaled_dot_product_attention, (q, k, v, pk, pv)
    whole = attend_prefixed(attend, q, k, v, pk, pv, attn_mask=mask)
    gated = attend_gated(attend, q, k, v, pk, pv, 1.0, attn_mask=mask)
    near(gated, whole, 100)
    weights = torch.randn_like(whole)
    slopes = [torch.autograd.grad((out * weights).sum(), wanted) for out in (whole, gated)]
    for one, other in zip(*slopes):
        near(other, one, 1000)


class Attention(nn.Module):
    """Grouped-query attention in fp64 that keeps what it attended with."""

    def __init__(self) -> None:
        super().__init__()
        self.head_dim = C
        kind: dict[str, Any] = {"bias": False, "dtype": torch.float64}
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(8, n * C, **kind) for n in (H, G, G))
        self.o_proj = nn.Linear(H * C, 8, **kind)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        q, k, v = self.parts(x)
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return self.o_proj(h.transpose(1, 2).flatten(2))

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(p(x).unflatten(-1, (-1, C)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))

    def by_hand(self, x: Tensor, pk: Tensor, pv: Tensor) -> Tensor:
        q, k, v = self.parts(x)
        h = by_hand(q, with_prefix(pk, k), with_prefix(pv, v), torch.zeros(1, dtype=torch.float64))
        return self.o_proj(h.transpose(1, 2).flatten(2))


def prefixed(**hparams: Any) -> tuple[Attention, Any]:
    model = Attention()
    dt.inject(model, dt.Prefix.on("", length=L, **hparams))
    ((_, _, _, d),) = deltas(shaken(model, by=0.5))
    return model, d


def test_ungated_is_concatenation() -> None:
    model, d = prefixed(gated=False)
    assert d.k.shape == d.v.shape == (G, L, C) and d.gate is None and not d.identity_at_init
    x = normal(B, S, 8)
    near(model(x), model.by_hand(x, d.k, d.v), 100)


def test_the_mlp_is_added_to_keys_and_values() -> None:
    """k + and v + W₂ tanh(W₁ E + b₁) + b₂, zero at the start."""
    start: Any = dt.Prefix(Attention(), length=L, reparam=5, gated=False)
    assert all(torch.equal(a, b) for a, b in zip(start.keys_values(), (start.k, start.v)))
    model, d = prefixed(gated=False, reparam=5)
    assert d.E.shape == (L, 5)
    W1, b1, W2, b2 = (p for n in (0, 2) for p in (d.mlp[n].weight, d.mlp[n].bias))
    both = torch.tanh(d.E @ W1.T + b1) @ W2.T + b2  # (L, 2 · G · C), keys first
    k, v = (t.view(L, G, C).transpose(0, 1) for t in both.chunk(2, 1))
    x = normal(B, S, 8)
    near(model(x), model.by_hand(x, d.k + k, d.v + v), 100)


def test_strength_scales_the_gate() -> None:
    model, d = prefixed()
    x = normal(B, S, 8)
    dt.use(model, default=0.5)
    got = model(x)
    with torch.no_grad():
        d.gate *= 0.5
    dt.use(model, "default")
    near(got, model(x), 1000)
    open_, o = prefixed(gated=False)
    attended = open_(x)
    dt.use(open_)
    base = open_(x)
    dt.use(open_, default=0.5)
    mixed = open_(x)
    assert (mixed - attended).abs().max() > 1e-3 and (mixed - base).abs().max() > 1e-3
    near(mixed, (attended + base) / 2, 1000)  # the gate is linear in attention's output
    assert o.gate is None


def test_a_gate_of_zero_starts_as_the_base_and_learns() -> None:
    model = Attention()
    x = normal(B, S, 8)
    base = model(x)
    dt.inject(model, dt.Prefix.on("", length=L))
    assert torch.equal(model(x), base)
    ((_, _, _, d),) = deltas(model)
    model(x).square().sum().backward()
    assert d.gate.grad.abs().min() > 0  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("side", ["left", "right", "none"])
def test_an_example_starts_it_from_real_tokens(side: str) -> None:
    """The first L real tokens' keys and values, row after row, padding left out; and no gate."""
    x = normal(B, S, 8)
    mask = {"left": [[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]], "right": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]}
    model = Attention()
    example: dict[str, Any] = {"x": x}
    real = torch.ones(B, S).bool()
    if side != "none":
        real = torch.tensor(mask[side]).bool()
        example["attention_mask"] = real.long()
    dt.inject(model, dt.Prefix.on("", length=L), example=example)
    ((_, _, _, d),) = deltas(model)
    _, k, v = model.parts(x)
    for got, t in ((d.k, k), (d.v, v)):
        rows = torch.stack([t[b, :, s] for b in range(B) for s in range(S) if real[b, s]][:L], 1)
        assert torch.equal(got, rows)  # type: ignore[arg-type]
    assert d.gate is None and not d.gated and not d.identity_at_init
    assert model.training and "forward" not in d.__dict__
    near(model(x), model.by_hand(x, d.k, d.v), 100)  # type: ignore[arg-type]


def test_a_primed_prefix_holds_what_the_model_attended_to() -> None:
    """Llama's keys are taken behind position encoding: a prefix primed from a text's start is its cache."""
    model, plain = Llama().model(), Llama().model()
    front, text = ids(1, 4), ids(1, 9)[:, 4:]
    dt.inject(model, dt.Prefix.on(length=4), example={"input_ids": front})
    positions = torch.arange(4, 9)[None]
    got = model(text, position_ids=positions).logits
    want = plain(torch.cat([front, text], 1)).logits[:, 4:]
    near(got, want, 1000)


def test_an_example_that_is_too_short_is_refused() -> None:
    model = Attention()
    with pytest.raises(dt.DeltaError, match="the example has 3 real tokens, fewer than the prefix's 4"):
        dt.inject(model, dt.Prefix.on("", length=L), example={"x": normal(1, 3, 8)})
    assert type(model) is Attention and "deltas" not in model._modules and model.training


def test_sizes_that_the_host_hides_are_asked_for_and_checked() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.all = nn.Linear(8, 24)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.all(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            return F.scaled_dot_product_attention(q, k, v)

    with pytest.raises(dt.DeltaError, match="give heads= and head_dim="):
        dt.inject(Packed(), dt.Prefix.on("", length=2))
    model, x = Packed(), torch.randn(1, 5, 8)
    dt.inject(model, dt.Prefix.on("", length=2, heads=2, head_dim=4, gated=False))
    assert model(x).shape == (1, 2, 5, 4)
    with pytest.raises(dt.DeltaError, match=r"the host's key heads are \(2, 4\), not"):
        dt.inject(Packed(), dt.Prefix.on("", length=2, heads=2, head_dim=3), example={"x": x})


@pytest.mark.parametrize("host", [Llama(), GPT2(), Bert()], ids=lambda h: h.name)
def test_heads_and_sizes_are_read_from_the_model(host: Any) -> None:
    plan = dt.plan(host.model(), dt.Prefix.on(length=3))
    heads = 2 if host.name == "llama" else 4
    assert {r.shapes["k"] for r in plan.rows} == {(heads, 3, 8)} and len(plan.rows) == 2


@pytest.mark.parametrize("gated", [True, False])
def test_gradients_are_the_derivatives(gated: bool) -> None:
    model, _ = prefixed(gated=gated, reparam=3)
    names, ps = zip(*dt.parameters(model))

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(model, dict(zip(names, values)), (x,))

    assert torch.autograd.gradcheck(run, (normal(1, 2, 8).requires_grad_(), *ps))


@pytest.mark.parametrize("gated", [True, False])
def test_padding_on_the_left_gives_finite_gradients(gated: bool) -> None:
    """A padding query at the start sees no key at all."""
    model = Llama().model()
    dt.inject(model, dt.Prefix.on(length=3, gated=gated), dt.LoRA.on(rank=2))
    tokens, mask = pad_ids(ids(2, 5), [5, 2], "left")
    shaken(model)
    model(tokens, attention_mask=mask).logits[mask.bool()].square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for _, p in dt.parameters(model))
