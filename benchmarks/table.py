"""Rows of a benchmark: ratios between rows of one run, the CSV, and the table on the screen."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.support.files import write_text

FROZEN, PEFT, MATCHED = "frozen", "peft", "peft matched"
OUR_LOOP = ", our loop"  # stands behind the name of a provider that is timed in it


@dataclass
class Row:
    """A provider at one case; times in milliseconds. note: why there are none, or what to know about them."""

    benchmark: str
    provider: str
    op: str
    shape: str
    rank: int | None = None
    dropout: float | None = None
    dtype: str = ""
    dx: bool | None = None  # whether the input's gradient is computed too
    y50: float | None = None
    y20: float | None = None
    y80: float | None = None
    y_min: float | None = None
    clock: str = ""
    best: float | None = None  # what ratios are of: y50, but y_min where layers are timed on the wall clock
    tokens_s: float | None = None
    tflops: float | None = None
    gb_s: float | None = None
    limit: float | None = None  # the least ratio_frozen that floating-point operations allow
    ratio_frozen: float | None = None
    ratio_peft: float | None = None  # best / that of PEFT as its users get it
    ratio_matched: float | None = None  # best / that of PEFT with its adapters in the base's dtype
    ratio_limit: float | None = None  # ratio_frozen / limit
    peak_bytes: int | None = None
    saved_bytes: int | None = None
    rel_error: float | None = None
    note: str = ""
    commit: str | None = None
    dirty: bool | None = None
    device: str = ""
    threads: int | None = None
    torch: str = ""
    transformers: str = ""
    peft: str = ""
    repeats: int | None = None
    seed: int | None = None

    @property
    def case(self) -> tuple[Any, ...]:
        """Rows are compared where all of this is equal."""
        return (self.benchmark, self.op, self.shape, self.rank, self.dropout, self.dtype, self.dx, self.threads)


COLUMNS = [field.name for field in fields(Row)]


def add_ratios(rows: Sequence[Row]) -> None:
    """Fill the ratio columns from the rows of the same case; where the other row has no time there is no ratio."""
    times = {(row.case, row.provider): row.best for row in rows}
    for row in rows:
        row.ratio_frozen, row.ratio_peft, row.ratio_matched = (
            divided(row.best, times.get((row.case, other))) for other in (FROZEN, PEFT, MATCHED)
        )
        row.ratio_limit = divided(row.ratio_frozen, row.limit)


def divided(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b


def write_csv(rows: Sequence[Row], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = (getattr(row, name) for name in COLUMNS)
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in values])
    write_text(path, text.getvalue())
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def show(rows: Sequence[Row], title: str, console: Console | None = None) -> None:
    """Print a table a case: of its providers, the columns that say something; then who is absent, and notes."""
    console = console or Console()
    if not console.is_terminal:
        console.width = 200
    console.print(title, style="bold")
    for case in dict.fromkeys(row.case for row in rows):
        mine = [row for row in rows if row.case == case]
        there = [row for row in mine if row.best is not None]
        cells = {name: [text(row) for row in there] for name, text in SHOWN.items()}
        cells = {name: column for name, column in cells.items() if any(column)}
        if there:
            table = Table(title=described(mine[0]), box=box.SIMPLE_HEAD, title_justify="left")
            for name in cells:
                table.add_column(name, justify="left" if name == "provider" else "right", no_wrap=True)
            for line in zip(*cells.values()):
                table.add_row(*line)
            console.print(table)
        for row in mine:
            if row.note:
                console.print(f"  {row.provider}: {row.note}", style="dim", highlight=False)


def described(row: Row) -> str:
    parts = [row.op, row.shape, row.dtype, "" if row.rank is None else f"r{row.rank}"]
    parts += ["" if row.dropout is None else f"p{row.dropout:g}", "no dX" if row.dx is False else ""]
    parts += ["" if row.threads is None else f"{row.threads} thread{'s' * (row.threads != 1)}"]
    return " ".join(part for part in parts if part)


def written(value: float | None, form: str, per: float = 1.0) -> str:
    return "" if value is None else format(value / per, form)


def milliseconds(value: float | None) -> str:
    return written(value, ".3g" if value is None or value < 100 else ".0f")


SHOWN: dict[str, Callable[[Row], str]] = {
    "provider": lambda row: row.provider,
    "ms": lambda row: milliseconds(row.best),  # what the ratios are of
    "median": lambda row: milliseconds(row.y50),
    "p20-p80": lambda row: f"{milliseconds(row.y20)}-{milliseconds(row.y80)}",
    "min": lambda row: milliseconds(row.y_min),
    "× frozen": lambda row: written(row.ratio_frozen, ".3f"),
    "× PEFT": lambda row: written(row.ratio_peft, ".3f"),
    "× matched": lambda row: written(row.ratio_matched, ".3f"),
    "× limit": lambda row: written(row.ratio_limit, ".3f"),
    "TFLOP/s": lambda row: written(row.tflops, ".3g"),
    "GB/s": lambda row: written(row.gb_s, ".3g"),
    "tokens/s": lambda row: written(row.tokens_s, ".0f"),
    "peak MB": lambda row: written(row.peak_bytes, ".2f", 1e6),
    "kept MB": lambda row: written(row.saved_bytes, ".2f", 1e6),
    "error": lambda row: written(row.rel_error, ".1e"),
}
