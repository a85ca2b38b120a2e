"""Result files of runs, checked and flattened into rows: what every table and plot is made from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

FORMAT = 1


class ReportError(ValueError):
    """A result file that cannot be shown; the message names the file and the key."""


@dataclass(frozen=True)
class Row:
    """One run. Where `failure` is None it is complete and every number was measured."""

    method: str
    model: str
    task: str
    seed: int
    lr: float | None  # None for the untrained model
    steps: int
    batch_size: int
    failure: str | None = None
    metric: str = ""
    quality: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    n_test: int = 0
    trainable: int = 0
    share: float = 0.0
    delta_bytes: int = 0
    full_copy_bytes: int = 0
    peak_bytes: int = 0
    increase_bytes: int = 0
    step_s: float = 0.0
    train_s: float = 0.0
    total_s: float = 0.0
    base: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    note: str = ""  # what the reader must know beside the numbers; the table stars the row and says it below

    @property
    def score(self) -> float:
        """The test result in the task's main metric."""
        return self.quality[self.metric]

    @property
    def untrained(self) -> bool:
        """Whether this is the model as it was, method `none`."""
        return self.failure is None and self.trainable == 0

    @property
    def label(self) -> str:
        """The method's name, starred where a note goes with it."""
        return f"{self.method} *" if self.note else self.method

    def noted(self, note: str) -> Row:
        """The same row with a note."""
        return replace(self, note=note)


def read(path: Path) -> dict[str, Any]:
    """The result file at `path` as it is, checked for being one of this format."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ReportError(f"{path}: not a readable result file ({error}); delete it and run again") from error
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise ReportError(f"{path}: key 'format' is not {FORMAT}; another version made it, run again")
    if result.get("status") not in ("complete", "failed"):
        raise ReportError(f"{path}: key 'status' is {result.get('status')!r}, not 'complete' or 'failed'")
    return result


def row(path: Path) -> Row:
    """The result file at `path` as a row; a missing key is an error that names it."""
    result = read(path)
    names = ("method", "model", "task", "seed", "lr", "steps", "batch_size")
    try:
        head = {name: result[name] for name in names}
        if result["status"] == "failed":
            return Row(**head, failure=result["error"] or "failed without a message")
        return Row(
            **head,
            metric=result["metric"],
            quality=result["quality"],
            validation=result["validation"],
            n_test=result["n_test"],
            trainable=result["parameters"]["trainable"],
            share=result["parameters"]["share"],
            delta_bytes=result["bytes"]["delta"],
            full_copy_bytes=result["bytes"]["full_copy"],
            peak_bytes=result["memory"]["peak_bytes"],
            increase_bytes=result["memory"]["training_increase_bytes"],
            step_s=result["step_s"],
            train_s=result["seconds"]["train"],
            total_s=result["seconds"]["total"],
            base=result["base"],
            environment=result["environment"],
            data=result["data"],
        )
    except KeyError as error:
        raise ReportError(f"{path}: key {error} is missing; delete the file and run again") from error


def find(folders: Iterable[Path]) -> list[Path]:
    """Every result.json in or under the folders, in the order of their names."""
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise ReportError(f"{folder}: no such folder; give the folder of a run or one that holds runs")
        found += sorted(folder.rglob("result.json"))
    if not found:
        raise ReportError(f"no result.json under {', '.join(map(str, folders))}")
    return found
