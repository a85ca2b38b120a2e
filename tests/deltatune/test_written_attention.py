"""Prefixes in attention that a module writes out itself, against keys and values put in by hand.

Legend: B batch, H query heads, G key/value heads, T tokens, L prefix length, C head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

import deltatune as dt
from deltatune.host import deltas
from tests.support.cases import assert_close, run, shaken
from tests.support.hosts import EagerLlama, EncoderLayer
from tests.support.linear_host import near

B, H, G, T, L, C = 2, 4, 2, 5, 3, 6
D = H * C


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


CAUSAL = torch.ones(T, T, dtype=torch.bool).tril()
BIAS = torch.randn(H, T, T, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SINK = torch.randn(H, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
Own = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v, each (B, H, T, C), -> (B, H, T, C)


def usual(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2) / math.sqrt(C)
    return F.dropout(scores.masked_fill(~CAUSAL, -math.inf).softmax(-1), 0.0, False) @ v


def in_one_batch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    scores = torch.baddbmm(BIAS.repeat(B, 1, 1), q, k.mT, beta=1.0, alpha=0.3)
    shares = F.softmax(scores.view(B, H, T, T) + 0.0, dim=-1, dtype=torch.float64).view(B * H, T, T)
    return torch.bmm(shares, v).view(B, H, T, C)


def named_indices(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (t.permute(2, 0, 1, 3) for t in (q, k, v))  # (T, B, H, C)
    scores = torch.einsum("ibnd,jbnd->bnij", q, k)
    scores = torch.where(CAUSAL, scores * 0.2, torch.tensor(-1e30, dtype=torch.float64))
    return torch.einsum("bnij,jbnd->ibnd", torch.softmax(scores, 3), v).permute(1, 2, 0, 3)


def capped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.tanh(torch.matmul(q, k.transpose(2, 3)) * 0.5 / 3.0) * 3.0
    scores = scores + torch.zeros(1, 1, T, T).double().masked_fill(~CAUSAL, torch.finfo(torch.float64).min)
    return torch.matmul(nn.functional.softmax(scores, dim=-1), v)


def with_a_sink(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.mT * 0.4
    whole = torch.cat([scores, SINK.view(1, H, 1, 1).expand(B, H, T, 1)], -1)
    whole = whole - whole.max(dim=-1, keepdim=True).values
    return whole.softmax(-1)[..., :-1] @ v


def in_place(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.mT
    scores *= 0.4
    scores += BIAS
    scores.masked_fill_(~CAUSAL, -1e9)
    return nn.Softmax(-1)(scores).to(torch.float64) @ v


def by_groups(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = q.unflatten(1, (G, H // G)), k[:, :: H // G, None], v[:, :: H // G, None]
    return ((q @ k.mT * 0.4).softmax(-1) @ v).flatten(1, 2)


# The bias and mask of each on its own keys, its scale, a cap, and what else has a share.
FORMS: dict[str, tuple[Own, dict[str, Any]]] = {
    "usual": (usual, {"scale": 1 / math.sqrt(C), "causal": True}),
    "one batch": (in_one_batch, {"scale": 0.3, "bias": BIAS}),
    "einsum": (named_indices, {"scale": 0.2, "causal": True}),
    "capped": (capped, {"scale": 0.5, "causal": True, "cap": 3.0}),
    "sink": (with_a_sink, {"scale": 0.4, "sink": SINK}),
    "in place": (in_place, {"scale": 0.4, "bias": BIAS, "causal": True}),
    "groups": (by_groups, {"scale": 0.4}),
}


class Writes(nn.Module):
    """Grouped-query attention that a function of ours computes."""

    def __init__(self, form: Own, heads: int = G) -> None:
        super().__init__()
        self.form, self.head_dim = form, C
        kind: dict[str, Any] = {"bias": False, "dtype": torch.float64}
        self.q_proj, self.o_proj = nn.Linear(8, D, **kind), nn.Linear(D, 8, **kind)
        self.k_proj, self.v_proj = (nn.Linear(8, heads * C, **kind) for _ in range(2))

    def parts(self, x: Tensor) -> list[Tensor]:
        parts = [p(x).unflatten(-1, (-1, C)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)]
        return [t.repeat_interleave(H // t.shape[1], 1) for t in parts]

    def forward(self, x: Tensor) -> Tensor:
        return self.o_proj(self.form(*self.parts(x)).transpose(1, 2).flatten(2))


def by_hand(model: Writes, x: Tensor, pk: Tensor, pv: Tensor, how: dict[str, Any], gate: Tensor | None) -> Tensor:
    """softmax over [P; K; sink] and, gated, (1 − g λ) of attention without P and g λ of attention to P alone."""
    q, k, v = model.parts(x)
    pk, pv = (p.repeat_interleave(H // len(p), 0).expand(B, -1, -1, -1) for p in (pk, pv))

    bias = how.get("bias", torch.zeros(1, 1, T, dtype=torch.float64))

    def scores(keys: Tensor, bias: Tensor = bias[..., :1]) -> Tensor:
        """A prefix has the bias of the first key."""
        raw = q @ keys.mT * how["scale"]
        return (how["cap"] * torch.tanh(raw / how["cap"]) if "cap" in how else raw) + bias

    own = scores(k, bias)
    if how.get("causal"):
        own = own.masked_fill(~CAUSAL, -math.inf)
    sink = how["sink"].view(1, H, 1, 1).expand(B, H, T, 1) if "sink" in how else own[..., :0]
    whole = torch.cat([scores(pk), own, sink], -1).softmax(-1)
    if gate is None:
        h = whole[..., :L] @ pv + whole[..., L : L + T] @ v
    else:
        share = gate.repeat_interleave(H // len(gate)).view(H, 1, 1) * whole[..., :L].sum(-1, keepdim=True)
        alone = torch.cat([own, sink], -1).softmax(-1)[..., :T] @ v
        h = (1 - share) * alone + share * (scores(pk).softmax(-1) @ pv)
    return model.o_proj(h.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_it_is_more_keys_and_values_in_the_modules_own_softmax(form: str, gated: bool) -> None:
    own, how = FORMS[form]
    model, x = Writes(own), torch.randn(B, T, 8, dtype=torch.float64)
    base = model(x)
    dt.inject(model, dt.Prefix.on("", length=L, gated=gated))
    if gated:
        assert torch.equal(model(x), base)
    shaken(model, by=0.5)
    ((_, _, _, d),) = deltas(model)
    near(model(x), by_hand(model, x, d.k, d.v, how, d.gate), 1000)  # type: ignore[arg-type]
    with dt.active(model):
        assert torch.equal(model(x), base)


@pytest.mark.parametrize("form", FORMS)
def test_its_gradients_are_the_derivatives_and_verify_finds_it(form: str) -> None:
    model, x = Writes(FORMS[form][0]), torch.randn(B, T, 8, dtype=torch.float64)
    dt.inject(model, dt.Prefix.on("", length=L))
    shaken(model, by=0.5)
    dt.verify(model, x)
    names, ps = zip(*dt.parameters(model))
    assert torch.autograd.gradcheck(lambda *v: torch.func.functional_call(model, dict(zip(names, v)), (x,)), ps)


@pytest.mark.parametrize("gates", [(False, False), (True, False), (False, True), (True, True)])
def test_two_prefixes_are_what_they_are_in_torchs_attention(gates: tuple[bool, bool]) -> None:
    def torchs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, CAUSAL)

    x, outs = torch.randn(B, T, 8, dtype=torch.float64), []
    for form in (usual, torchs):
        torch.manual_seed(3)
        model = Writes(form)
        for name, gated in zip("ab", gates):
            dt.inject(model, dt.Prefix.on("", length=L, gated=gated), name=name)
        shaken(model, by=0.5)
        outs.append([model(x)])
        for strengths in ({"a": 0.5, "b": 1.0}, {"b": 0.3}):
            dt.use(model, **strengths)
            outs[-1].append(model(x))
    for got, want in zip(*outs):
        near(got, want, 1000)


@pytest.mark.parametrize("form", ["usual", "one batch", "einsum", "capped"])
def test_an_example_starts_it(form: str) -> None:
    model, x = Writes(FORMS[form][0], heads=H), torch.randn(B, T, 8, dtype=torch.float64)
    dt.inject(model, dt.Prefix.on("", length=L), example={"x": x})
    ((_, _, _, d),) = deltas(model)
    _, k, v = model.parts(x)
    assert torch.equal(d.k, k[0, :, :L]) and torch.equal(d.v, v[0, :, :L])  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_torchs_multi_head_attention_takes_it(weights: bool, first: bool) -> None:
    layer = nn.MultiheadAttention(D, H, batch_first=first, dtype=torch.float64).eval()
    x = torch.randn(B, T, D, dtype=torch.float64)
    q, k, v = F.linear(x, layer.in_proj_weight, layer.in_proj_bias).unflatten(-1, (3, H, C)).permute(2, 0, 3, 1, 4)
    dt.inject(layer, dt.Prefix.on("", length=L, gated=False))
    ((_, _, _, d),) = deltas(shaken(layer, by=0.5))
    pk, pv = (p.expand(B, -1, -1, -1) for p in (d.k, d.v))
    shares = (q @ torch.cat([pk, k], 2).mT / math.sqrt(C)).softmax(-1)  # type: ignore[list-item]
    h = shares @ torch.cat([pv, v], 2)  # type: ignore[list-item]
    want = F.linear(h.transpose(1, 2).flatten(2), layer.out_proj.weight, layer.out_proj.bias)
    given = x if first else x.transpose(0, 1)
    got, mean = layer(given, given, given, need_weights=weights)
    near(got if first else got.transpose(0, 1), want, 1000)
    assert (mean is not None) == weights


def test_torchs_encoder_layer_takes_it_in_train_and_eval() -> None:
    host = EncoderLayer()
    model = host.model()
    base = run(host, model)
    dt.inject(model, dt.Prefix.on(length=2))
    assert torch.equal(run(host, model), base)
    trained = run(host, shaken(model, by=0.5))
    assert_close(run(host, model.eval()), trained, host.reduction)
    dt.eject(model)
    assert_close(run(host, model), base, host.reduction)


def gemma2(**more: Any) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, initializer_range=0.2, attn_logit_softcapping=2.0, query_pre_attn_scalar=8,
        **more,
    )  # fmt: skip
    return transformers.Gemma2ForCausalLM(config).eval()


@pytest.mark.parametrize("kind", ["flash_attention_2", "flex_attention", "eager"])
def test_other_implementations_are_opened_and_closed_again(kind: str) -> None:
    """A prefix in attention that cannot be entered takes the written-out form; the last one gives the old one back."""
    host, outs = EagerLlama(), []
    for each in ("eager", kind):
        model = host.model()
        for m in model.modules():
            if isinstance(m, transformers.PreTrainedModel):
                m.config._attn_implementation = each
        torch.manual_seed(0)
        dt.inject(model, dt.Prefix.on(length=3, gated=False))
        outs.append(run(host, shaken(model)))
        dt.eject(model)
        assert {m.config._attn_implementation for m in model.modules() if hasattr(m, "config")} == {each}
    assert_close(outs[1], outs[0], host.reduction)


def test_soft_capping_holds_for_the_prefix_too() -> None:
    """A prefix primed from a text's start is that text to what comes after it, positions kept."""
    model, plain = gemma2(), gemma2()
    text = torch.randint(3, 50, (1, 9))
    dt.inject(model, dt.Prefix.on(length=4), example={"input_ids": text[:, :4]})
    with torch.no_grad():
        got = model(text[:, 4:], position_ids=torch.arange(4, 9)[None]).logits
        near(got, plain(text).logits[:, 4:], 10_000)


class OnlyTorchs(dt.DeltaModule):
    """A delta of attention that knows torch's own form alone."""

    site = "attention"

    def __init__(self, host: nn.Module):
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, base: Callable[..., Tensor], *args: Any, strength: float = 1.0, **kwargs: Any) -> Tensor:
        return base(*args, **kwargs) * self.g


def test_a_delta_that_knows_torchs_attention_alone_is_refused_in_another() -> None:
    model, x = Writes(usual), torch.randn(B, T, 8, dtype=torch.float64)
    dt.inject(model, OnlyTorchs.on(""))
    with pytest.raises(dt.NotReached, match=r"writes its attention out, and OnlyTorchs\.forward takes no `written`"):
        model(x)
