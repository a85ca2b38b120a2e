"""One DoRA layer: forward, backward and both, over the frozen layer and PEFT.

    python -m benchmarks.bench_dora [--quick] [--models smollm2 llama8b] [--ranks 16]

Ours takes the norm ‖W + sBA‖ from W Aᵀ and A Aᵀ, without an (N, K) temporary. The error is against fp64, by the
definition y = m ⊙ (V x) / ‖V‖, V = W + s B A, the norm without a gradient. Legend: x (M, K), W (N, K), m (N,).
"""  # fmt: skip

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench_lora_linear import add_layer_options, settle_layers
from benchmarks.command import DTYPES, Case, finish, parser, run
from benchmarks.layers import draw, exact_results, timed_layers
from benchmarks.providers import SCALE, lora_layers
from benchmarks.shapes import Shape, shapes

NAME = "bench_dora"


def cases(options: Any) -> Iterator[Case]:
    grid = product(options.models, options.rows, options.ranks, options.dropouts, options.dtypes, options.dx)
    for model, M, R, p, dtype, dx in grid:
        for shape in shapes(model)[: 1 if options.quick else None]:
            yield from layer_cases(shape, M, R, p, dtype, dx == "on", options)


def layer_cases(shape: Shape, M: int, R: int, p: float, dtype: str, dx: bool, options: Any) -> Iterator[Case]:
    K, N, kind, device = shape.K, shape.N, DTYPES[dtype], options.device
    x = draw(options.seed, device, kind, M, K).requires_grad_(dx)
    dY = draw(options.seed + 1, device, kind, M, N)
    W = draw(options.seed + 2, device, kind, N, K, scale=K**-0.5)
    A = draw(options.seed + 3, device, torch.float32, R, K, scale=K**-0.5)
    B = draw(options.seed + 4, device, torch.float32, N, R, scale=0.1)

    def definition(x: Tensor, W: Tensor, A: Tensor, B: Tensor, m: Tensor) -> Tensor:
        V = W + SCALE * B @ A
        return x @ V.T * (m / V.detach().norm(dim=1))

    layers = lora_layers(W, A, B, p, compiled=options.compile, dora=True)
    exact = None if p else exact_results(definition, x, dY, W, [A, B, W.double().norm(dim=1)])
    for op in options.ops:
        yield Case(op, shape.at(M), timed_layers(layers, op, x, dY, exact=exact), R, p, dtype, dx)


def main(argv: list[str] | None = None) -> int:
    made = parser(NAME, __doc__ or "")
    add_layer_options(made, ranks=(16,), dropouts=(0.0,))
    return finish(run(NAME, cases, settle_layers(made.parse_args(argv))))


if __name__ == "__main__":
    sys.exit(main())
