"""How long examples are, in characters and in tokens, and which do not reach the model whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol

import numpy as np

from experiments.data.encode import Encoded
from experiments.data.entry import Entry
from experiments.data.findings import Finding
from experiments.data.template import ModelFault
from experiments.tasks.base import Example

QUANTILES = {"min": 0.0, "p05": 0.05, "median": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}


class Encodes(Protocol):
    """What the gate asks of a run's objective (experiments/objectives/base.py)."""

    writes: ClassVar[bool]

    def encode(self, example: Example) -> Encoded: ...
    def scorable(self, example: Example) -> bool: ...
    def faults(self, example: Example) -> Iterator[tuple[str, str, bool]]: ...


def lengths(entries: Sequence[Entry]) -> dict[str, dict[str, dict[str, float]]]:
    """Characters of the prompts and of the answers."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for part in dict.fromkeys(entry.part for entry in entries):
        of_part = [entry.example for entry in entries if entry.part == part]
        if of_part:
            found[part] = {"prompt characters": quantiles([len(written(e)) for e in of_part])}
            if any(e.completion for e in of_part):
                found[part]["answer characters"] = quantiles([len(e.completion) for e in of_part])
    return found


def written(e: Example) -> str:
    return "\n".join([*(turn["content"] for turn in e.messages), *filter(None, (e.text, e.text_pair))])


def tokens(
    entries: Sequence[Entry], objective: Encodes, longest: int | None
) -> tuple[dict[str, list[int]], list[Finding]]:
    """Tokens of the examples of each part before any cut, and the examples that are cut or do not fit at all.

    longest: what is written of an answer, its end included.
    """
    counted: dict[str, list[int]] = defaultdict(list)
    found = []
    for entry in entries:
        if not objective.scorable(entry.example):
            continue  # label_faults reports it
        try:
            row = objective.encode(entry.example)
            for kind, message, means in objective.faults(entry.example):
                found.append(entry.finding(kind, message, severity="error" if means else "warning"))
        except ModelFault:
            raise
        except ValueError as error:
            found.append(entry.finding("does_not_fit", str(error).removeprefix(f"{entry.example.place}: ")))
            continue
        counted[entry.part].append(row.n_tokens + row.cut.tokens)
        if row.cut.tokens:
            found.append(
                entry.finding("truncated", f"{row.cut.tokens} of {row.n_tokens + row.cut.tokens} tokens are cut off")
            )
        if longest is not None and entry.part != "train" and len(row.response) > longest:
            message = f"its answer has {len(row.response)} tokens, eval.max_new_tokens={longest}"
            found.append(entry.finding("answer_too_long", message))
    return counted, found


def quantiles(numbers: Sequence[float]) -> dict[str, float]:
    values = np.quantile(numbers, list(QUANTILES.values()))
    return {"mean": float(np.mean(numbers)), **dict(zip(QUANTILES, map(float, values)))}
