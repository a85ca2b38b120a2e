"""One batch, another adapter a row: forward without gradients, as PEFT's mixed batches are for inference alone.

    python -m benchmarks.bench_multi_lora [--quick] [--adapters 2 8] [--batch 8]

peft: a list of adapter names, one a row. "ours one by one": the rows of each adapter through the layer in turn.
"ours grouped": all adapters at once, on a GPU by a kernel. frozen: the layer without any, the bound.
Legend: x (B, T, K), W (N, K), A (R, K) and B (N, R) of each adapter; ranks of 8 and 16 in turn.
"""  # fmt: skip

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.bench_lora_linear import add_layer_options, settle_layers
from benchmarks.command import DTYPES, Case, finish, parser, run
from benchmarks.layers import draw, relative_error
from benchmarks.memory import call_peak_bytes
from benchmarks.providers import NO_PEFT, SCALE, holder, routed_call
from benchmarks.shapes import Shape, shapes
from benchmarks.timing import Timed, attempt
from deltatune.functional import lora_linear, low_rank

NAME = "bench_multi_lora"


def cases(options: Any) -> Iterator[Case]:
    for model, M, adapters, dtype in product(options.models, options.rows, options.adapters, options.dtypes):
        for shape in shapes(model)[: 1 if options.quick else None]:
            yield case(shape, M, adapters, dtype, options)


def case(shape: Shape, M: int, adapters: int, dtype: str, options: Any) -> Case:
    K, N, kind, device, seed = shape.K, shape.N, DTYPES[dtype], options.device, options.seed
    rows = options.batch
    x = draw(seed, device, kind, rows, M // rows, K)
    W = draw(seed + 1, device, kind, N, K, scale=K**-0.5)
    ranks = [8 if i % 2 else 16 for i in range(adapters)]
    As = [draw(seed + 100 + i, device, torch.float32, R, K, scale=K**-0.5) for i, R in enumerate(ranks)]
    Bs = [draw(seed + 900 + i, device, torch.float32, N, R, scale=0.1) for i, R in enumerate(ranks)]
    route = torch.randint(0, adapters, (rows,), generator=torch.Generator().manual_seed(seed)).tolist()
    of = {i: torch.tensor([r for r, to in enumerate(route) if to == i], device=device) for i in sorted(set(route))}

    def one_by_one() -> Tensor:
        y = x.new_empty(*x.shape[:-1], N)
        for i, mine in of.items():
            y[mine] = lora_linear(x[mine], W, None, As[i], Bs[i], SCALE)
        return y

    calls: dict[str, Callable[[], Tensor] | str] = {
        "frozen": lambda: F.linear(x, W),
        "peft": peft_call(x, W, As, Bs, route),
        "ours one by one": one_by_one,
        "ours grouped": routed_call(x, W, As, Bs, route),
    }
    wide = x.double() @ W.double().T
    for i, mine in of.items():
        wide[mine] += low_rank(x[mine].double(), As[i], Bs[i], SCALE)
    made: dict[str, Timed | str] = {}
    for name, call in calls.items():
        made[name] = call if isinstance(call, str) else attempt(partial(timed, torch.no_grad()(call), wide))
    if isinstance(frozen := made["frozen"], Timed):
        frozen.rel_error = None  # it computes something else
    return Case("fwd", f"{shape.at(M)} {rows} rows {adapters} adapters", made, None, None, dtype)


def timed(call: Callable[[], Tensor], exact: Tensor) -> Timed:
    error = relative_error(call(), exact)
    return Timed(call, peak_bytes=call_peak_bytes(call, exact.device), rel_error=error)


def peft_call(x: Tensor, W: Tensor, As: list[Tensor], Bs: list[Tensor], route: list[int]) -> Callable[[], Tensor] | str:
    if find_spec("peft") is None:
        return NO_PEFT
    from peft import LoraConfig, get_peft_model

    configs = [LoraConfig(r=len(A), lora_alpha=int(SCALE * len(A)), target_modules=["0"], bias="none") for A in As]
    model = get_peft_model(holder(W), configs[0], "a0")  # type: ignore[arg-type]
    for i, config in enumerate(configs[1:], 1):
        model.add_adapter(f"a{i}", config)
    layer: Any = model.base_model.model[0]  # type: ignore[index,operator]
    with torch.no_grad():
        for i, (A, B) in enumerate(zip(As, Bs)):
            layer.lora_A[f"a{i}"].weight.copy_(A)
            layer.lora_B[f"a{i}"].weight.copy_(B)
    model.eval()
    return partial(layer, x, adapter_names=[f"a{i}" for i in route])


def main(argv: list[str] | None = None) -> int:
    made = parser(NAME, __doc__ or "")
    add_layer_options(made, ranks=(16,))
    made.add_argument("--adapters", type=int, nargs="+", default=[2, 8])
    made.add_argument("--batch", type=int, default=8, help="rows of the batch; M tokens are spread over them")
    return finish(run(NAME, cases, settle_layers(made.parse_args(argv))))


if __name__ == "__main__":
    sys.exit(main())
