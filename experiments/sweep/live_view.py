"""The view of a sweep at work: a live table on a terminal, a line an event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.store.result import Complete, Result
from experiments.sweep.job import LOG, Job, last_step, tail

EVERY_S = 60.0  # the pause between two lines about what is running, where there is no terminal
TAIL = 8  # lines of a failed run's output


@contextmanager
def live_view(jobs: Sequence[Job], slots: int, console: Console) -> Iterator[Callable[[], None]]:
    """Yields a function that shows where the jobs stand; call it often."""
    names = dict(zip(jobs, labels(jobs)))
    n_done = 0
    shown: dict[Job, str] = {}  # the state of a job in its last line
    last = time.monotonic()

    def events() -> None:
        """Print a line for each job whose state is not the one last shown."""
        nonlocal n_done
        for job in jobs:
            state = "ended" if job.row else "running" if job.process else "held" if job.held else ""
            if state == shown.get(job, ""):
                continue
            shown[job] = state
            if job.row is not None:
                n_done += 1
                for line in outcome(job, job.row, f"{n_done}/{len(jobs)} {names[job]}"):
                    console.print(line, soft_wrap=True, highlight=False)
            elif state == "held":
                console.print(f"waiting: {escape(names[job])}: another sweep or run is at work in it", highlight=False)
            elif state == "running" and not console.is_terminal:
                console.print(f"started: {escape(names[job])}", soft_wrap=True, highlight=False)

    if console.is_terminal:
        # Drawn by the pool's own calls: no thread of this process is alive when it starts another.
        with Live(console=console, auto_refresh=False, transient=True) as live:

            def draw() -> None:
                events()
                live.update(table(jobs, names, slots), refresh=True)

            yield draw
        return

    def lines() -> None:
        nonlocal last
        events()
        if time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            at = [f"{names[job]} {progress(job)}" for job in jobs if job.process]
            console.print(escape("; ".join([counts(jobs, slots), *at])), soft_wrap=True, highlight=False)

    yield lines


def labels(jobs: Sequence[Job]) -> list[str]:
    """The overrides in which the jobs differ, or their directories' names where they do not."""
    shared = set.intersection(*(set(job.arm.overrides) for job in jobs)) if jobs else set()
    own = [" ".join(item for item in job.arm.overrides if item not in shared) for job in jobs]
    return [name or job.arm.directory.name for name, job in zip(own, jobs)]


def outcome(job: Job, row: Result, name: str) -> list[str]:
    """The lines about a job that has ended: its scores, or its error and the end of its output."""
    took = "done already" if job.ran_s is None else duration(job.ran_s)
    if isinstance(row, Complete):
        scores = "  ".join(f"{metric} {value:.3f}" for metric, value in row.quality.items())
        return [f"[green]done[/]: {escape(name)}: {scores}  ({took})"]
    log = job.arm.directory / LOG
    output = [escape(f"    {line}") for line in tail(log, TAIL)] if log.is_file() else []
    return [f"[red]failed[/]: {escape(name)}: {escape(row.failure)}", *(f"[dim]{line}[/]" for line in output)]


def progress(job: Job) -> str:
    """The job's step and loss."""
    at = last_step(job.arm.directory / "metrics.jsonl")
    return f"{at['step']:.0f}/{job.arm.config.optim.steps}, loss {at['loss']:.3f}" if at else "starting"


def counts(jobs: Sequence[Job], slots: int) -> str:
    """How many jobs are done, running, failed and to do, and the time that is left."""
    failed = sum(job.row is not None and job.row.failure is not None for job in jobs)
    ended = sum(job.row is not None for job in jobs)
    running = sum(job.process is not None for job in jobs)
    parts = {"done": ended - failed, "running": running, "failed": failed, "to do": len(jobs) - ended - running}
    text = ", ".join(f"{n} {what}" for what, n in parts.items() if n or what == "done")
    left = left_s(jobs, slots)
    return text if left is None else f"{text}; about {duration(left)} left"


def left_s(jobs: Sequence[Job], slots: int) -> float | None:
    """Seconds to the end, if the runs to come take as long as those that this sweep has seen; None before any ended."""
    took = [job.ran_s for job in jobs if job.ran_s is not None and job.row and job.row.failure is None]
    if not took:
        return None
    usual = sum(took) / len(took)
    rest = [max(0.0, usual - job.elapsed_s) if job.process else usual for job in jobs if job.row is None]
    return max(max(rest, default=0.0), sum(rest) / slots)


def duration(seconds: float) -> str:
    """The time in the largest unit that suits."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def table(jobs: Sequence[Job], names: dict[Job, str], slots: int) -> Group:
    """The counts, and a bar for each run at work."""
    bars = Table.grid(padding=(0, 2))
    for job in jobs:
        if job.process is not None:
            at, steps = last_step(job.arm.directory / "metrics.jsonl"), job.arm.config.optim.steps
            bar = ProgressBar(total=steps, completed=at.get("step", 0), width=30)
            bars.add_row(Text(names[job]), bar, progress(job), duration(job.elapsed_s))
    return Group(Text(counts(jobs, slots), style="bold"), bars)
