"""A bottleneck adapter behind a linear layer: forward, backward and both, against a plain eager bottleneck.

    python -m benchmarks.bench_adapter [--quick] [--models smollm2 llama8b] [--widths 64]

h + W₂ relu(W₁ h + b₁) + b₂ with h = W x, frozen. eager: the same in torch modules of the layer's dtype, as one would
write it; adapterhub: its own module, where installed. Legend: x (M, K), h (M, N), W₁ (width, N), W₂ (N, width).
"""  # fmt: skip

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

import deltatune as dt
from benchmarks.bench_lora_linear import add_layer_options, settle_layers
from benchmarks.command import DTYPES, Case, finish, parser, run
from benchmarks.layers import draw, exact_results, timed_layers
from benchmarks.providers import Layer, holder, only_delta, plain_layer
from benchmarks.roofline import adapter_limit
from benchmarks.shapes import Shape, shapes

NAME = "bench_adapter"


class Bottleneck(nn.Module):
    """h + up(relu(down(h)))."""

    def __init__(self, base: nn.Module, down: nn.Linear, up: nn.Linear):
        super().__init__()
        self.base, self.down, self.up = base, down, up

    def forward(self, x: Tensor) -> Tensor:
        h = self.base(x)
        return h + self.up(torch.relu(self.down(h)))


def layers_of(W: Tensor, factors: list[Tensor]) -> dict[str, Layer | str]:
    """factors: W₁, b₁, W₂, b₂ in fp32, which every provider starts from."""
    model = holder(W)
    dt.inject(model, dt.Adapter.on("0", width=len(factors[0])))
    delta = only_delta(model)
    mine = [delta.down.weight, delta.down.bias, delta.up.weight, delta.up.bias]
    down, up = (nn.Linear(t.shape[1], t.shape[0], device=W.device).to(W.dtype) for t in factors[::2])
    eager = [down.weight, down.bias, up.weight, up.bias]
    with torch.no_grad():
        for target, value in zip([*mine, *eager], [*factors, *factors]):
            target.copy_(value)
    base = holder(W)[0]
    return {
        "frozen": plain_layer(W, trained=False),
        "eager": Layer(Bottleneck(base, down, up), list(eager), [base.weight, *eager]),  # type: ignore[list-item]
        "adapterhub": adapterhub_layer(W, factors),
        "ours": Layer(model[0], mine, [model[0].weight, *mine]),  # type: ignore[list-item]
    }


def adapterhub_layer(W: Tensor, factors: list[Tensor]) -> Layer | str:
    if find_spec("adapters") is None:
        return "absent: adapters (AdapterHub) is not installed"
    from adapters import SeqBnConfig  # type: ignore[import-not-found]
    from adapters.modeling import Adapter  # type: ignore[import-not-found]

    width, N = factors[0].shape
    base, module = holder(W)[0], Adapter("a", N, width, SeqBnConfig()).to(W.device, W.dtype)
    trained = list(module.parameters())

    def forward(x: Tensor) -> Tensor:
        h = base(x)
        return module(h, residual_input=h)[0]

    return Layer(forward, trained, [base.weight, *trained])  # type: ignore[list-item]


def cases(options: Any) -> Iterator[Case]:
    grid = product(options.models, options.rows, options.widths, options.dtypes, options.dx)
    for model, M, width, dtype, dx in grid:
        for shape in shapes(model)[: 1 if options.quick else None]:
            yield from layer_cases(shape, M, width, dtype, dx == "on", options)


def layer_cases(shape: Shape, M: int, width: int, dtype: str, dx: bool, options: Any) -> Iterator[Case]:
    K, N, kind, device, seed = shape.K, shape.N, DTYPES[dtype], options.device, options.seed
    x = draw(seed, device, kind, M, K).requires_grad_(dx)
    dY = draw(seed + 1, device, kind, M, N)
    W = draw(seed + 2, device, kind, N, K, scale=K**-0.5)
    sizes = ((width, N), (width,), (N, width), (N,))
    factors = [draw(seed + 3 + i, device, torch.float32, *size, scale=0.05) for i, size in enumerate(sizes)]

    def definition(x: Tensor, W: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor) -> Tensor:
        h = x @ W.T
        return h + torch.relu(h @ W1.T + b1) @ W2.T + b2

    exact = exact_results(definition, x, dY, W, factors)
    layers = layers_of(W, factors)
    theirs = layers.pop("adapterhub")  # which starts from values of its own, and so has no error to state
    for op in options.ops:
        made = timed_layers(layers, op, x, dY, exact=exact) | timed_layers({"adapterhub": theirs}, op, x, dY)
        limit = adapter_limit(op, K, N, width, dx)
        yield Case(op, f"{shape.at(M)} width {width}", made, None, None, dtype, dx, limit, limited=("ours", "eager"))


def main(argv: list[str] | None = None) -> int:
    made = parser(NAME, __doc__ or "")
    add_layer_options(made, ranks=(16,))
    made.add_argument("--widths", type=int, nargs="+", default=[64])
    return finish(run(NAME, cases, settle_layers(made.parse_args(argv))))


if __name__ == "__main__":
    sys.exit(main())
