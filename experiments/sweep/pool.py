"""Many runs at a time, each in a fresh process, so that its memory and its failure are its own.

    rows = carry_out([Arm(("method=lora", "out=runs/mine")), Arm(("method=bitfit", "out=runs/mine"))], slots=2)

What is complete is not run again, what was cut off goes on from its checkpoint, what failed is tried again. A run
that fails or is killed is recorded in its result.json and the others go on. Two sweeps over the same runs share them:
each waits for those that the other one holds and takes their results.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from experiments import ROOT
from experiments.config.schema import Device
from experiments.store.result import Result
from experiments.sweep.arm import Arm
from experiments.sweep.cores import cores
from experiments.sweep.job import Job, stop
from experiments.sweep.live_view import live_view

POLL_S = 0.1


def carry_out(
    arms: Sequence[Arm],
    slots: int,
    *,
    console: Console | None = None,
    ended: Callable[[Arm, Result], None] = lambda arm, row: None,
) -> list[Result]:
    """The arms' rows, in their order: as many runs at a time as there are slots. ended: called as each run ends.

    The row of a run that failed has its `failure`. Ctrl-C, SIGTERM and SIGHUP end every process of the runs, then
    raise KeyboardInterrupt or SystemExit. Raises ValueError for a value that makes no sense before anything runs.
    """
    if slots < 1:
        raise ValueError(f"slots={slots}: must be at least 1")
    jobs = {arm.directory: Job(arm) for arm in arms}  # the same run given twice is one job
    console = console or Console()
    reported: set[Path] = set()

    def report() -> None:
        for directory, job in jobs.items():
            if job.row is not None and directory not in reported:
                reported.add(directory)
                ended(job.arm, job.row)

    with signals() as raise_if_signalled, live_view(list(jobs.values()), slots, console) as show:
        try:
            while unsettled := [job for job in jobs.values() if not job.settle()]:
                raise_if_signalled()
                running = [job for job in unsettled if job.process is not None and not job.look()]
                for job in unsettled:
                    if len(running) < slots and job.process is None and job.row is None:
                        slot = min(set(range(slots)) - {other.slot for other in running})
                        job.start(slot, environment(job.arm, slot, slots))
                        running += [job] if job.process is not None else []
                show()
                report()
                time.sleep(POLL_S)
        except (KeyboardInterrupt, SystemExit):
            console.print("stopped: the same command goes on with the runs that were cut off")
            raise
        finally:
            stop(jobs.values())
        show()
        report()
    return [row for arm in arms if (row := jobs[arm.directory].row) is not None]


def environment(arm: Arm, slot: int, slots: int) -> dict[str, str]:
    """This process's environment with the slot's share of the cores, and of the GPUs where there are several.

    Runs that use every core each would slow one another down and their times would mean nothing.
    """
    given = dict(os.environ)
    given["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), given.get("PYTHONPATH"))))
    if arm.config.threads is None:
        given.setdefault("OMP_NUM_THREADS", str(max(1, cores() // slots)))
    devices = gpus()
    if len(devices) > 1 and arm.config.device is not Device.cpu:
        given["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return given


def gpus() -> list[str]:
    """The CUDA devices that this process may use, without torch, whose import takes seconds."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name]
    return [str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


@contextmanager
def signals() -> Iterator[Callable[[], None]]:
    """Yields a function that raises if a signal to stop has come; while the body runs they do nothing else.

    No signal falls between the start of a process and the note that it runs, then, or into the end of one.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield lambda: None
        return
    came: list[int] = []

    def raise_if_signalled() -> None:
        if came:
            raise KeyboardInterrupt if came[0] == signal.SIGINT else SystemExit(128 + came[0])

    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # One that is ignored stays ignored: nohup and a shell's background jobs rely on it.
    before = {number: signal.getsignal(number) for number in watched if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield raise_if_signalled
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
