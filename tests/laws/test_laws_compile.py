"""torch.compile takes an injected model as one graph: every method on the small hosts, a mixture on the others.

The whole matrix, and inductor, which writes and compiles C++, are slow: `make test-all` runs them.
"""

from __future__ import annotations

import shutil

import pytest

import deltatune as dt
from tests.laws import compiles_whole
from tests.support.cases import CASES, REFUSED, Case, same
from tests.support.hosts import HOSTS, EagerLlama, Host, Llama

pytestmark = pytest.mark.law
SMALL = ("nano", "encoder-layer")
MIXTURE = Case(
    "mixture",
    same(
        dt.LoRA.on(rank=3),
        dt.IA3.on(),
        dt.Prefix.on(length=3),
        dt.Adapter.on(width=5, act="gelu"),
        dt.BitFit.on(),
        dt.Full.on(lambda path, module: "norm" in type(module).__name__.lower()),
    ),
)
# torch.compile cannot trace a function mode inside torch's own multi-head attention, where it breaks the graph.
BROKEN = {(f"Prefix-{kind}", "encoder-layer") for kind in ("gated", "primed", "reparam")}
MATRIX = [(c, h) for c in CASES for h in HOSTS if (c.name, h.name) not in REFUSED.keys() | BROKEN]


MIXED = [pytest.param(h, id=h.name) for h in HOSTS if h.name not in SMALL and ("IA3", h.name) not in REFUSED]


def named(pairs: list[tuple[Case, Host]]) -> list[object]:
    return [pytest.param(c, h, id=f"{c.name}-{h.name}") for c, h in pairs]


@pytest.mark.parametrize(("case", "host"), named([(c, h) for c, h in MATRIX if h.name in SMALL]))
def test_compiles(case: Case, host: Host) -> None:
    compiles_whole(case, host)


@pytest.mark.parametrize("host", MIXED)
def test_compiles_a_mixture(host: Host) -> None:
    compiles_whole(MIXTURE, host)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "host"), named([(c, h) for c, h in MATRIX if h.name not in SMALL]))
def test_compiles_everywhere(case: Case, host: Host) -> None:
    compiles_whole(case, host)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inductor's own imports
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize(
    ("case", "host"),
    named([(c, h) for c, h in MATRIX if h.name == "nano"] + [(MIXTURE, Llama()), (MIXTURE, EagerLlama())]),
)
def test_compiles_with_inductor(case: Case, host: Host) -> None:
    compiles_whole(case, host, backend="inductor")
