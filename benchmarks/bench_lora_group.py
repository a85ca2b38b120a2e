"""The projections of one block that share their input, q/k/v and gate/up, taken together.

    python -m benchmarks.bench_lora_group [--quick] [--models smollm2 llama8b] [--ranks 16]

"ours" and PEFT's go layer by layer; "ours stacked" reads x once for all of a group's A, as an injected model does in
training. The limit is the ratio of floating-point operations. Legend: x (M, K), Wᵢ (Nᵢ, K), Aᵢ (R, K), Bᵢ (Nᵢ, R).
"""  # fmt: skip

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks import roofline
from benchmarks.bench_lora_linear import add_layer_options, settle_layers
from benchmarks.command import DTYPES, Case, finish, parser, run
from benchmarks.layers import draw, exact_results, timed_layers
from benchmarks.providers import SCALE, Layer, lora_layers, stacked_layer
from benchmarks.shapes import Group, groups
from deltatune.functional import low_rank

NAME = "bench_lora_group"


def cases(options: Any) -> Iterator[Case]:
    for model, M, R, p, dtype, dx in product(
        options.models, options.rows, options.ranks, options.dropouts, options.dtypes, options.dx
    ):
        for group in groups(model)[: 1 if options.quick else None]:
            yield from group_cases(group, M, R, p, dtype, dx == "on", options)


def group_cases(group: Group, M: int, R: int, p: float, dtype: str, dx: bool, options: Any) -> Iterator[Case]:
    K, Ns, kind, device, seed = group.K, group.Ns, DTYPES[dtype], options.device, options.seed
    x = draw(seed, device, kind, M, K).requires_grad_(dx)
    dY = draw(seed + 1, device, kind, M, sum(Ns))
    Ws = [draw(seed + 2 + i, device, kind, N, K, scale=K**-0.5) for i, N in enumerate(Ns)]
    As = [draw(seed + 20 + i, device, torch.float32, R, K, scale=K**-0.5) for i in range(len(Ns))]
    Bs = [draw(seed + 40 + i, device, torch.float32, N, R, scale=0.1) for i, N in enumerate(Ns)]
    single = [lora_layers(W, A, B, p, compiled=options.compile) for W, A, B in zip(Ws, As, Bs)]
    layers = {name: together([each[name] for each in single]) for name in single[0]}
    layers["ours stacked"] = stacked_layer(Ws, As, Bs, p)
    exact = None
    if not p:

        def definition(x: Tensor, W: Tensor, *factors: Tensor) -> Tensor:
            parts = W.split(Ns)
            pairs = zip(parts, factors[::2], factors[1::2])
            return torch.cat([x @ part.T + low_rank(x, A, B, SCALE) for part, A, B in pairs], -1)

        exact = exact_results(definition, x, dY, torch.cat(Ws), [t for pair in zip(As, Bs) for t in pair])
    for op in options.ops:
        frozen = sum(roofline.frozen_flops(op, M, K, N, dx) for N in Ns)
        lora = sum(roofline.lora_flops(op, M, K, N, R, dx) for N in Ns)
        made = timed_layers(layers, op, x, dY, exact=exact)
        limit = lora / frozen if frozen else None
        yield Case(op, group.at(M), made, R, p, dtype, dx, limit, limited=("ours", "peft"))


def together(layers: Sequence[Layer | str]) -> Layer | str:
    """Layers of one input as one, outputs side by side."""
    there = [layer for layer in layers if isinstance(layer, Layer)]
    if len(there) < len(layers):
        return next(layer for layer in layers if isinstance(layer, str))
    return Layer(
        lambda x: torch.cat([layer.forward(x) for layer in there], -1),
        [t for layer in there for t in layer.trained],
        [t for layer in there for t in layer.weights],
    )


def main(argv: list[str] | None = None) -> int:
    made = parser(NAME, __doc__ or "")
    add_layer_options(made, ranks=(16,))
    return finish(run(NAME, cases, settle_layers(made.parse_args(argv))))


if __name__ == "__main__":
    sys.exit(main())
