"""What a host is given and returns may be of many kinds; the delta finds the hidden state, and all else stays."""

from __future__ import annotations

import copy
import pickle
from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from transformers.modeling_outputs import BaseModelOutput

import deltatune as dt
from tests.support.cases import shaken

pytestmark = pytest.mark.law
Named = namedtuple("Named", "h extra")


class Returns(nn.Module):
    """A host whose output is wrapped."""

    def __init__(self, wrap: Any):
        super().__init__()
        self.layer, self.wrap = nn.Linear(4, 4), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.layer(x))


WRAPS: dict[str, tuple[Any, Any]] = {
    "tuple": (lambda h: (h, 5), lambda out: out[0]),
    "later": (lambda h: (None, torch.tensor(3), h), lambda out: out[2]),
    "list": (lambda h: [h, "x"], lambda out: out[0]),
    "named": (lambda h: Named(h, 5), lambda out: out.h),
    "dict": (lambda h: {"loss": torch.tensor(1.0), "h": h}, lambda out: out["h"]),
    "nested": (lambda h: ((h, 1), 2), lambda out: out[0][0]),
    "output": (lambda h: BaseModelOutput(last_hidden_state=h), lambda out: out.last_hidden_state),
}


@pytest.mark.parametrize("form", ["serial", "parallel"])
@pytest.mark.parametrize("kind", WRAPS)
def test_an_output_of_any_kind_keeps_its_kind(kind: str, form: str) -> None:
    wrap, read = WRAPS[kind]
    model, x = nn.ModuleDict({"0": Returns(wrap)}), torch.randn(2, 4)
    plain = model["0"](x)
    dt.inject(model, dt.Adapter.on("0", width=3, form=form))
    same = model["0"](x)
    assert type(same) is type(plain) and torch.equal(read(same), read(plain)) and len(same) == len(plain)
    shaken(model)
    out = model["0"](x)
    assert (read(out) - read(plain)).abs().max() > 1e-3
    if kind == "output":
        assert out["last_hidden_state"] is out.last_hidden_state is out[0]


class Second(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, mask: Any, hidden: Tensor) -> Tensor:
        return self.layer(hidden) if mask is None else self.layer(hidden) * mask[..., None]


class Keywords(Second):
    def forward(self, *, mask: Any = None, hidden: Tensor) -> Tensor:  # type: ignore[override]
        return Second.forward(self, mask, hidden)


class Anything(Second):
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return Second.forward(self, *args, **kwargs)


X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[True, True, False], [True, False, False]])
CALLS: dict[str, tuple[type[nn.Module], tuple[Any, ...], dict[str, Any]]] = {
    "second": (Second, (MASK, X), {}),
    "second-none": (Second, (None, X), {}),
    "second-named": (Second, (MASK,), {"hidden": X}),
    "named": (Second, (), {"mask": MASK, "hidden": X}),
    "keywords": (Keywords, (), {"hidden": X}),
    "keywords-mask": (Keywords, (), {"mask": MASK, "hidden": X}),
    "anything": (Anything, (), {"mask": None, "hidden": X}),
}


@pytest.mark.parametrize("call", CALLS)
def test_the_hidden_state_may_be_another_input_than_the_first(call: str) -> None:
    cls, args, kwargs = CALLS[call]
    model = nn.ModuleDict({"0": cls()})
    plain = model["0"](*args, **kwargs)
    dt.inject(model, dt.Adapter.on("0", width=3, form="parallel"), dt.IA3.on("0", form="input"), dt.LoRA.on("0"))
    assert torch.equal(model["0"](*args, **kwargs), plain)
    dt.verify(model["0"], *args, **kwargs)
    shaken(model)
    assert (model["0"](*args, **kwargs) - plain).abs().max() > 1e-3


def test_a_call_without_any_tensor_says_so() -> None:
    model = nn.ModuleDict({"0": Anything()})
    dt.inject(model, dt.IA3.on("0"))
    with pytest.raises(dt.DeltaError, match="called without its first input"):
        model["0"](mask=None, hidden=None)


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).mean(1)


@pytest.mark.parametrize("rule", [dt.Adapter.on("0", form="parallel"), dt.LoRA.on("0")], ids=["adapter", "lora"])
def test_an_output_of_other_places_is_never_broadcast(rule: dt.Rule) -> None:
    """(B, T, D) pooled to (B, D): the sum with a change of (B, T, D) has another shape, or other numbers."""
    model = nn.ModuleDict({"0": Pooled()})
    dt.inject(model, rule)
    for rows in (1, 3):
        with pytest.raises((dt.DeltaError, RuntimeError), match=r"the change has the shape|size of tensor"):
            model["0"](torch.randn(rows, 5, 4))
    dt.eject(model)
    dt.inject(model, dt.Adapter.on("0"))
    assert model["0"](torch.randn(3, 5, 4)).shape == (3, 4)


RECURRENT: dict[str, tuple[Any, dict[str, Any]]] = {
    "rnn": (nn.RNN, {}),
    "gru": (nn.GRU, {"bidirectional": True, "batch_first": True}),
    "lstm": (nn.LSTM, {"num_layers": 2, "batch_first": True}),
    "lstm-projected": (nn.LSTM, {"proj_size": 3}),
}
ON_RECURRENT = {
    "LoRA": dt.LoRA.on("0", rank=2),
    "DoRA": dt.DoRA.on("0", rank=2),
    "BitFit": dt.BitFit.on("0"),
    "Full": dt.Full.on("0"),
    "IA3": dt.IA3.on("0"),
    "Adapter": dt.Adapter.on("0", width=3),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("method", ON_RECURRENT)
@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_layers(kind: str, method: str) -> None:
    """The flattened weights follow; copies after a call work; a packed sequence stays packed."""
    cls, how = RECURRENT[kind]
    torch.manual_seed(0)
    model: Any = nn.ModuleDict({"0": cls(4, 6, **how)}).requires_grad_(False)  # torch computes otherwise with gradients
    x, packed = torch.randn(2, 5, 4), pack_sequence([torch.randn(5, 4), torch.randn(3, 4)])
    base, base_packed = model["0"](x), model["0"](packed)
    dt.inject(model, ON_RECURRENT[method])
    torch.testing.assert_close(model["0"](x)[0], base[0])
    dt.verify(model["0"], x)
    shaken(model)
    called, called_packed = model["0"](x), model["0"](packed)
    assert (called[0] - base[0]).abs().max() > 1e-3
    assert isinstance(called_packed[0], PackedSequence)
    assert (called_packed[0].data - base_packed[0].data).abs().max() > 1e-3
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin["0"](x)[0], called[0])
    if method not in ("IA3", "Adapter"):
        with dt.merged(model):
            torch.testing.assert_close(model["0"](x)[0], called[0])
        torch.testing.assert_close(model["0"](x)[0], called[0])
    with dt.active(model):
        assert torch.equal(model["0"](x)[0], base[0])
    dt.eject(model)
    assert torch.equal(model["0"](x)[0], base[0])
    copy.deepcopy(model)
