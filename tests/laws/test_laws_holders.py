"""Weights in holders that no one calls, weights with several deltas, sparse ones, and ones that are no more there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import deltatune as dt
from tests.support.cases import shaken

pytestmark = pytest.mark.law
X = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))


class Scaled(nn.Module):
    """A linear map, then a scale and a shift that a module without a forward holds."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.map = nn.Linear(4, 4)
        scale, shift = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))
        if kind == "list":
            self.held: nn.Module = nn.ParameterList([scale, shift])
        elif kind == "dict":
            self.held = nn.ParameterDict({"0": scale, "1": shift})
        else:
            self.held = nn.Module()
            self.held.register_parameter("0", scale)
            self.held.register_parameter("1", shift)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x) * getattr(self.held, "0") + getattr(self.held, "1")


class Outer(nn.Module):
    """Reads what its part's holder holds before its part runs."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Scaled("list")

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x * getattr(self.part.held, "0"))


class Reader(nn.Module):
    """Reads a linear layer's weight itself."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.map.weight, self.map.bias)


class Shift(dt.DeltaModule):
    """h + g, on a host of any kind."""

    def __init__(self, host: nn.Module) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.zeros(4))

    def change(self, x: Tensor, h: Tensor) -> Tensor:
        return self.g.expand_as(h)


class Tied(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        if tied:
            self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


def pair() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4))


holders: dict[str, Callable[[], nn.Module]] = {
    "list": lambda: Scaled("list"),
    "dict": lambda: Scaled("dict"),
    "module": lambda: Scaled("module"),
    "outer": Outer,
}


@pytest.mark.parametrize("make", holders.values(), ids=holders)
def test_what_a_holder_holds_changes_with_its_delta(make: Callable[[], nn.Module]) -> None:
    tuned, base = make(), make()
    plain, before = base(X), copy.deepcopy(base)
    dt.diff(tuned, base)
    torch.testing.assert_close(base(X), tuned(X))
    dt.eject(base)
    assert torch.equal(base(X), plain)
    dt.inject(base, dt.Full.on())
    shaken(base)
    called = base(X)
    assert not torch.allclose(called, plain)
    dt.verify(base, X)
    with dt.merged(base):
        torch.testing.assert_close(base(X), called)
    dt.eject(base)
    assert all(torch.equal(p, q) for p, q in zip(base.parameters(), before.parameters(), strict=True))


def test_a_delta_around_what_has_no_forward_is_refused() -> None:
    with pytest.raises(dt.NotReached, match="held: Module has no forward of its own"):
        dt.inject(Scaled("module"), Shift.on("held"))


def test_a_difference_in_what_is_read_without_a_call_needs_an_example() -> None:
    tuned, base = Reader(), Reader()
    assert "give example=" in str(dt.diff(tuned, base))
    dt.eject(base)
    assert "give example=" not in str(dt.diff(tuned, base, example={"x": X}))
    torch.testing.assert_close(base(X), tuned(X))


def test_methods_on_one_parameter_have_a_delta_each(tmp_path: Path) -> None:
    model, plain = pair(), pair()
    dt.inject(model, dt.Head.on("0"), dt.Full.on("0"), dt.BitFit.on("0"), dt.Full.on("0"))
    torch.testing.assert_close(model(X), plain(X))
    assert len(dt.parameters(model)) == 7
    shaken(model)
    dt.save(model, tmp_path / "several")
    dt.load(plain, tmp_path / "several")
    torch.testing.assert_close(plain(X), model(X))


def test_a_base_trained_under_a_full_delta_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    model, plain = pair(), pair()
    dt.inject(model, dt.Full.on("0"))
    shaken(model)
    with torch.no_grad():
        model[0].weight.add_(1.0)  # type: ignore[union-attr]
    with pytest.warns(UserWarning, match="changed since the injection"):
        dt.save(model, tmp_path / "moved")
    dt.load(plain, tmp_path / "moved")
    torch.testing.assert_close(plain(X), model(X))


def test_two_tensors_do_not_go_into_one_tied_weight(tmp_path: Path) -> None:
    tied, apart = Tied(True), Tied(False)
    apart.load_state_dict(tied.state_dict())
    dt.inject(apart, dt.Full.on())
    shaken(apart)
    dt.save(apart, tmp_path / "apart")
    with pytest.raises(dt.BaseMismatch, match="not tied"):
        dt.load(tied, tmp_path / "apart")


def weight_normed(host: nn.Module) -> None:
    parametrizations.weight_norm(host)


def pruned(host: nn.Module) -> None:
    prune.l1_unstructured(host, "weight", amount=0.5)


def biasless(host: nn.Module) -> None:
    host.register_parameter("bias", None)


@pytest.mark.parametrize("change", [weight_normed, pruned, biasless])
@pytest.mark.parametrize("rule", [dt.Full.on("0"), dt.Head.on("0"), dt.LoRA.on("0.weight"), dt.BitFit.on("0")], ids=str)
def test_a_parameter_that_is_no_more_there_is_missed(change: Callable[[nn.Module], None], rule: dt.Rule) -> None:
    model = pair()
    dt.inject(model, rule)
    shaken(model)
    before, host = model(X), model[0]
    keeps = "weight" if change is biasless else "bias"
    alone = {"LoRA": "weight", "BitFit": "bias"}.get(rule.method.__name__)
    change(host)
    if alone == keeps:
        after = model(X)
        assert change is not weight_normed or torch.allclose(after, before, atol=1e-5)
        return
    for verb in (lambda: model(X), lambda: dt.merge(model), lambda: dt.merged(model).__enter__()):
        with pytest.raises(dt.DeltaError, match=r"0: (the host has no parameter|its class was changed)"):
            verb()


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_a_sparse_buffer_is_part_of_the_base(tmp_path: Path, layout: torch.layout) -> None:
    def graph() -> nn.Module:
        model = pair()
        model.register_buffer("edges", torch.eye(3).to_sparse(layout=layout))
        return model

    model, other = graph(), graph()
    dt.inject(model, dt.LoRA.on("0"))
    model.train()(X)
    dt.save(model, tmp_path / "graph")
    other.register_buffer("edges", (2 * torch.eye(3)).to_sparse(layout=layout))
    with pytest.raises(dt.BaseMismatch):
        dt.load(other, tmp_path / "graph")
    dt.load(graph(), tmp_path / "graph")


def test_conjugate_and_negated_buffers_have_a_fingerprint() -> None:
    model = pair()
    model.register_buffer("phases", torch.randn(3, dtype=torch.complex64).conj())
    model.register_buffer("parts", torch.randn(3, dtype=torch.complex64).conj().imag)
    copied = copy.deepcopy(model)
    copied.phases = model.phases.resolve_conj()  # type: ignore[assignment, operator]
    assert dt.fingerprint(model) == dt.fingerprint(copied)


class Slotted(nn.BatchNorm1d):
    __slots__ = ("kept",)


def test_an_injection_that_cannot_hold_a_norm_still_leaves_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Slotted(4))
    with pytest.raises(dt.DeltaError, match="__slots__"):
        dt.inject(model, dt.LoRA.on("0"))
    assert type(model[0]) is nn.Linear and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", ["_strengths", "_merges", "_records", "_together"])
def test_a_delta_has_no_name_that_its_carrier_needs(name: str) -> None:
    model = pair()
    with pytest.raises(dt.DeltaError, match="cannot name a delta"):
        dt.inject(model, dt.LoRA.on("0"), name=name)
    assert type(model[0]) is nn.Linear


class Odd(nn.Module):
    """Children whose names hold what globs and keys are made of."""

    NAMES = ("a", "a#1", "a|b", "a[0]", "a*")

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name in self.NAMES:
            self.add_module(name, nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        for name in self.NAMES:
            x = self._modules[name](x)  # type: ignore[misc]
        return x


def test_odd_names_are_names(tmp_path: Path) -> None:
    model, other = Odd(), Odd()
    assert [[r.path for r in dt.plan(model, dt.LoRA.on(name)).rows] for name in Odd.NAMES] == [[n] for n in Odd.NAMES]
    dt.inject(model, dt.LoRA.on("a", rank=1), dt.LoRA.on("a", rank=1), dt.LoRA.on("a#1", rank=1))
    shaken(model)
    dt.save(model, tmp_path / "odd")
    dt.load(other, tmp_path / "odd")
    assert torch.equal(other(X), model(X))


def test_spectral_norm_by_hooks_keeps_its_estimates() -> None:
    model = pair()
    torch.nn.utils.spectral_norm(model[0])
    before, estimate = model.eval()(X), model.get_buffer("0.weight_u").clone()
    dt.inject(model, dt.LoRA.on("0|2"))
    model.train()(X)
    assert torch.equal(model.get_buffer("0.weight_u"), estimate)
    torch.testing.assert_close(model.eval()(X), before)
    dt.eject(model)
    model.train()(X)
    assert not torch.equal(model.get_buffer("0.weight_u"), estimate)


def test_a_norm_that_cannot_be_held_is_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    forward = model[1].forward
    model[1].forward = lambda x: forward(x)  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="1: forward is patched on the instance"):
        dt.inject(model, dt.LoRA.on("0"))


def test_a_transposed_convolution_is_scaled_by_channel_or_not_at_all() -> None:
    with pytest.raises(dt.DeltaError, match="scaled by channel; name the module"):
        dt.inject(nn.Sequential(nn.ConvTranspose1d(4, 6, 3)), dt.IA3.on("0.weight"))


def test_rows_of_a_table_that_was_cut_are_missed() -> None:
    model = nn.Sequential(nn.Embedding(9, 4))
    dt.inject(model, dt.Rows.on("0", tokens=(1, 8)))
    table = model.get_parameter("0.weight")
    table.data = table.data[:5].clone()
    with pytest.raises(dt.DeltaError, match="cut to 5 rows after the injection, below token 8"):
        model(torch.tensor([1]))


@pytest.mark.parametrize("rule", [dt.IA3.on("0", span=(0,)), dt.IA3.on("0", span=(0, 1, 2, 3))], ids=str)
def test_a_span_has_two_numbers_or_three(rule: dt.Rule) -> None:
    with pytest.raises(dt.DeltaError, match="span is"):
        dt.inject(pair(), rule)


def test_a_head_holds_what_it_was_told_to() -> None:
    with pytest.raises(dt.DeltaError, match="no parameter wieght; it has weight, bias"):
        dt.inject(pair(), dt.Head.on("0", only=("bias", "wieght")))


def test_a_difference_in_a_buffer_that_no_one_runs_is_refused() -> None:
    tuned, base = Scaled("module"), Scaled("module")
    for model in (tuned, base):
        model.held.register_buffer("offset", torch.randn(4))
    with pytest.raises(dt.NotReached, match="held: Module has no forward of its own"):
        dt.diff(tuned, base)
    assert type(base.map) is nn.Linear
