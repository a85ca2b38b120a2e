"""The rows of a query as text: for a terminal, CSV, markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

# LaTeX prints, in an 8-bit font encoding, other signs for < and > and |.
LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "–": "--", "\n": " ",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}  # fmt: skip


def shown(value: Any) -> str:
    """A value for a reader: four digits that count, thousands apart, a dash for what is not there."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def numeric(rows: Sequence[Sequence[Any]], column: int) -> bool:
    """Whether a column holds numbers alone, beside what is missing; such a column stands right."""
    return all(isinstance(row[column], int | float | None) and not isinstance(row[column], bool) for row in rows)


def rich_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table()
    for column, header in enumerate(headers):
        table.add_column(Text(header), justify="right" if numeric(rows, column) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(value)) for value in row))
    return table


def csv_text(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Every digit; an empty cell for what is not there."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([headers, *rows])
    return file.getvalue()


def markdown(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A pipe table."""

    def line(cells: Sequence[str]) -> str:
        cells = [cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in cells]
        return f"| {' | '.join(cells)} |\n"

    rule = " | ".join("--:" if numeric(rows, column) else ":--" for column in range(len(headers)))
    return line(headers) + f"| {rule} |\n" + "".join(line([shown(value) for value in row]) for row in rows)


def latex(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A tabular for the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        escaped = ("".join(LATEX.get(sign, sign) for sign in cell) for cell in cells)
        return f"{' & '.join(escaped)} \\\\"

    columns = "".join("r" if numeric(rows, column) else "l" for column in range(len(headers)))
    body = [line([shown(value) for value in row]) for row in rows]
    parts = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", line(headers), "\\midrule", *body, "\\bottomrule"]
    return "\n".join([*parts, "\\end{tabular}", ""])


TEXT = {"csv": csv_text, "markdown": markdown, "latex": latex}
FORMATS = ("csv", "parquet", "markdown", "latex")
