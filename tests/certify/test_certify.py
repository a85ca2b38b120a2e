"""A sample of architectures held to the laws; and the harness itself: what it calls wrong, what a crash or hang is.

What the committed table says is right stays right. Where it says otherwise, the whole certification is the place to
look: `python -m tests.certify`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deltatune as dt
from deltatune.host import hosts
from tests.certify import table
from tests.certify.architectures import Architecture, Subject, architectures, checked, roughened
from tests.certify.cell import attempt, certified
from tests.certify.columns import Column, columns
from tests.certify.laws import QUICK
from tests.certify.pool import results

TABLE = Path(__file__).parent / "results" / table.TABLE
SAMPLE = (
    *("llama", "gemma2", "gemma3_text", "gpt2", "gpt_neo", "gpt_neox", "bloom", "falcon", "phi3", "codegen", "xglm"),
    *("mixtral", "gpt_oss", "deepseek_v3", "minicpm3", "mamba", "bert", "roberta", "funnel", "modernbert", "clip"),
    *("t5", "bart", "bart:classifier", "whisper", "vit", "dinov2", "resnet", "wav2vec2"),
    *("nn:Linear", "nn:Embedding", "nn:LayerNorm", "nn:Conv2d", "nn:LSTM", "nn:MultiheadAttention"),
    *("nn:TransformerEncoderLayer", "nn:Sequential", "nn:shadowed-names"),
)
ROWS = {row["name"]: row for row in table.lines(TABLE)}
EVERY = {a.name: a for a in architectures()}


def test_the_sample_is_of_the_table_and_large() -> None:
    assert len(SAMPLE) >= 30 and set(SAMPLE) <= EVERY.keys()


@pytest.mark.parametrize("name", SAMPLE)
def test_what_was_right_is_right(name: str) -> None:
    """One method a law cannot do without a run of; the others by turns, so that a sample costs a minute."""
    subject, reason = attempt(EVERY[name].make)
    assert subject is not None, reason
    before = ROWS.get(name, {}).get("methods", {})
    turn = SAMPLE.index(name)
    every = columns()
    chosen = {c.name: c for c in (every[0], every[turn % len(every)], every[(turn * 3 + 1) % len(every)])}
    wrong = {}
    for column in chosen.values():
        cell = certified(subject, column, QUICK)
        if cell["outcome"] == "wrong" and not before.get(column.name, "wrong").startswith("wrong"):
            wrong[column.name] = f"{cell['law']}: {cell['message']}"
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ROWS))
def test_every_architecture_of_the_table(name: str) -> None:
    subject, reason = attempt(EVERY[name].make)
    if "methods" not in ROWS[name]:
        pytest.skip(f"not built: {reason}")
    assert subject is not None, reason
    cells = {c.name: certified(subject, c) for c in columns()}
    before = ROWS[name]["methods"]
    wrong = {n: c for n, c in cells.items() if c["outcome"] == "wrong" and not before.get(n, "").startswith("wrong")}
    assert wrong == {}


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x)) + self.second(x)


def small() -> Subject:
    return checked(Subject(roughened(Small()), {"x": torch.randn(2, 6, generator=torch.Generator().manual_seed(0))}))


def column(change: Any) -> Column:
    """A method whose change of the output is this function of (delta, x, h)."""

    class Method(dt.DeltaModule):
        def __init__(self, host: nn.Module):
            super().__init__()
            self.g = nn.Parameter(torch.zeros(6))

        @classmethod
        def usual(cls, model: nn.Module, hparams: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
            return [("first", {}), ("second", {})]

    Method.change = lambda self, x, h: change(self, x, h)  # type: ignore[method-assign]
    return Column("Method", Method)


@pytest.mark.parametrize(
    ("change", "law"),
    [
        (lambda d, x, h: d.g * h, ""),
        (lambda d, x, h: (1 + d.g) * h, "identity"),
        (lambda d, x, h: 0 * d.g * h, "step"),
        (lambda d, x, h: d.g.detach() * h, "verified"),
    ],
    ids=["right", "no identity", "no effect", "no gradient"],
)
def test_a_broken_method_is_told(change: Any, law: str) -> None:
    cell = certified(small(), column(change))
    if law == "":
        assert (cell["outcome"], cell["message"]) == ("right", "")
    else:
        assert (cell["outcome"], cell["law"]) == ("wrong", law)


def dies() -> Subject:
    os._exit(3)


def hangs() -> Subject:
    time.sleep(60)
    raise AssertionError


class DiesInForward(Small):
    def forward(self, x: Tensor) -> Tensor:
        if hosts(self):
            os._exit(4)
        return super().forward(x)


def dying_cell() -> Subject:
    subject = small()
    subject.model.__class__ = DiesInForward
    return subject


def test_a_crash_and_a_hang_are_results_and_no_end() -> None:
    makes = {"dies": dies, "hangs": hangs, "dies in a cell": dying_cell, "fine": small}
    every = [Architecture(name, "test", make) for name, make in makes.items()]
    chosen = [c for c in columns() if c.name in ("LoRA", "Full")]
    cells = list(results(every, lambda a: chosen, 2, 6.0, ["identity"]))
    told = {(c["architecture"], c["method"]): (c["outcome"], c.get("message", "")) for c in cells}
    assert told["dies", "build"] == ("not built", "the process ended with 3")
    assert told["hangs", "build"] == ("not built", "no result within 6 s")
    for method in ("LoRA", "Full"):
        assert told["dies in a cell", method] == ("wrong", "the process ended with 4")
        assert told["fine", method] == ("right", "")


def test_equal_messages_are_one_kind() -> None:
    one = "model.layers.0.mlp (default): LoRA was never called; LlamaMLP has (4, 8)"
    other = "encoder.block.11.ff (default): LoRA was never called; T5LayerFF has (16, 8)"
    assert table.kind(one) == table.kind(other) != table.kind(one.replace("LoRA", "IA3"))
    cell = {"outcome": "wrong", "law": "verified", "method": "LoRA", "family": "test"}
    lines = table.failures(
        [{**cell, "architecture": "a", "message": one}, {**cell, "architecture": "b", "message": other}], "wrong"
    )
    assert len(lines) == 1 and lines[0].split()[0] == "2" and "a, b" in lines[0]


def test_a_table_is_written_read_and_resumed(tmp_path: Path) -> None:
    cells = list(results([Architecture("fine", "test", small)], lambda a: columns()[:1], 1, 60.0, ["identity"]))
    table.written(tmp_path, cells)
    (row,) = table.lines(tmp_path / table.TABLE)
    assert row["class"] == "Small" and row["methods"] == {"LoRA": "right"}
    assert row["reach"] == {"covered": 2, "maps": 2, "silent": 0, "left": {}}
    (tmp_path / table.CELLS).write_text('{"architecture": "a", "method": "b", "outcome": "right"}\n{"cut')
    assert len(table.read(tmp_path / table.CELLS)) == 1
