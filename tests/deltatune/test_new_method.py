"""A method of fifteen lines, defined here, keeps every law by being listed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import deltatune as dt
from tests.laws import LAWS, Law, compiles_whole, holds_on
from tests.support.cases import Case
from tests.support.hosts import HOSTS, Host, Nano

pytestmark = pytest.mark.law


class Scale(dt.DeltaModule):
    """h · (1 + g), g (N,) zero at the start."""

    def __init__(self, host: nn.Module):
        super().__init__()
        self.g = nn.Parameter(torch.zeros(dt.features(host).out))

    def change(self, x: Tensor, h: Tensor) -> Tensor:
        return self.g * h


CASE = Case("Scale", lambda host: (Scale.on(host.layer),))
MATRIX = [
    pytest.param(law, host, id=f"{law.__name__}-{host.name}") for law in LAWS for host in HOSTS if holds_on(law, host)
]


@pytest.mark.parametrize(("law", "host"), MATRIX)
def test_a_new_method_keeps_the_laws(law: Law, host: Host) -> None:
    law(CASE, host)


def test_a_new_method_compiles() -> None:
    compiles_whole(CASE, Nano())


def test_a_new_method_without_usual_sites_asks_where() -> None:
    with pytest.raises(dt.DeltaError, match=r"Scale has no usual sites: say where, Scale\.on\("):
        dt.inject(Nano().model(), Scale.on())


def test_a_method_that_starts_from_data_says_so() -> None:
    with pytest.raises(TypeError, match="Primed defines prime, which is not called unless it says primes = True"):

        class Primed(Scale):
            def prime(self, base, real, *args, **kwargs) -> None:
                pass
