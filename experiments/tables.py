"""Rows of results as tables for a terminal and for markdown.

Nothing here computes a number that a run has not measured.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.rows import ReportError, Row

MiB = 2**20


def size(count: float) -> str:
    return f"{count / MiB:,.1f} MiB" if count >= MiB else f"{count / 1024:,.1f} KiB"


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headers and text cells, one line a row; a failed run says so in place of its numbers."""
    metrics = list(dict.fromkeys(name for item in rows for name in item.quality))
    headers = [
        "method",
        *(name.replace("_", " ") for name in metrics),
        "trainable",
        "share",
        "bytes per task",
        "of a full copy",
        "peak memory",
        "training adds",
        "step",
        "training",
        "lr",
    ]
    lines: list[list[str]] = []
    for item in rows:
        lr = "–" if item.lr is None else f"{item.lr:g}"
        if item.failure is not None:
            lines.append([item.label, "failed", *[""] * (len(headers) - 3), lr])
            continue
        trained = not item.untrained
        lines.append(
            [
                item.label,
                *(f"{item.quality[m]:.3f}" if m in item.quality else "–" for m in metrics),
                f"{item.trainable:,}",
                f"{item.share:.3%}",
                size(item.delta_bytes) if trained else "–",
                f"{item.delta_bytes / item.full_copy_bytes:.2%}" if trained else "–",
                size(item.peak_bytes),
                size(item.increase_bytes) if trained else "–",
                f"{item.step_s:.2f} s" if trained else "–",
                f"{item.train_s:.0f} s" if trained else "–",
                lr,
            ]
        )
    return headers, lines


def rich_table(rows: Sequence[Row], title: str) -> Table:
    """The table for a terminal."""
    headers, lines = cells(rows)
    table = Table(title=title)
    for position, header in enumerate(headers):
        table.add_column(header, justify="left" if position == 0 else "right", overflow="fold")
    for item, line in zip(rows, lines):
        table.add_row(*line, style="red" if item.failure is not None else None)
    return table


def terminal() -> Console:
    """A console as wide as the terminal, or wide enough for the tables where the output is not one."""
    console = Console()
    return console if console.is_terminal else Console(width=180)


def markdown_table(headers: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A pipe table, first column left, the others right."""
    rule = [":--", *["--:"] * (len(headers) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [headers, rule, *lines])


def notes(rows: Sequence[Row]) -> list[str]:
    """What the table alone does not say: notes and failures, a line each."""
    said = [f"* {item.method}: {item.note}" for item in rows if item.note]
    return said + [f"{row.method} failed: {' '.join(row.failure.split())}" for row in rows if row.failure]


def conditions(rows: Sequence[Row]) -> list[str]:
    """Base, data, machine, versions and commit of the complete runs; where runs differ, all values."""
    done = [item for item in rows if item.failure is None]
    trained = [item for item in done if not item.untrained]

    def values(get: Callable[[Row], object], among: Sequence[Row] = done) -> str:
        return " / ".join(dict.fromkeys(str(get(item)) for item in among))

    def env(key: str) -> str:
        return values(lambda item: item.environment.get(key, "unknown"))

    def commit(item: Row) -> str:
        changed = " with local changes" if item.environment.get("dirty") else ""
        return f"{item.environment.get('commit') or 'unknown'}{changed}"

    if not done:
        return ["No run is complete."]
    return [
        f"base model: {values(lambda item: item.base)}",
        f"task: {values(lambda item: item.task)}; {values(lambda item: item.data['n_train'])} training, "
        f"{values(lambda item: item.data['n_val'])} validation "
        f"and {values(lambda item: item.n_test)} test examples; "
        f"content sha256 {values(lambda item: item.data['sha256'][:16])}",
        f"steps: {values(lambda item: item.steps, trained)} of batch {values(lambda item: item.batch_size)}; "
        f"seed {values(lambda item: item.seed)}",
        f"machine: {env('cpu')}, {env('threads')} threads, device {env('device')}, {env('platform')}",
        f"versions: deltatune {env('deltatune')}, torch {env('torch')}, transformers {env('transformers')}, "
        f"Python {env('python')}",
        f"commit: {values(commit)}",
    ]


def _noise(rows: Sequence[Row]) -> str:
    """How far chance alone moves a share of the test examples, for the smallest test set among the rows."""
    n = min((item.n_test for item in rows if item.failure is None), default=0)
    return f" quality: with {n} test examples the standard error is up to {(0.25 / n) ** 0.5:.3f}." if n else ""


def write_markdown(path: Path, title: str, how: str, rows: Sequence[Row], plot: Path | None, extra: str = "") -> None:
    """The report: how it was made, the table, the plot, the conditions, and `extra` sections as they are."""
    parts = [f"# {title}", how, markdown_table(*cells(rows))]
    if said := notes(rows):
        parts.append("\n".join(f"- {line}" for line in said))
    parts.append(
        "bytes per task: the saved delta; for full, the whole model in its own dtype. "
        "peak memory: the process's high-water mark, the base model included. "
        "training adds: the peak during training over the process with the model loaded. "
        "step: median seconds of one optimizer step." + _noise(rows)
    )
    if plot is not None:
        parts.append(f"![{title}: quality against trainable parameters]({plot.name})")
    parts += ["## Conditions", "\n".join(f"- {line}" for line in conditions(rows))]
    if extra:
        parts.append(extra)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def ending(main: Callable[[], int]) -> int:
    """The exit code of a command: its own, or 2 and the message where a result file cannot be read."""
    try:
        return main()
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
