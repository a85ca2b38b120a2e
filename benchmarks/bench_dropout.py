"""Dropout on the delta's input: our mask, drawn again in the backward, against F.dropout, which stores one.

    python -m benchmarks.bench_dropout [--quick] [--models smollm2]

mask: the elements alone, forward (CPU; on a GPU the mask is drawn inside the kernels). both: the layer's forward and
backward at p, and at p = 0 what dropout costs on top. Legend: x (M, K).
"""  # fmt: skip

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.bench_lora_linear import add_layer_options, settle_layers
from benchmarks.command import DTYPES, Case, finish, parser, run
from benchmarks.layers import draw, timed_layers
from benchmarks.memory import call_peak_bytes
from benchmarks.providers import lora_layers
from benchmarks.shapes import Shape, shapes
from benchmarks.timing import Timed
from deltatune.fast import drawn_seed, dropped, zeroed

NAME = "bench_dropout"


def cases(options: Any) -> Iterator[Case]:
    grid = product(options.models, options.rows, options.ranks, options.dropouts, options.dtypes)
    for model, M, R, p, dtype in grid:
        for shape in shapes(model)[: 1 if options.quick else None]:
            if options.device.type == "cpu":
                yield mask_case(shape, M, p, dtype, options)
            yield layer_case(shape, M, R, p, dtype, options)


def mask_case(shape: Shape, M: int, p: float, dtype: str, options: Any) -> Case:
    x = draw(options.seed, options.device, DTYPES[dtype], M, shape.K)

    def ours() -> Tensor:
        return zeroed(x, dropped(x.numel(), p, drawn_seed()))

    calls = {"peft": lambda: F.dropout(x, p), "ours": ours}
    made = {name: Timed(call, peak_bytes=call_peak_bytes(call, x.device)) for name, call in calls.items()}
    notes = {"peft": "its dropout is F.dropout", "ours": "the factor 1 / (1 - p) is inside s, and not timed here"}
    return Case("mask", f"{shape.model} {M}x{shape.K}", made, None, p, dtype, notes=notes)


def layer_case(shape: Shape, M: int, R: int, p: float, dtype: str, options: Any) -> Case:
    K, N, kind, device = shape.K, shape.N, DTYPES[dtype], options.device
    x = draw(options.seed, device, kind, M, K).requires_grad_()
    dY = draw(options.seed + 1, device, kind, M, N)
    W = draw(options.seed + 2, device, kind, N, K, scale=K**-0.5)
    A = draw(options.seed + 3, device, torch.float32, R, K, scale=K**-0.5)
    B = draw(options.seed + 4, device, torch.float32, N, R, scale=0.1)
    chosen = ("frozen", "peft", "peft matched", "ours", "ours plain")
    layers = {n: l for n, l in lora_layers(W, A, B, p, compiled=False).items() if n in chosen}
    without = lora_layers(W, A, B, 0.0, compiled=False)
    layers |= {"peft p=0": without["peft"], "ours p=0": without["ours"]}
    return Case("both", shape.at(M), timed_layers(layers, "both", x, dY), R, p, dtype, True)


def main(argv: list[str] | None = None) -> int:
    made = parser(NAME, __doc__ or "")
    add_layer_options(made, ranks=(16,), dropouts=(0.05, 0.1))
    return finish(run(NAME, cases, settle_layers(made.parse_args(argv))))


if __name__ == "__main__":
    sys.exit(main())
