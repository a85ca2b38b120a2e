"""Hosts that walk over their own children never meet the deltas on themselves: containers, and modules of any kind."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deltatune as dt
from tests.support.cases import shaken

pytestmark = pytest.mark.law


class Dense(nn.ModuleDict):
    """DenseNet's block: every layer reads what all before it gave."""

    def __init__(self) -> None:
        super().__init__({"a": nn.Linear(4, 4), "b": nn.Linear(8, 4)})

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for _, layer in self.items():
            features.append(layer(torch.cat(features, -1)))
        return features[-1]


class Children(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x).tanh()
        return x


class Names(Children):
    def forward(self, x: Tensor) -> Tensor:
        for name in self._modules:
            x = getattr(self, name)(x)
        return x


class Helped(Children):
    """The walk is in another method."""

    def layers(self) -> list[nn.Module]:
        return [m for n, m in self.named_children() if n]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers():
            x = layer(x)
        return x


class Counted(nn.Sequential):
    def forward(self, input: Tensor) -> Tensor:
        for i in range(len(self)):
            input = self[i](input)
        return input


class Listed(nn.ModuleList):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([layer(x) for layer in self]).sum(0)


MAKE: dict[str, Any] = {
    "sequential": lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)),
    "named": lambda: nn.Sequential(OrderedDict(a=nn.Linear(4, 4), b=nn.Linear(4, 4))),
    "counted": lambda: Counted(nn.Linear(4, 4), nn.Linear(4, 4)),
    "list": lambda: Listed([nn.Linear(4, 4), nn.Linear(4, 4)]),
    "dense": Dense,
    "children": Children,
    "names": Names,
    "helped": Helped,
}
RULES = {"IA3": dt.IA3.on("0"), "Adapter": dt.Adapter.on("0", width=2), "parallel": dt.Adapter.on("0", form="parallel")}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", MAKE)
def test_deltas_are_no_layers_of_their_host(kind: str, rule: str) -> None:
    torch.manual_seed(0)
    host, x = MAKE[kind](), torch.randn(3, 4)
    model: Any = nn.ModuleDict({"0": host})
    base, state = host(x).detach(), list(model.state_dict())
    dt.inject(model, RULES[rule])
    assert torch.equal(host(x), base)
    dt.verify(host, x)
    shaken(model)
    called = host(x)
    assert (called - base).abs().max() > 1e-3
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin["0"](x), called)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {n for n, _ in dt.parameters(model)}
    assert next(iter(dt.parameters(model.double())))[1].dtype is torch.float64
    dt.eject(model.float())
    assert torch.equal(host(x), base) and list(model.state_dict()) == state


def test_a_container_with_deltas_counts_and_gives_its_own_children() -> None:
    model = nn.Sequential(MAKE["sequential"](), Dense())
    inner: Any = model[0]
    dense: Any = model[1]
    own, keys = list(inner), list(dense.keys())
    dt.inject(model, dt.IA3.on("0|1"))
    assert len(inner) == 3 and list(inner) == own and inner[-1] is own[-1]
    assert isinstance(inner[:2], nn.Sequential) and list(inner[:2]) == own[:2]
    assert len(dense) == 2 and list(dense) == keys == list(dense.keys()) and len(dense.values()) == 2
    assert "_deltas" not in dense


def test_a_walked_host_compiles() -> None:
    for kind in ("sequential", "dense"):
        torch.manual_seed(0)
        x = torch.randn(3, 4)
        model: Any = nn.ModuleDict({"0": MAKE[kind]()})
        dt.inject(model, RULES["Adapter"])
        shaken(model)
        torch._dynamo.reset()
        compiled: Any = torch.compile(model["0"], backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), model["0"](x))
