"""Architectures in processes of their own: a crash or a hang is a result of one cell, and the others go on.

A process is forked for each architecture and tells what it begins and what came out. When it dies, or says nothing
for too long, the cell that it had begun gets that as its result, and another process takes the rest.
"""

from __future__ import annotations

import os
import resource
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from tests.certify.architectures import Architecture
from tests.certify.cell import Cell, attempt, certified
from tests.certify.columns import Column
from tests.certify.laws import LAWS
from tests.certify.reach import reach

forked: Any = get_context("fork")
MEMORY = 16 << 30  # bytes of address space, so that one wrong recipe cannot take the machine
BUILD = "build"


@dataclass
class Job:
    """An architecture in progress: the columns that are left, and the process that has them."""

    architecture: Architecture
    columns: list[Column]
    process: Any = None
    ears: Any = None
    begun: str = BUILD
    since: float = field(default_factory=time.monotonic)

    def start(self, laws: Sequence[str]) -> None:
        self.ears, mouth = forked.Pipe(duplex=False)
        self.process = forked.Process(target=work, args=(self.architecture, self.columns, laws, mouth), daemon=True)
        self.process.start()
        mouth.close()
        self.begun, self.since = BUILD, time.monotonic()

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.ears.close()


def work(architecture: Architecture, columns: Sequence[Column], laws: Sequence[str], mouth: Connection) -> None:
    """In the forked process: make the subject, then cell after cell, each told when it begins and when it is done."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    subject, reason = attempt(architecture.make)
    if subject is None:
        mouth.send((BUILD, {"outcome": "not built", "message": reason}))
        return
    size = sum(p.numel() for p in subject.model.parameters())
    told: Cell = {"outcome": "built", "class": type(subject.model).__name__, "parameters": size}
    if not subject.alone:
        told |= {"reach": reach(subject)}
    mouth.send((BUILD, told))
    for column in columns:
        mouth.send((column.name, None))
        mouth.send((column.name, certified(subject, column, laws)))


def results(
    architectures: Sequence[Architecture],
    wanted: Callable[[Architecture], list[Column]],
    jobs: int,
    limit_s: float,
    laws: Sequence[str] = tuple(LAWS),
) -> Iterator[Cell]:
    """Every cell as it is done, with its architecture, family and method."""
    waiting = [Job(a, wanted(a)) for a in architectures]
    waiting = [job for job in reversed(waiting) if job.columns]
    running: list[Job] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(waiting.pop())
                running[-1].start(laws)
            wait([job.ears for job in running], timeout=1.0)
            for job in list(running):
                yield from heard(job)
                silent = time.monotonic() - job.since > limit_s
                if job.process.is_alive() and not silent:
                    continue
                yield from heard(job)
                cell = broken(job, limit_s, silent)
                job.end()
                running.remove(job)
                if cell is not None:
                    yield cell
                if job.columns:
                    waiting.append(Job(job.architecture, job.columns))
    finally:
        for job in running:
            job.end()


def heard(job: Job) -> Iterator[Cell]:
    """What the process has told since."""
    while True:
        try:
            if not job.ears.poll():
                return
            name, cell = job.ears.recv()
        except (EOFError, OSError):
            return
        job.begun, job.since = name, time.monotonic()
        if cell is None:
            continue
        if cell["outcome"] == "not built":
            job.columns = []
        job.columns = [column for column in job.columns if column.name != name]
        job.begun = ""
        yield labelled(job, name, cell)


def broken(job: Job, limit_s: float, silent: bool) -> Cell | None:
    """The result of the cell that a process had begun when it died or was silent for too long."""
    if not job.begun:
        return None
    name = job.begun
    what = f"no result within {limit_s:g} s" if silent else f"the process ended with {job.process.exitcode}"
    job.columns = [] if name == BUILD else [column for column in job.columns if column.name != name]
    cell = {"outcome": "not built" if name == BUILD else "wrong", "law": "process", "message": what, "notes": []}
    return labelled(job, name, cell)


def labelled(job: Job, name: str, cell: Cell) -> Cell:
    return {"architecture": job.architecture.name, "family": job.architecture.family, "method": name, **cell}
