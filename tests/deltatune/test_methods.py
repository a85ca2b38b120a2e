"""The methods that change one linear map, each against its formula written out here, in fp64.

Legend: x (B, T, K) input, W (N, K) weight, b (N,) bias, A (R, K) and B (N, R) factors, s scale, a strength.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.pytorch_utils import Conv1D

import deltatune as dt
from deltatune.functional import dora_norm
from deltatune.host import deltas
from tests.support.cases import shaken
from tests.support.linear_host import K, N, R, linear, near


def conv1d(dtype: torch.dtype = torch.float64) -> nn.Module:
    host = Conv1D(N, K).to(dtype)
    nn.init.normal_(host.bias)
    return host


def stood_on(host: nn.Module, rule: dt.Rule, by: float = 0.3) -> tuple[nn.Module, Any]:
    """(the host as a whole model with the rule's delta, moved from where it started; the delta)."""
    model = nn.Sequential(host)
    dt.inject(model, rule)
    ((_, _, _, delta),) = deltas(shaken(model, by=by))
    return model, delta


def weight_bias(host: nn.Module) -> tuple[Tensor, Tensor]:
    """W (N, K) and b (N,) of either kind of host."""
    w: Any = host.weight
    b: Any = host.bias
    return (w.T if isinstance(host, Conv1D) else w), torch.zeros(N, dtype=w.dtype) if b is None else b


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 4, K, dtype=torch.float64)


HOSTS = {"linear": linear, "no-bias": lambda: linear(bias=False), "conv1d": conv1d}
every_host = pytest.mark.parametrize("make", HOSTS.values(), ids=HOSTS)
every_strength = pytest.mark.parametrize("a", [1.0, 0.5, -1.5])


@every_host
@every_strength
@pytest.mark.parametrize("rslora", [False, True])
def test_lora(make: Callable[[], nn.Module], a: float, rslora: bool, x: Tensor) -> None:
    """W x + b + a s B A x, s = alpha / R or alpha / √R."""
    host = make()
    (W, b), s = weight_bias(host), 5 / (math.sqrt(R) if rslora else R)
    model, d = stood_on(host, dt.LoRA.on("0", rank=R, alpha=5.0, rslora=rslora))
    assert d.A.shape == (R, K) and d.B.shape == (N, R)
    dt.use(model, default=a)
    near(model(x), x @ (W + a * s * d.B @ d.A).T + b)


def test_lora_starts_as_loralib() -> None:
    """A uniform in ±1/√K (Kaiming with a = √5), B zero; on an Embedding A zero, B standard normal."""
    wide = dt.LoRA(nn.Linear(400, 300), rank=50).requires_grad_(False)
    assert not wide.B.any()
    assert 0.99 / math.sqrt(400) < wide.A.abs().max() <= 1 / math.sqrt(400)
    assert abs(float(wide.A.std()) * math.sqrt(3 * 400) - 1) < 0.02  # 20,000 values: three deviations are 0.014
    rows = dt.LoRA(nn.Embedding(300, 400), rank=50).requires_grad_(False)
    assert not rows.A.any()
    assert abs(float(rows.B.std()) - 1) < 0.02 and abs(float(rows.B.mean())) < 0.03


def test_lora_on_an_embedding() -> None:
    """Rows of the table plus s · A[:, ids]ᵀ Bᵀ; A (R, V), B (D, R)."""
    table = nn.Embedding(9, 4, dtype=torch.float64)
    model, d = stood_on(table, dt.LoRA.on("0", rank=R, alpha=5.0))
    ids = torch.tensor([[0, 8, 3], [3, 3, 1]])
    near(model(ids), table.weight[ids] + 5 / R * (d.B @ d.A).T[ids])
    want = (table.weight + 5 / R * (d.B @ d.A).T).detach()
    with dt.merged(model):
        near(table.weight, want)


@pytest.mark.parametrize("kind", [dt.LoRA, dt.DoRA])
def test_dropout_is_on_the_deltas_input_alone(kind: type[dt.LoRA], x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTATUNE_KERNELS", "off")  # the plain path draws the mask that F.dropout draws
    host = linear()
    W, b = weight_bias(host)
    model, d = stood_on(host, kind.on("0", rank=R, alpha=5.0, dropout=0.4))
    torch.manual_seed(1)
    keep = F.dropout(torch.ones_like(x), 0.4)
    torch.manual_seed(1)
    got = model.train()(x)
    want = x @ W.T + (x * keep) @ (5 / R * d.B @ d.A).T
    if isinstance(d, dt.DoRA):
        want = want * d.m / (W + 5 / R * d.B @ d.A).norm(dim=1)
    near(got, want + b)
    assert 0 < (keep == 0).sum() < keep.numel()
    quiet = model.eval()(x)
    assert torch.equal(quiet, model(x))
    assert (quiet - got).abs().max() > 1e-3


def test_dropout_leaves_the_base_alone(x: Tensor) -> None:
    model = nn.Sequential(linear())
    base = model(x)
    dt.inject(model, dt.LoRA.on("0", dropout=0.9))
    assert torch.equal(model.train()(x), base)


@every_host
@every_strength
def test_dora(make: Callable[[], nn.Module], a: float, x: Tensor) -> None:
    """c ⊙ (W x + a s B A x) + b, c = 1 + a (m / ‖W + a s B A‖ − 1); at a = 1, m ⊙ V x / ‖V‖ + b."""
    host = make()
    W, b = weight_bias(host)
    model, d = stood_on(host, dt.DoRA.on("0", rank=R, alpha=5.0))
    V = W + a * 5 / R * d.B @ d.A
    c = 1 + a * (d.m / V.norm(dim=1) - 1)
    dt.use(model, default=a)
    near(model(x), (x @ V.T) * c + b)
    if a == 1:
        near(model(x), d.m * (x @ (V / V.norm(dim=1, keepdim=True)).T) + b)


@every_host
def test_dora_starts_at_the_row_norms(make: Callable[[], nn.Module]) -> None:
    host = make()
    near(dt.DoRA(host).m.detach(), weight_bias(host)[0].norm(dim=1).detach())


def test_doras_norm_needs_no_sum_of_the_weights() -> None:
    W, A, B = (torch.randn(*s, dtype=torch.float64) for s in ((N, K), (R, K), (N, R)))
    near(dora_norm(W, A, B, 1.7), (W + 1.7 * B @ A).norm(dim=1))
    near(dora_norm(W, A, torch.zeros_like(B), 1.7), W.norm(dim=1))


def test_doras_norm_takes_no_gradient(x: Tensor) -> None:
    """Gradients are those of the formula with the norm as a constant (section 4.3), and not the full ones."""
    host = linear()
    W, b = weight_bias(host)
    model, d = stood_on(host, dt.DoRA.on("0", rank=R, alpha=5.0))
    weights = torch.randn(2, 4, N, dtype=torch.float64)
    x.requires_grad_()
    wanted = (x, d.A, d.B, d.m)

    def slopes(y: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((y * weights).sum(), wanted)

    V = W + 5 / R * d.B @ d.A
    norm = V.norm(dim=1)
    got = slopes(model(x))
    for one, want in zip(got, slopes(d.m * (x @ V.T) / norm.detach() + b)):
        near(one, want, 100)
    through = slopes(d.m * (x @ (W + 5 / R * d.B @ d.A).T) / (W + 5 / R * d.B @ d.A).norm(dim=1) + b)
    assert (got[1] - through[1]).abs().max() > 1e-3 and (got[2] - through[2]).abs().max() > 1e-3


class Sizes(TorchDispatchMode):
    """The elements of every tensor that an operator makes (views of older ones are not new)."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and not func.is_view:
            self.made.append(out.numel())
        return out


def test_dora_builds_nothing_of_the_weights_size() -> None:
    host = nn.Linear(64, 48)
    model, _ = stood_on(host, dt.DoRA.on("0", rank=4))
    with Sizes() as sizes:
        model(torch.randn(2, 64)).sum().backward()
    assert sizes.made and max(sizes.made) < 64 * 48
    with Sizes() as naive:  # the counter sees what it should see
        (host.weight + 0).sum()
    assert max(naive.made) == 64 * 48


@pytest.mark.parametrize("form", ["serial", "parallel"])
@pytest.mark.parametrize("act", ["relu", "gelu", "silu"])
@pytest.mark.parametrize("a", [1.0, 0.5])
def test_adapter(form: str, act: str, a: float, x: Tensor) -> None:
    """h + a · scale · (W₂ act(W₁ z + b₁) + b₂), z = h serial, x parallel; scale 1 and 4 unless said."""
    host = linear()
    W, b = weight_bias(host)
    given = {"relu": None, "gelu": 2.5, "silu": None}[act]
    model, d = stood_on(host, dt.Adapter.on("0", width=5, form=form, act=act, scale=given))
    h = x @ W.T + b
    z = h if form == "serial" else x
    hidden = {
        "relu": lambda t: t.clamp_min(0),
        "gelu": lambda t: t * (1 + torch.erf(t / math.sqrt(2))) / 2,
        "silu": lambda t: t / (1 + torch.exp(-t)),
    }[act](z @ d.down.weight.T + d.down.bias)
    scale = given or {"serial": 1.0, "parallel": 4.0}[form]
    dt.use(model, default=a)
    near(model(x), h + a * scale * (hidden @ d.up.weight.T + d.up.bias))


@pytest.mark.parametrize("form", ["serial", "parallel"])
def test_adapter_starts_at_zero(form: str) -> None:
    d = dt.Adapter(nn.Linear(400, 100), width=50, form=form)
    into = 100 if form == "serial" else 400
    assert d.down.weight.shape == (50, into) and d.up.weight.shape == (100, 50)
    assert not d.down.bias.any() and not d.up.weight.any() and not d.up.bias.any()
    assert 0.98 / math.sqrt(into) < d.down.weight.abs().max() <= 1 / math.sqrt(into)


def test_adapter_around_a_module_with_a_tuple_and_a_named_input() -> None:
    """Any module whose (first) output is the hidden state; the rest of the tuple passes through."""

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(K, K, dtype=torch.float64)

        def forward(self, hidden_states: Tensor, more: str = "") -> tuple[Tensor, str]:
            return self.map(hidden_states), more

    part = Part()
    x = torch.randn(2, K, dtype=torch.float64)
    h = part.map(x)
    dt.inject(part, dt.Adapter.on("", width=5, form="parallel", act="gelu"))
    ((_, _, _, d),) = deltas(shaken(part))
    out, more = part(more="kept", hidden_states=x)
    near(out, h + d.change(x, h))
    assert more == "kept" and torch.equal(part(x)[0], out)


@every_host
@every_strength
def test_ia3_scales_the_output(make: Callable[[], nn.Module], a: float, x: Tensor) -> None:
    """(1 + a (l − 1)) ⊙ (W x + b)."""
    host = make()
    W, b = weight_bias(host)
    model, d = stood_on(host, dt.IA3.on("0"))
    dt.use(model, default=a)
    near(model(x), (1 + a * (d.l - 1)) * (x @ W.T + b))


@every_host
@every_strength
def test_ia3_scales_the_input(make: Callable[[], nn.Module], a: float, x: Tensor) -> None:
    """W ((1 + a (l − 1)) ⊙ x) + b."""
    host = make()
    W, b = weight_bias(host)
    model, d = stood_on(host, dt.IA3.on("0", form="input"))
    dt.use(model, default=a)
    near(model(x), ((1 + a * (d.l - 1)) * x) @ W.T + b)


@pytest.mark.parametrize("form", ["output", "input"])
def test_ia3_starts_at_one_over_its_span(form: str, x: Tensor) -> None:
    host = linear()
    W, b = weight_bias(host)
    d = dt.IA3(host, form=form, span=(2, 5))
    assert torch.equal(d.l, torch.ones(3, dtype=torch.float64))
    model, d = stood_on(host, dt.IA3.on("0", form=form, span=(2, 5)))
    l = torch.cat([torch.ones(2), d.l, torch.ones((N if form == "output" else K) - 5)])
    near(model(x), l * (x @ W.T + b) if form == "output" else (l * x) @ W.T + b)


SCALE_BY = {
    "LoRA": (dt.LoRA.on("0", rank=2), linear),
    "rsLoRA": (dt.LoRA.on("0", rank=2, rslora=True), conv1d),
    "serial": (dt.Adapter.on("0", width=3, act="gelu"), linear),
    "parallel": (dt.Adapter.on("0", width=3, form="parallel", act="silu"), linear),
    "added bias": (dt.BitFit.on("0"), lambda: linear(bias=False)),
    "bias": (dt.BitFit.on("0"), linear),
    "IA3": (dt.IA3.on("0", span=(1, 4)), conv1d),
    "IA3 input": (dt.IA3.on("0", form="input"), linear),
    "Full": (dt.Full.on("0"), linear),
    "Head": (dt.Head.on("0"), linear),
}


@pytest.mark.parametrize("name", SCALE_BY)
@pytest.mark.parametrize("a", [1.0, 0.7])
def test_gradients_are_the_derivatives(name: str, a: float) -> None:
    """Finite differences check those of the input and every parameter of the delta; DoRA has a test of its own."""
    rule, make = SCALE_BY[name]
    model, _ = stood_on(make(), rule)
    dt.use(model, default=a)
    names, ps = zip(*dt.parameters(model))

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return functional_call(model, dict(zip(names, values)), (x,))

    x = torch.randn(2, K, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *ps))


def test_the_table_holds_every_method() -> None:
    assert list(dt.METHODS) == [
        "LoRA",
        "DoRA",
        "Adapter",
        "Prefix",
        "Prompt",
        "BitFit",
        "IA3",
        "Full",
        "Head",
        "Rows",
    ]
    assert all(dt.METHODS[n] is getattr(dt, n) and issubclass(dt.METHODS[n], dt.DeltaModule) for n in dt.METHODS)
    decay = {n for n, m in dt.METHODS.items() if m.weight_decay}
    assert decay == {"LoRA", "DoRA", "Adapter", "Full", "Head"}
