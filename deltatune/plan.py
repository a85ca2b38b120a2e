"""What was, or would be, injected: a row a site, and the table that a plan prints as."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from deltatune.core import DeltaModule
from deltatune.host import deltas


@dataclass(frozen=True)
class PlannedSite:
    """One site of a plan."""

    path: str
    method: str
    hparams: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    parameters: int
    delta_bytes: int
    note: str


@dataclass(frozen=True)
class Plan:
    """What was, or would be, injected; print it for a table with repeated layers folded into one line."""

    rows: tuple[PlannedSite, ...]
    base_parameters: int
    notes: tuple[str, ...] = ()  # what usual sites leave out or guess, and why

    @property
    def parameters(self) -> int:
        return sum(r.parameters for r in self.rows)

    @property
    def delta_bytes(self) -> int:
        return sum(r.delta_bytes for r in self.rows)

    def __str__(self) -> str:
        groups: dict[tuple[str, ...], list[PlannedSite]] = {}
        for r in self.rows:
            shapes = " ".join(f"{n}{list(s)}" for n, s in r.shapes.items())
            hparams = ", ".join(f"{k}={v!r}" for k, v in r.hparams.items() if v is not None)
            key = (re.sub(r"(?<=\.)\d+(?=\.)", "*", r.path), f"{r.method}({hparams})", shapes, r.note)
            groups.setdefault(key, []).append(r)
        lines = [
            f"{len(rows):5d} × {path or '(the model)'}  {method}  {shapes}  {sum(r.parameters for r in rows):,}"
            + (f"  {note}" if note else "")
            for (path, method, shapes, note), rows in groups.items()
        ]
        share = self.parameters / max(1, self.base_parameters)
        total = f"{self.parameters:,} parameters ({share:.3%} of {self.base_parameters:,}), {self.delta_bytes:,} bytes"
        return "\n".join([*lines, total, *self.notes])


def describe(model: nn.Module, built: list[tuple[str, nn.Module, DeltaModule]], notes: tuple[str, ...] = ()) -> Plan:
    """The plan's table; a shared parameter is counted where it stands first."""
    rows, seen = [], set()
    for path, _, delta in built:
        new = {n: p for n, p in delta.named_parameters() if id(p) not in seen}
        seen |= {id(p) for p in new.values()}
        size = sum(p.numel() for p in new.values())
        stored = sum(p.numel() * p.element_size() for p in new.values())
        shapes = {n: tuple(p.shape) for n, p in new.items()}
        rows.append(PlannedSite(path, type(delta).__name__, delta.hparams(), shapes, size, stored, delta.note()))
    ours = {id(p) for _, _, _, d in deltas(model) for p in d.parameters()}
    return Plan(tuple(rows), sum(p.numel() for p in model.parameters() if id(p) not in ours), notes)
