"""Prefix tuning: one attention with a prefix of 16, and the whole training step against PEFT's.

    python -m benchmarks.bench_prefix [--quick] [--model smollm2] [--no-step]

attention: frozen is torch's attention alone; peft what its cache amounts to, the prefix's keys and values in front and
one attention; "ours from example" the same mathematics; ours starts from zero, the prefix's share gated by head.
Legend: q (B, H, T, D), k and v (B, H_kv, T, D), prefix (H_kv, L, D).
"""  # fmt: skip

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.bench_train_step import add_step_options, case
from benchmarks.command import DTYPES, Case, finish, parser, run, settle
from benchmarks.layers import draw
from benchmarks.memory import call_peak_bytes
from benchmarks.providers import plainly
from benchmarks.steps import LENGTH, SCENARIOS
from benchmarks.timing import Timed, attempt
from deltatune.attention import attend_gated, attend_prefixed

NAME = "bench_prefix"
HEADS = {"smollm2": (9, 3, 64), "llama8b": (32, 8, 128), "tiny": (4, 2, 16)}  # H, H_kv, D


def cases(options: Any) -> Iterator[Case]:
    for name, dtype in product(options.attentions, options.dtypes):
        yield attention_case(name, dtype, options)
    if options.step:
        yield case("prefix", SCENARIOS["prefix"], options)


def attention_case(name: str, dtype: str, options: Any) -> Case:
    H, few, D = HEADS[name]
    B, T, kind, device, seed = options.batch, options.tokens, DTYPES[dtype], options.device, options.seed
    q = draw(seed, device, kind, B, H, T, D).requires_grad_()
    k, v = (draw(seed + i, device, kind, B, few, T, D).requires_grad_() for i in (1, 2))
    dY = draw(seed + 3, device, kind, B, H, T, D)
    pk, pv = (draw(seed + i, device, torch.float32, few, LENGTH, D).requires_grad_() for i in (4, 5))
    gate = torch.zeros(few, device=device).requires_grad_()

    base = F.scaled_dot_product_attention
    how: dict[str, Any] = {"is_causal": True, "enable_gqa": True}

    def both(run: Callable[[], Tensor], *trained: Tensor) -> Timed | str:
        def call() -> None:
            torch.autograd.grad(run(), [q, k, v, *trained], dY)

        def made() -> Timed:
            call()
            return Timed(call, peak_bytes=call_peak_bytes(call, device), tokens=B * T)

        return attempt(made)

    made = {
        "frozen": both(lambda: base(q, k, v, **how)),
        "peft": both(plainly(lambda: attend_prefixed(base, q, k, v, pk, pv, **how)), pk, pv),
        "ours": both(lambda: attend_gated(base, q, k, v, pk, pv, gate, **how), pk, pv, gate),
        "ours from example": both(lambda: attend_prefixed(base, q, k, v, pk, pv, **how), pk, pv),
    }
    notes = {"peft": "its way, not its code: keys and values in front, in torch's attention"}
    return Case("attention", f"{name} {B}x{H}/{few}x{T}x{D} prefix {LENGTH}", made, dtype=dtype, dx=True, notes=notes)


def main(argv: list[str] | None = None) -> int:
    made = parser(NAME, __doc__ or "", repeats=12, threads=[torch.get_num_threads()])
    add_step_options(made)
    made.add_argument("--attentions", nargs="+", choices=HEADS, default=["smollm2"])
    made.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["fp32", "bf16"])
    made.add_argument("--no-step", dest="step", action="store_false", help="the attention alone")
    options = settle(made.parse_args(argv))
    if options.quick:
        options.batch, options.tokens = 2, 16
    return finish(run(NAME, cases, options))


if __name__ == "__main__":
    sys.exit(main())
