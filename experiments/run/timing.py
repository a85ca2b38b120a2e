"""What runs will cost on this machine, from a few real steps of them and some generated tokens."""

from __future__ import annotations

import contextlib
import io
import math
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from experiments.config.compose import composed
from experiments.config.schema import Config
from experiments.evaluation.answers import parts
from experiments.evaluation.cost import timed
from experiments.objectives.generation import written
from experiments.run.execute import set_up
from experiments.run.stages import Subject, prepared, trained
from experiments.support.memory import Memory
from experiments.support.phase_clock import PhaseClock
from experiments.training.trackers import Trackers

SHORT = ("optim.steps=2", "data.check=off", "forgetting.enabled=false")  # the second step is timed, the first warms up
TOKENS = 5  # generated; the first comes with the prompts


def precision() -> str:
    """The dtype to compute in: bf16, or fp32 on a CPU without products in bf16.

    Without AVX-512, torch falls back on a loop for them: on a Zen 3 core 8 GFLOP/s, where fp32 has 60.
    """
    if torch.cuda.is_available():
        return "bf16"
    cpu, seconds = torch.device("cpu"), {}
    for dtype in (torch.bfloat16, torch.float32):
        x, w = torch.ones(256, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype)
        seconds[dtype] = min(timed(lambda x=x, w=w: torch.nn.functional.linear(x, w), cpu) for _ in range(5))
    return "bf16" if seconds[torch.bfloat16] < 2 * seconds[torch.float32] else "fp32"


def costs(runs: Mapping[str, Sequence[str]]) -> dict[str, tuple[float, float, float]]:
    """For each named run, given by its overrides, seconds of (a step, what training has around its steps, evaluation).

    A run that fails is left out: it will say why when it is carried out.
    """
    measured = {}
    for name, overrides in runs.items():
        with tempfile.TemporaryDirectory() as folder, quiet(), contextlib.suppress(Exception):
            measured[name] = _costs(composed((*overrides, *SHORT, f"out={folder}")), Path(folder))
    return measured


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing is printed."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _costs(config: Config, folder: Path) -> tuple[float, float, float]:
    memory, clock = Memory(), PhaseClock()
    try:
        subject = prepared(config, folder, set_up(config), clock)
        state = trained(subject, memory, Trackers([], config))
    finally:
        memory.end()
    first, second = state.metrics
    rows = subject.rows["train"]
    batch_tokens = config.optim.batch_size * statistics.fmean(row.n_tokens for row in rows)
    step_s = (second["wall_s"] - first["wall_s"]) * batch_tokens / (second["tokens"] - first["tokens"])
    seconds = clock.seconds()
    return step_s, seconds["inject"] + seconds["checkpoint"], evaluation_s(config, subject)


def evaluation_s(config: Config, subject: Subject) -> float:
    """Seconds to answer the validation and test examples, each batch with as many tokens as the longest gold answer."""
    size, reader = config.eval.batch_size, subject.reader
    n_batches = sum(math.ceil(len(subject.rows[part]) / size) for part in ("val", "test"))
    batch = max(parts(subject.rows["test"], size), key=len)
    prompts = [subject.rows["test"][i].prompt for i in batch]
    written(reader, prompts[:1], 1)  # what happens on a first call alone
    one, more = (timed(lambda n=n: written(reader, prompts, n), reader.device) for n in (1, TOKENS))
    token_s = max(0.0, more - one) / (TOKENS - 1)
    longest = min(config.eval.max_new_tokens, max(len(row.response) for row in subject.rows["test"]))
    return n_batches * (one + (longest - 1) * token_s)
