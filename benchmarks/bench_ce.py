"""Cross-entropy through the output head: `deltatune.loss.linear_cross_entropy` against the model's own loss.

    python -m benchmarks.bench_ce [--quick] [--models smollm2] [--labelled 1 0.5]

Forward and the hidden states' gradient. frozen: the head's two matrix products without any loss, the bound where all
is labelled. peft: it leaves the loss to the model, which makes fp32 logits of every row. "labelled rows" does so for
the labelled ones alone. Legend: h (M, D) hidden states, W (V, D) the head, t (M,) targets.
"""  # fmt: skip

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.command import DTYPES, Case, finish, parser, run, settle
from benchmarks.layers import draw, relative_error
from benchmarks.memory import call_peak_bytes
from benchmarks.timing import Timed, attempt
from deltatune.loss import linear_cross_entropy
from experiments.data.batch import IGNORED

NAME = "bench_ce"
HEADS = {"smollm2": (576, 49152), "llama8b": (4096, 128256), "toy": (16, 64)}  # D, V


def cases(options: Any) -> Iterator[Case]:
    for model, M, labelled, dtype in product(options.models, options.rows, options.labelled, options.dtypes):
        yield case(model, M, labelled, dtype, options)


def case(model: str, M: int, labelled: float, dtype: str, options: Any) -> Case:
    D, V = HEADS[model]
    h = draw(options.seed, options.device, DTYPES[dtype], M, D).requires_grad_()
    W = draw(options.seed + 1, options.device, DTYPES[dtype], V, D, scale=D**-0.5)
    t = torch.randint(0, V, (M,), generator=torch.Generator().manual_seed(options.seed)).to(options.device)
    t[: round(M * (1 - labelled))] = IGNORED
    rows = t != IGNORED
    n = rows.sum()
    dlogits = torch.ones(M, V, dtype=h.dtype, device=h.device)

    def head() -> Tensor:
        return torch.autograd.grad(F.linear(h, W), h, dlogits)[0]

    def through(loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return lambda: torch.autograd.grad(loss() / n, h)[0]

    def plain(h: Tensor = h, W: Tensor = W) -> Tensor:
        return F.cross_entropy(F.linear(h, W).float(), t, ignore_index=IGNORED, reduction="sum")

    def picked() -> Tensor:
        return F.cross_entropy(F.linear(h[rows], W).float(), t[rows], reduction="sum")

    calls = {
        "frozen": head,
        "peft": through(plain),
        "labelled rows": through(picked),
        "ours": through(lambda: linear_cross_entropy(h[rows], W, t[rows])),
    }
    made: dict[str, Timed | str] = {}
    exact = None
    if M * V <= 1 << 26:  # the logits in fp64 take no more than 512 MiB
        wide = h.detach().double().requires_grad_()
        exact = torch.autograd.grad(F.cross_entropy((wide @ W.double().T)[rows], t[rows]), wide)[0]

    def timed(provider: str, call: Callable[[], Tensor]) -> Timed:
        first = call()
        error = None if exact is None or provider == "frozen" else relative_error(first, exact)
        flops = 4.0 * D * V * (M if provider in ("frozen", "peft") else int(n))
        return Timed(call, flops=flops, peak_bytes=call_peak_bytes(call, h.device), rel_error=error)

    for provider, call in calls.items():
        made[provider] = attempt(partial(timed, provider, call))
    return Case("loss", f"{model} {M}x{D}->{V} {labelled:.0%} labelled", made, dtype=dtype)


def main(argv: list[str] | None = None) -> int:
    made = parser(NAME, __doc__ or "", repeats=12)
    made.add_argument("--models", nargs="+", choices=HEADS)
    made.add_argument("--rows", type=int, nargs="+", help="M, the tokens")
    made.add_argument("--labelled", type=float, nargs="+", default=[1.0, 0.5])
    made.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["fp32", "bf16"])
    options = settle(made.parse_args(argv))
    on_gpu = options.device.type == "cuda"
    options.models = options.models or (["smollm2", "llama8b"] if on_gpu else ["smollm2"])
    options.rows = options.rows or ([4096] if on_gpu else [512])
    if options.quick:
        options.models, options.rows, options.labelled = options.models[:1], [32], options.labelled[-1:]
    return finish(run(NAME, cases, options))


if __name__ == "__main__":
    sys.exit(main())
