"""Measure every path of the kernels on this GPU and write the dispatch table, shape by shape.

    python -m benchmarks.tune [--models smollm2 llama8b] [--rows 2048 8192] [--ranks 16] [--dropouts 0 0.1]

The table is kernels/fused/dispatch.json; a shape that is done is kept if the command is cut off.
"""  # fmt: skip

from __future__ import annotations

import argparse
import sys
from itertools import product

import torch

from benchmarks.command import DTYPES
from benchmarks.shapes import WIDTHS, shapes
from deltatune import kernels  # type: ignore[attr-defined]  # kernels/fused


def main(argv: list[str] | None = None) -> int:
    made = argparse.ArgumentParser("python -m benchmarks.tune", description=__doc__)
    made.add_argument("--models", nargs="+", choices=tuple(WIDTHS), default=["smollm2", "llama8b"])
    made.add_argument("--rows", type=int, nargs="+", default=[2048, 8192], help="M, the tokens")
    made.add_argument("--ranks", type=int, nargs="+", default=[16])
    made.add_argument("--dropouts", type=float, nargs="+", default=[0.0, 0.1])
    made.add_argument("--dtype", choices=DTYPES, default="bf16")
    options = made.parse_args(argv)
    if not torch.cuda.is_available():
        print(
            "benchmarks.tune: torch finds no CUDA device here; the dispatch table is measured on one", file=sys.stderr
        )
        return 2
    for M, R, p, model in product(options.rows, options.ranks, options.dropouts, options.models):
        for shape in shapes(model):
            found = kernels.tune([(M, shape.N, shape.K, R)], DTYPES[options.dtype], p)
            for key, row in found.items():
                print(f"{key}: {row['path']} {row['tile'] or ''}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
