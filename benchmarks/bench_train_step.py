"""A training step of SmolLM2-135M on 8 x 64 tokens: milliseconds, tokens/s, peak memory; LoRA r16, alpha 32, on every
linear layer, and prefix, IA3 and DoRA.

    python -m benchmarks.bench_train_step [--scenarios bf16 half …] [--quick]

frozen: forward, and backward to the embeddings' output, the bound. peft: adapters in fp32 over the bf16 base, its
default; peft matched: in bf16. our loop: what a run of experiments does, which keeps freed memory and sends labelled
rows alone through the head. Each provider has a process of its own and they take turns, a step each; peak memory is
the rise over the loaded model while it is built and makes three steps.
"""  # fmt: skip

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.apart import Apart, Told
from benchmarks.command import Case, finish, parser, run, settle
from benchmarks.steps import MODELS, SCENARIOS, Scenario, base, batch, build, providers
from benchmarks.table import OUR_LOOP
from benchmarks.timing import Timed
from deltatune.freed_memory import keep_freed

NAME = "bench_train_step"


def cases(options: Any) -> Iterator[Case]:
    for name in options.scenarios:
        yield case(name, SCENARIOS[name], options)


def case(name: str, scenario: Scenario, options: Any) -> Case:
    made: dict[str, Timed | str] = {}
    for provider in providers(scenario):
        made[provider] = timed_step(provider, scenario, options)
    shape = f"{options.model} {options.batch}x{options.tokens} {name}"
    about = (scenario.rank, scenario.dropout, scenario.dtype)
    return Case(f"{scenario.method} step", shape, made, *about, median=True)


def timed_step(provider: str, scenario: Scenario, options: Any) -> Timed | str:
    asked = (options.model, options.device, options.batch, options.tokens, options.seed)
    try:
        process = Apart(partial(loaded, provider, scenario, *asked), options.device)
    except Told as said:
        return str(said)
    return Timed(process.once, apart=True, tokens=options.batch * options.tokens, peak_bytes=process.rise_bytes)


def loaded(
    provider: str, scenario: Scenario, name: str, device: torch.device, B: int, T: int, seed: int
) -> Callable[[], Callable[[], Any] | str]:
    """Load the model and return what builds a provider's step on it."""
    if provider.endswith(OUR_LOOP):
        keep_freed()  # a training run does so too
    model = base(name, scenario, device)
    given = batch(model, B, T, scenario.labelled, seed)
    with torch.no_grad():  # the weights' pages come into memory when they are first read
        model(input_ids=given.inputs["input_ids"][:1, :8])
    torch.manual_seed(seed)
    return partial(build, provider, scenario, model, given)


def add_step_options(parser: Any) -> None:
    """What a benchmark of training steps is asked for."""
    parser.add_argument("--model", default="smollm2", choices=MODELS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)


def main(argv: list[str] | None = None) -> int:
    made = parser(NAME, __doc__ or "", repeats=12, threads=[torch.get_num_threads()])
    add_step_options(made)
    made.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    options = settle(made.parse_args(argv))
    if options.quick:
        options.scenarios, options.batch, options.tokens = options.scenarios[:1], 2, 16
    return finish(run(NAME, cases, options))


if __name__ == "__main__":
    sys.exit(main())
