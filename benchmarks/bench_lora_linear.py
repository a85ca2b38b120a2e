"""One LoRA layer: forward, backward and both, over the frozen layer, PEFT and the limit 1 + 1.5 R (1/K + 1/N).

    python -m benchmarks.bench_lora_linear [--quick] [--models smollm2 llama8b] [--ranks 16] [--ops both] …

Legend: x (M, K), W (N, K), A (R, K), B (N, R).
"""  # fmt: skip

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import torch

from benchmarks import roofline
from benchmarks.command import DTYPES, Case, finish, parser, run, settle
from benchmarks.layers import draw, exact_results, timed_layers
from benchmarks.providers import SCALE, lora_layers
from benchmarks.shapes import WIDTHS, Shape, default_models, default_rows, shapes
from deltatune.functional import low_rank

NAME = "bench_lora_linear"


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
    layers = lora_layers(W, A, B, p, compiled=options.compile)
    exact = None
    if not p:  # every provider draws its own mask
        exact = exact_results(lambda x, W, A, B: x @ W.T + low_rank(x, A, B, SCALE), x, dY, W, [A, B])
    for op in options.ops:
        yield Case(
            op,
            shape.at(M),
            timed_layers(
                layers,
                op,
                x,
                dY,
                exact=exact,
                flops=flops_of(op, M, K, N, R, dx),
                moved_bytes=moved_by(M, K, N, kind) if op == "both" and dx else None,
            ),
            rank=R,
            dropout=p,
            dtype=dtype,
            dx=dx,
            limit=roofline.limit(op, K, N, R, dx),
            limited=("ours", "peft"),
        )


def flops_of(op: str, M: int, K: int, N: int, R: int, dx: bool) -> Callable[[str], int]:
    def of(provider: str) -> int:
        if provider in ("frozen", "full"):
            return (roofline.full_flops if provider == "full" else roofline.frozen_flops)(op, M, K, N, dx)
        return roofline.lora_flops(op, M, K, N, R, dx)

    return of


def moved_by(M: int, K: int, N: int, dtype: torch.dtype) -> Callable[[str], int]:
    """The least bytes that the job needs, so that GB/s compares providers rather than their waste."""
    return lambda provider: roofline.moved("frozen" if provider == "frozen" else "floor", M, K, N) * dtype.itemsize


def add_layer_options(parser: Any, ranks: Sequence[int], dropouts: Sequence[float] = (0.0, 0.1)) -> None:
    """The grid of a benchmark of layers."""
    parser.add_argument("--models", nargs="+", choices=tuple(WIDTHS))
    parser.add_argument("--rows", type=int, nargs="+", help="M, the tokens")
    parser.add_argument("--ranks", type=int, nargs="+", default=list(ranks))
    parser.add_argument("--dropouts", type=float, nargs="+", default=list(dropouts))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["fp32", "bf16"])
    parser.add_argument("--dx", nargs="+", choices=("on", "off"), default=["on", "off"])
    parser.add_argument("--ops", nargs="+", choices=tuple(roofline.PARTS), default=["fwd", "bwd", "both"])


def settle_layers(options: Any) -> Any:
    """`settle`, and the device's shapes where none were given."""
    settle(options)
    options.models = options.models or default_models(options.device)
    options.rows = options.rows or default_rows(options.device)
    if options.quick:
        options.models, options.rows, options.ranks = options.models[:1], options.rows[:1], options.ranks[:1]
        options.dx = options.dx[:1]
    return options


def main(argv: list[str] | None = None) -> int:
    made = parser(NAME, __doc__ or "")
    add_layer_options(made, ranks=(8, 16, 64))
    return finish(run(NAME, cases, settle_layers(made.parse_args(argv))))


if __name__ == "__main__":
    sys.exit(main())
