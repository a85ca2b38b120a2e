"""Several deltas on one host: hypothesis draws shapes, dtypes, which methods in what order, under what names and at
what strengths; the stack called, the stack folded, and the stack with its silent members left out all agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import deltatune as dt
from deltatune.call import changed_parameters
from deltatune.core import Stacked
from deltatune.host import live, names
from deltatune.hosts import stacks as stacks_on
from deltatune.maps import frozen
from tests.support.cases import shaken
from tests.support.tolerance import agree, bound, largest

pytestmark = pytest.mark.law
SIZES = st.sampled_from([1, 2, 3, 5, 7, 13, 31])
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])
STRENGTHS = st.sampled_from([0.0, 1.0, 1.0, 0.5, -0.25, 1.75])
FOLDABLE: dict[str, Callable[[str], dt.Rule]] = {
    "LoRA": lambda at: dt.LoRA.on(at, rank=2, alpha=1.0),
    "rsLoRA": lambda at: dt.LoRA.on(at, rank=3, alpha=1.0, rslora=True),
    "DoRA": lambda at: dt.DoRA.on(at, rank=2, alpha=1.0),
    "BitFit": lambda at: dt.BitFit.on(at),
    "IA3-output": lambda at: dt.IA3.on(at),
    "IA3-input": lambda at: dt.IA3.on(at, form="input"),
    "Full": lambda at: dt.Full.on(at),
}
ON_ROWS = ("LoRA", "IA3-output", "Full")  # what an Embedding's input, ids, leaves possible


@dataclass(frozen=True)
class Stack:
    """One drawn experiment. names[i] is the name that methods[i] goes in under; strengths belong to names."""

    kind: str
    into: int
    out: int
    bias: bool
    dtype: torch.dtype
    methods: tuple[str, ...]
    names: tuple[str, ...]
    strengths: dict[str, float]

    def model(self, only: Callable[[str], bool] = lambda name: True) -> nn.Module:
        """A one-layer model with the stack in it; weights are bounded away from 0, where DoRA's rows have no norm."""
        g = torch.Generator().manual_seed(self.into * 100 + self.out)
        shape = {"linear": (self.out, self.into), "conv1d": (self.into, self.out)}.get(self.kind)
        weight = torch.rand(shape or (self.into, self.out), generator=g) + 1
        weight *= torch.randint(0, 2, weight.shape, generator=g) * 2 - 1
        if self.kind == "linear":
            layer: nn.Module = nn.Linear(self.into, self.out, bias=self.bias)
        elif self.kind == "conv1d":
            layer = Conv1D(self.out, self.into)
        else:
            layer = nn.Embedding(self.into, self.out)
        with torch.no_grad():
            layer.weight.copy_(weight)  # type: ignore[operator]
            if isinstance(bias := getattr(layer, "bias", None), Tensor):
                bias.copy_(torch.randn(self.out, generator=g))
        model = nn.Sequential(layer).to(self.dtype)
        for name in dict.fromkeys(self.names):
            rules = [FOLDABLE[m]("0") for m, n in zip(self.methods, self.names) if n == name]
            if only(name):
                torch.manual_seed(len(name) + ord(name[-1]))
                dt.inject(model, *rules, name=name)
                shaken(model, name, seed=ord(name[-1]))
        dt.use(model, **{n: s for n, s in self.strengths.items() if only(n)})
        return model

    def input(self) -> Tensor:
        g = torch.Generator().manual_seed(1)
        if self.kind == "embedding":
            return torch.randint(0, self.into, (4, 3), generator=g)
        return torch.randn(4, 3, self.into, generator=g).to(self.dtype)


@st.composite
def stacks(draw: st.DrawFn) -> Stack:
    kind = draw(st.sampled_from(["linear", "linear", "conv1d", "embedding"]))
    methods = draw(
        st.lists(st.sampled_from(ON_ROWS if kind == "embedding" else list(FOLDABLE)), min_size=1, max_size=5)
    )
    names = tuple(draw(st.sampled_from("abc")) for _ in methods)
    return Stack(
        kind,
        draw(SIZES),
        draw(SIZES),
        draw(st.booleans()),
        draw(DTYPES),
        tuple(methods),
        names,
        {n: draw(STRENGTHS) for n in dict.fromkeys(names)},
    )


def assert_near(got: Tensor, want: Tensor, stack: Stack) -> None:
    """Equal up to rounding. A call rounds to the host's dtype after each of at most five operations a delta, a fold
    once; each sum of `into` products adds √into roundings of a random walk (bf16 sums in fp32, so this is generous).
    What is rounded is no larger than the largest output times the gains that deltas here have, below 2 each."""
    assert got.dtype == want.dtype == stack.dtype and got.shape == want.shape
    operations = 5 * (1 + len(stack.methods)) + stack.into**0.5
    scale = max(1.0, float(want.abs().max()), stack.into**0.5)
    error = float((got - want).abs().max())
    assert error <= operations * torch.finfo(stack.dtype).eps * scale * 2, (error, scale, stack)


@given(stacks())
def test_call_equals_fold(stack: Stack) -> None:
    model, x = stack.model(), stack.input()
    with torch.no_grad():
        called = model(x)
        if not any(stack.strengths.values()):
            with pytest.raises(dt.NoMatch, match="no delta is live"), dt.merged(model):
                pass
            return
        with dt.merged(model):
            assert_near(model(x), called, stack)
        assert torch.equal(model(x), called)
        dt.merge(model)
    assert names(model) == [n for n, s in stack.strengths.items() if s == 0]  # those stay, switched off
    assert_near(model(x).detach(), called, stack)


@given(stacks())
def test_strength_zero_is_not_there(stack: Stack) -> None:
    """A stack computes, to the last bit, what the stack without its switched-off members does."""
    x = stack.input()
    with torch.no_grad():
        want = stack.model(only=lambda name: stack.strengths[name] != 0)(x)
        assert torch.equal(stack.model()(x), want)


@given(stacks(), st.randoms(use_true_random=False))
def test_eject_in_any_order(stack: Stack, random: object) -> None:
    """Each eject leaves what injecting the others alone gives; the last one leaves the base, byte for byte."""
    x = stack.input()
    base = stack.model(only=lambda name: False)
    model = stack.model()
    left = list(dict.fromkeys(stack.names))
    random.shuffle(left)  # type: ignore[attr-defined]
    with torch.no_grad():
        while left:
            dt.eject(model, left.pop())
            assert torch.equal(model(x), stack.model(only=left.__contains__)(x))
    assert [type(m) for m in model.modules()] == [type(m) for m in base.modules()]
    assert list(model.state_dict()) == list(base.state_dict())
    for key, t in base.state_dict().items():
        assert torch.equal(model.state_dict()[key], t)


@given(stacks())
def test_gradients_of_the_call_are_those_of_the_fold(stack: Stack) -> None:
    """Call and fold are two readings of one term: differentiated by the deltas, they agree as well (in fp64)."""
    stack = Stack(**{**vars(stack), "dtype": torch.float64})
    model, x = stack.model(), stack.input()
    if not any(stack.strengths.values()):
        return
    host = model[0]  # type: ignore[index]
    ours = dict(dt.parameters(model))
    called = model(x)
    term = frozen(host, changed_parameters(host, live(host)["parameters"]))
    for delta, strength in live(host)["module"]:
        term = Stacked(delta, term, strength)  # type: ignore[arg-type]
    assert term is not None
    folded = term.folded()(x)
    weights = torch.randn(called.shape, generator=torch.Generator().manual_seed(4), dtype=called.dtype)
    got, want = (
        torch.autograd.grad((out * weights).sum(), list(ours.values()), allow_unused=True) for out in (called, folded)
    )
    # sums over inputs, outputs and rows once for the host and each delta; what is rounded is no larger than the largest
    # gradient times the gains that deltas here have, below 2 each
    allowed = bound(torch.float64, *[stack.into, stack.out, 12] * (1 + len(stack.methods))) * 2 ** len(stack.methods)
    scale = max(1.0, largest(b for b in want if b is not None))
    for name, a, b in zip(ours, got, want):
        assert (a is None) == (b is None), name
        assert a is None or b is None or float((a - b).norm()) <= allowed * scale, name


@given(st.lists(st.sampled_from(list(FOLDABLE)), min_size=2, max_size=4), st.data())
def test_merge_refuses_what_lies_on_top_of_a_live_one(methods: list[str], data: st.DataObject) -> None:
    """Merging an outer delta over a live inner one would reorder the stack; merging from the inside is exact."""
    order = [f"d{i}" for i in range(len(methods))]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3))
    for name, method in zip(order, methods):
        dt.inject(model, FOLDABLE[method]("0"), name=name)
    shaken(model)
    x = torch.randn(4, 5)
    called = model(x).detach()
    chosen = data.draw(st.sets(st.sampled_from(order), min_size=1))
    # Parameter deltas act on the weights themselves, so they lie under every module delta, in order on both sides.
    site = {n: stacks_on(model[0])[n][0].site for n in order}  # type: ignore[index, union-attr]
    inside_out = sorted(order, key=lambda n: site[n] != "parameters")
    if set(inside_out[: len(chosen)]) != chosen:
        with pytest.raises(dt.NotFoldable, match="lies under"):
            dt.merge(model, *chosen)
        assert torch.equal(model(x).detach(), called)
        return
    dt.merge(model, *chosen)
    left = [n for n in order if n not in chosen]
    assert list(stacks_on(model[0])) == left  # type: ignore[index, union-attr]
    agree(model(x), called, 5 * len(methods), 5 * len(methods))  # set by the inputs and ranks of the deltas
