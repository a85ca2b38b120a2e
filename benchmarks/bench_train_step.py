"""A training step of SmolLM2-135M on 8 x 64 tokens: milliseconds, tokens/s, peak memory; LoRA r16, alpha 32, on every
linear layer, and prefix, IA3 and DoRA.

    python -m benchmarks.bench_train_step [--scenarios bf16 half …] [--quick] [--no-memory]

frozen: forward, and backward to the embeddings' output, the bound. peft: adapters in fp32 over the bf16 base, its
default; peft matched: in bf16. Peak memory: a fresh process a provider, three steps, its rise over the loaded model.
"""  # fmt: skip

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.command import Case, finish, parser, run, settle
from benchmarks.memory import print_rise, process_rise_bytes
from benchmarks.steps import MODELS, SCENARIOS, Scenario, base, batch, build, providers
from benchmarks.timing import Timed, attempt
from experiments.batches import Batch

NAME = "bench_train_step"


def cases(options: Any) -> Iterator[Case]:
    for name in options.scenarios:
        yield case(name, SCENARIOS[name], options)


def case(name: str, scenario: Scenario, options: Any) -> Case:
    model = base(options.model, scenario, options.device)
    given = batch(model, options.batch, options.tokens, scenario.labelled, options.seed)
    made: dict[str, Timed | str] = {}
    for provider in providers(scenario):
        torch.manual_seed(options.seed)
        made[provider] = attempt(partial(timed_step, provider, scenario, copy.deepcopy(model), given))
    notes: dict[str, str] = {}
    for provider, timed in made.items():
        if isinstance(timed, Timed) and options.memory:
            rise = process_rise_bytes(f"benchmarks.{NAME}", child_arguments(name, provider, options))
            timed.peak_bytes = rise if isinstance(rise, int) else None
            notes |= {} if isinstance(rise, int) else {provider: f"no peak memory: {rise}"}
    shape = f"{options.model} {options.batch}x{options.tokens} {name}"
    about = (scenario.rank, scenario.dropout, scenario.dtype)
    return Case(f"{scenario.method} step", shape, made, *about, median=True, notes=notes)


def timed_step(provider: str, scenario: Scenario, model: nn.Module, given: Batch) -> Timed | str:
    step = build(provider, scenario, model, given)
    return step if isinstance(step, str) else Timed(step, tokens=given.n_tokens)


def child_arguments(name: str, provider: str, options: Any) -> list[str]:
    threads = torch.get_num_threads()
    fixed = [f"--{key}={getattr(options, key)}" for key in ("device", "model", "batch", "tokens", "seed")]
    return [*fixed, f"--threads={threads}", f"--scenario={name}", f"--child={provider}"]


def child(options: Any) -> int:
    """Print how far memory rises in this process while one provider is built and steps."""
    torch.set_num_threads(options.threads[0])
    scenario = SCENARIOS[options.scenario]
    model = base(options.model, scenario, options.device)
    given = batch(model, options.batch, options.tokens, scenario.labelled, options.seed)
    with torch.no_grad():  # the weights' pages come into memory when they are first read
        model(input_ids=given.inputs["input_ids"][:1, :8])

    def built() -> Any:
        step = build(options.child, scenario, model, given)
        if isinstance(step, str):
            raise SystemExit(step)
        return step

    print_rise(built, options.device)
    return 0


def add_step_options(parser: Any) -> None:
    """What a benchmark of training steps is asked for."""
    parser.add_argument("--model", default="smollm2", choices=MODELS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="no fresh processes")
    parser.add_argument("--scenario", help=argparse.SUPPRESS)  # these two: the benchmark calls itself with them
    parser.add_argument("--child", help=argparse.SUPPRESS)


def main(argv: list[str] | None = None) -> int:
    made = parser(NAME, __doc__ or "", repeats=12, threads=[torch.get_num_threads()])
    add_step_options(made)
    made.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    options = settle(made.parse_args(argv))
    if options.child:
        return child(options)
    if options.quick:
        options.scenarios, options.batch, options.tokens = options.scenarios[:1], 2, 16
    return finish(run(NAME, cases, options))


if __name__ == "__main__":
    sys.exit(main())
