"""What a host carries: one child that holds its stacks of deltas, and nothing else that it could miss of its own."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from deltatune.core import DeltaModule
from deltatune.hosts import modules, stacks
from deltatune.maps import CHILD

Live = list[tuple[DeltaModule, float]]


class Deltas(nn.ModuleDict):
    """All that a swap adds to a host: stacks of deltas, by name a list with one delta a rule, and state beside them.

    _strengths[name] is 0 when switched off; _together is the `together.Together` of the hosts that read one tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self._strengths: dict[str, float] = {}
        self._together: Any = None


class Host(nn.Module):
    """What a swapped class is known by. All that it adds to an instance is one child, `Deltas`, under `hosts.CHILD`.

    What runs a host are functions over it: a method here would hide an attribute of the module that is the host.
    """

    def _get_name(self) -> str:
        return f"Delta({super()._get_name()})"


def deltas_of(host: nn.Module) -> Deltas:
    """What the swap added to this host."""
    return cast(Deltas, host._modules[CHILD])


def live(host: nn.Module) -> dict[str, Live]:
    """The live deltas by site."""
    sites: dict[str, Live] = {"module": [], "parameters": [], "attention": []}
    strengths = strengths_of(host)
    for name, stack in stacks(host).items():
        if strengths[name] != 0:
            for delta in stack:
                sites[delta.site].append((delta, strengths[name]))
    return sites


def hosts(model: nn.Module) -> list[tuple[str, Host]]:
    """(path, host) of every module that carries deltas."""
    return [(p, m) for p, m in modules(model) if isinstance(m, Host)]


def deltas(model: nn.Module, name: str | None = None) -> list[tuple[str, str, int, DeltaModule]]:
    """(host path, delta's name, position in its stack, delta) of every delta, or of those of one name."""
    return [
        (path, n, i, delta)
        for path, host in hosts(model)
        for n, stack in stacks(host).items()
        if name is None or n == name
        for i, delta in enumerate(stack)
    ]


def names(model: nn.Module) -> list[str]:
    """The names of the injected deltas, in the order of their injection at the first host that has them."""
    return list(dict.fromkeys(n for _, host in hosts(model) for n in deltas_of(host)))


def strengths_of(host: nn.Module) -> dict[str, float]:
    """The strength of each name on a host, 0 where it is switched off."""
    return deltas_of(host)._strengths
