"""Single hosts of uncommon kinds: reparametrised weights, tables, bilinear maps, linear layers of own forward."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import deltatune as dt
from deltatune.maps import linear_map
from tests.support.cases import shaken

pytestmark = [
    pytest.mark.law,
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),
]


def pruned(layer: nn.Module) -> nn.Module:
    return prune.l1_unstructured(layer, "weight", 0.5)


REPARAMETRISED: dict[str, Any] = {
    "weight-norm-hook": lambda: weight_norm(nn.Linear(4, 4)),
    "weight-norm": lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
    "weight-norm-conv": lambda: weight_norm(nn.Conv1d(4, 4, 3, padding=1)),
    "spectral-norm-hook": lambda: spectral_norm(nn.Linear(4, 4)),
    "spectral-norm": lambda: parametrizations.spectral_norm(nn.Linear(4, 4)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(4, 4)),
    "pruned": lambda: pruned(nn.Linear(4, 4)),
    "pruned-conv": lambda: pruned(nn.Conv1d(4, 4, 3, padding=1)),
}
ON_ANY = {
    "LoRA": dt.LoRA.on("0", rank=2),
    "DoRA": dt.DoRA.on("0", rank=2),
    "IA3": dt.IA3.on("0"),
    "IA3-input": dt.IA3.on("0", form="input"),
    "BitFit": dt.BitFit.on("0"),
    "Adapter": dt.Adapter.on("0", width=2),
    "Full": dt.Full.on("0"),
}


@pytest.mark.parametrize("method", ON_ANY)
@pytest.mark.parametrize("kind", REPARAMETRISED)
def test_a_reparametrised_weight(kind: str, method: str) -> None:
    """Called right with its weight as it is computed; merged right, or refused with what to do first."""
    torch.manual_seed(0)
    model, x = nn.Sequential(REPARAMETRISED[kind]()).eval().requires_grad_(False), torch.randn(2, 4, 4)
    base = model(x)
    dt.inject(model, ON_ANY[method])
    torch.testing.assert_close(model(x), base)
    dt.verify(model, x)
    shaken(model)
    called = model(x)
    assert (called - base).abs().max() > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(model(x), called)
        if method in ("BitFit", "Full"):
            with dt.merged(model):
                torch.testing.assert_close(model(x), called)
        else:
            with pytest.raises(dt.NotFoldable, match=r"^0: .*(reparametrised|no closed form)"), dt.merged(model):
                pass
    with dt.active(model):
        torch.testing.assert_close(model(x), base)
    dt.eject(model)
    assert torch.equal(model(x), base)


TABLES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "padding": (lambda: nn.Embedding(9, 4, padding_idx=2), (torch.tensor([[1, 2, 3]]),)),
    "max-norm": (lambda: nn.Embedding(9, 4, max_norm=1.0), (torch.tensor([[1, 2, 3]]),)),
    "by-frequency": (lambda: nn.Embedding(9, 4, scale_grad_by_freq=True), (torch.tensor([[1, 1, 3]]),)),
    "sparse": (lambda: nn.Embedding(9, 4, sparse=True), (torch.tensor([[1, 1, 3]]),)),
    "bag": (lambda: nn.EmbeddingBag(9, 4), (torch.tensor([1, 2, 3, 3]), torch.tensor([0, 3]))),
    "bag-sum": (lambda: nn.EmbeddingBag(9, 4, mode="sum"), (torch.tensor([[1, 2], [3, 4]]),)),
    "bilinear": (lambda: nn.Bilinear(3, 5, 4), (torch.randn(2, 3), torch.randn(2, 5))),
}
ON_TABLES = {n: ON_ANY[n] for n in ("LoRA", "IA3", "Adapter", "Full")} | {"Rows": dt.Rows.on("0", tokens=[1, 3])}


@pytest.mark.parametrize("method", ON_TABLES)
@pytest.mark.parametrize("kind", TABLES)
def test_tables_and_bilinear_maps(kind: str, method: str) -> None:
    make, args = TABLES[kind]
    torch.manual_seed(0)
    host = make().requires_grad_(False)
    model: Any = nn.ModuleDict({"0": host})
    base = host(*args).clone()
    if (kind, method) == ("bilinear", "Rows"):
        with pytest.raises(dt.DeltaError, match="no plain table"):
            dt.inject(model, ON_TABLES[method])
        return
    dt.inject(model, ON_TABLES[method])
    torch.testing.assert_close(host(*args), base)
    dt.verify(host, *args)
    shaken(model)
    called = host(*args)
    assert (called - base).abs().max() > 1e-3
    with torch.no_grad():
        try:
            with dt.merged(model):
                torch.testing.assert_close(host(*args), called)
        except dt.NotFoldable:
            assert method == "Adapter" or (method == "IA3" and kind not in ("padding", "by-frequency", "sparse"))
    dt.eject(model)
    torch.testing.assert_close(host(*args), base)


@pytest.mark.parametrize("rule", [dt.Full.on("0"), dt.LoRA.on("0", rank=2)], ids=["Full", "LoRA"])
def test_a_padding_row_gets_no_gradient(rule: dt.Rule) -> None:
    model = nn.Sequential(nn.Embedding(5, 3, padding_idx=1))
    dt.inject(model, rule)
    model(torch.tensor([[0, 1, 1]])).sum().backward()
    grads = {n: p.grad for n, p in dt.parameters(model)}
    if isinstance(rule.method, type) and rule.method is dt.Full:
        (table,) = grads.values()
        assert table is not None and not table[1].any() and table[0].all()
    else:
        a = next(g for n, g in grads.items() if n.endswith("A"))
        assert a is not None and not a[:, 1].any() and a[:, 0].all()


class Own(nn.Linear):
    """Computes what nn.Linear does, in its own words, as Falcon's does."""

    def forward(self, input: Tensor) -> Tensor:
        h = input @ self.weight.T
        return h if self.bias is None else h + self.bias


class Routed(nn.Linear):
    """Llama 4's router: a tuple."""

    def forward(self, input: Tensor) -> Any:  # type: ignore[override]
        h = super().forward(input)
        return h.sigmoid(), h


class Quantised(nn.Module):
    """I-BERT's kind: no nn.Linear, an own argument, steps in the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor, scale: float = 1.0) -> tuple[Tensor, float]:
        step = self.weight.detach() * 8
        return nn.functional.linear(x, self.weight + (step.round() - step) / 8, self.bias), scale


class Foreign(nn.Module):
    """A linear layer of another library."""

    def __init__(self) -> None:
        super().__init__()
        self.in_features, self.out_features = 4, 4
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x.matmul(self.weight.t())


class Noisy(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input + 1e-2)


@pytest.mark.parametrize("cls", [Own, Foreign])
def test_a_layer_that_is_plainly_linear_is_one(cls: Any) -> None:
    layer = Own(4, 4) if cls is Own else cls()
    assert linear_map(layer) is not None
    assert linear_map(Own(4, 4, bias=False)) is not None


@pytest.mark.parametrize(
    "make", [lambda: Routed(4, 4), lambda: Noisy(4, 4), Quantised], ids=["router", "noisy", "quantised"]
)
def test_a_layer_that_computes_otherwise_refuses_nothing_of_the_model(make: Any) -> None:
    """LoRA and DoRA stand in its weight, so that they run and merge beside plain layers."""
    for method in (dt.LoRA, dt.DoRA):
        torch.manual_seed(0)
        model: Any = nn.ModuleDict({"a": make(), "b": nn.Linear(4, 4)})
        assert linear_map(model["a"]) is None
        x = torch.randn(3, 4)

        def run(model: Any = model, x: Tensor = x) -> Tensor:
            out = model["a"](x)
            return model["b"](out[0] if isinstance(out, tuple) else out)

        base = run().detach()
        dt.inject(model, method.on("a|b", rank=2))
        torch.testing.assert_close(run(), base)
        shaken(model)
        called = run().detach()
        assert (called - base).abs().max() > 1e-2
        twin = copy.deepcopy(model)
        dt.merge(model)
        torch.testing.assert_close(run().detach(), called, rtol=0.05, atol=0.15 if make is Quantised else 1e-5)
        dt.eject(twin)
