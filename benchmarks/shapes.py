"""The linear layers that are timed: every projection of Llama-8B and of SmolLM2-135M, equal sizes once.

Legend: M rows (tokens), K inputs, N outputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Shape(NamedTuple):
    """One kind of projection; names: the layers of a block that have it."""

    model: str
    names: str
    K: int
    N: int

    def at(self, M: int) -> str:
        return f"{self.model} {self.names} {M}x{self.K}->{self.N}"


class Group(NamedTuple):
    """Projections of one input, which may share a pass over it: q/k/v, or gate/up."""

    model: str
    names: str
    K: int
    Ns: tuple[int, ...]

    def at(self, M: int) -> str:
        return f"{self.model} {self.names} {M}x{self.K}->{'+'.join(map(str, self.Ns))}"


# Hidden, keys and values, feed-forward; "toy" is for tests.
WIDTHS = {"smollm2": (576, 192, 1536), "llama8b": (4096, 1024, 14336), "toy": (32, 16, 48)}


def shapes(model: str) -> list[Shape]:
    D, KV, F = widths(model)
    return [
        Shape(model, "q,o", D, D),
        Shape(model, "k,v", D, KV),
        Shape(model, "gate,up", D, F),
        Shape(model, "down", F, D),
    ]


def groups(model: str) -> list[Group]:
    D, KV, F = widths(model)
    return [Group(model, "q+k+v", D, (D, KV, KV)), Group(model, "gate+up", D, (F, F))]


def widths(model: str) -> tuple[int, int, int]:
    if model not in WIDTHS:
        raise ValueError(f"no shapes of {model!r}; there are: {', '.join(WIDTHS)}")
    return WIDTHS[model]


def default_models(device: torch.device) -> list[str]:
    """Llama-8B's layers take a CPU seconds each: there they are timed where asked for alone."""
    return ["smollm2", "llama8b"] if device.type == "cuda" else ["smollm2"]


def default_rows(device: torch.device) -> list[int]:
    return [512, 2048, 8192, 16384] if device.type == "cuda" else [512]
