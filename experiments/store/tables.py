"""What every table shares: sizes in words, a terminal's width, pipe tables for markdown, a command's ending."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console

from experiments.config.table import PluginError
from experiments.store.files import ReportError

MiB = 2**20
# Said wherever forgetting is shown.
SWITCHED_OFF = (
    "A delta can be switched off, and then nothing is forgotten: the base was never touched, and answers as before, to "
    "the bit. After full fine-tuning it is gone."
)


def size(count: float) -> str:
    return f"{count / MiB:,.1f} MiB" if count >= MiB else f"{count / 1024:,.1f} KiB"


def terminal() -> Console:
    """A console as wide as the terminal, or wide enough for the tables where the output is not one."""
    console = Console()
    return console if console.is_terminal else Console(width=180)


def markdown_table(headers: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A pipe table, first column left, the others right."""
    rule = [":--", *["--:"] * (len(headers) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [headers, rule, *lines])


def ending(main: Callable[[], int]) -> int:
    """The exit code of a command: its own, or 2 and the message where a result file, or a plugin, cannot be read."""
    try:
        return main()
    except (ReportError, PluginError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
