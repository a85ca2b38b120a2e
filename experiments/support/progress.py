"""A progress bar on a terminal; elsewhere a line every so many units."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress(what: str, total: int, every: int, start: int = 0) -> Iterator[Callable[[int, str], None]]:
    """Yields a function that takes how many units are done and a short text about the last one."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as bar:
            task = bar.add_task(what, total=total, completed=start, note="")
            yield lambda done, note: bar.update(task, completed=done, note=note)
        return
    began, shown = time.perf_counter(), start

    def line(done: int, note: str) -> None:
        nonlocal shown
        if done - shown >= every or done == total:
            shown = done
            left_s = (time.perf_counter() - began) / (done - start) * (total - done)
            console.print(f"{what} {done}/{total}  {note}  {left_s:.0f} s left", markup=False, highlight=False)

    yield line
