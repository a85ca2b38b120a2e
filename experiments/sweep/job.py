"""One arm in a process of its own: claimed, started, watched, ended, and recorded where it cannot do so itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from experiments.store.files import read
from experiments.store.header import failed
from experiments.store.result import Kind, Result, plain
from experiments.support.files import locked, write_json
from experiments.sweep.arm import Arm

LOG = "run.log"  # the run's own output, of all its attempts
CLAIM = "pool.lock"  # held by the sweep that carries the run out, from before its process starts until it is recorded
LOCK = "lock"  # held by the process that is at work in the run
COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))  # where kills for want of memory are counted
TERM_S = 3.0  # a process has so long between the request to end and the kill


class Job:
    """An arm on its way to a row. It is running where `process` is not None, and ended where `row` is not None."""

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        self.row: Result | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.held = False  # another sweep or run is at work in it, whose result will be taken
        self.ran_s: float | None = None  # how long the process took that this sweep started and that ended
        self.slot = 0
        self._claim: ExitStack | None = None
        self._began = 0.0
        self._kills: int | None = None
        self._before = stamp(arm.result)  # a failure that is to be retried left it

    @property
    def log(self) -> Path:
        return self.arm.directory / LOG

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def settle(self) -> bool:
        """Take the row where the run is complete, or failed since this sweep began in the hands of another."""
        if self.row is not None or self.process is not None:
            return self.row is not None
        if self.arm.complete or stamp(self.arm.result) not in (None, self._before):
            self.row, self.held = read(self.arm.result), False
        return self.row is not None

    def start(self, slot: int, environment: dict[str, str]) -> None:
        """Start the run's process, or take a row that is there by now, or find that another holds the run."""
        directory = self.arm.directory
        directory.mkdir(parents=True, exist_ok=True)
        self._claim = locked(directory / CLAIM)
        if self._claim is None or not unlocked(directory / LOCK):
            self.held = True
            self.release()
            return
        self.held = False
        if self.settle():
            self.release()
            return
        self.arm.result.unlink(missing_ok=True)  # an attempt that failed left it: it must not stand for this one
        self._before, self._kills, self._began, self.slot = None, oom_kills(), time.monotonic(), slot
        launcher = str(Path(__file__).with_name("die_with_parent.py"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                (sys.executable, "-I", "-S", launcher, str(os.getpid()), *self.arm.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # so that a signal reaches all that it starts, and the terminal's none of it
            )

    def look(self) -> bool:
        """Whether the process has ended; its outcome is taken, or recorded where it left none."""
        assert self.process is not None
        if not ended(self.process):
            return False
        end(self.process)
        self.ran_s, code, self.process = self.elapsed_s, self.process.returncode, None
        if self.settle() or self._record(code):
            self.release()
            return True
        self.held, self.ran_s = True, None  # another run took the lock while this one started
        self.release()
        return False

    def release(self) -> None:
        """Let others have the run."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def _record(self, code: int) -> bool:
        """Write the result of a run that died before it could; False where another holds the run by now."""
        lock = locked(self.arm.directory / LOCK)
        if lock is None:
            return False
        with lock:
            if not self.settle():
                error, kind = self._why(code)
                write_json(self.arm.result, plain(failed(self.arm.config, {}, error, kind)))
        return self.settle()

    def _why(self, code: int) -> tuple[str, Kind]:
        """The error and its kind, from how the process ended."""
        more = f"the end of {self.log} says more"
        if code == -signal.SIGKILL and oom_kills() != self._kills:
            return "killed by the kernel, which ran out of memory; use a smaller batch or fewer slots", "oom"
        if code < 0:
            return f"killed by signal {-code} ({signal.strsignal(-code)}); {more}", "killed"
        if code == 0:
            return f"no result at {self.arm.result}: was the code changed while it ran? Start again", "error"
        last = next(reversed(tail(self.log, 1)), "no output")
        return f"ended with exit code {code} before it wrote a result: {last}; {more}", "error"


def stop(jobs: Iterable[Job]) -> None:
    """End the jobs' processes and all that these started; nothing is recorded, so the runs are gone on with later."""
    jobs = [job for job in jobs if job.process is not None]
    end(*(job.process for job in jobs if job.process is not None))
    for job in jobs:
        job.process = None
        job.release()


def stamp(path: Path) -> tuple[int, int] | None:
    """What tells one writing of the file from the next; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def unlocked(path: Path) -> bool:
    """Whether nobody holds the lock at this moment."""
    lock = locked(path)
    if lock is not None:
        lock.close()
    return lock is not None


def ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process is over. It is not reaped, so that its group's id stays its own."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def end(*processes: subprocess.Popen[bytes]) -> None:
    """End the processes, each with its whole group: a request, TERM_S seconds for it, then the kill."""
    for process in processes:
        signal_group(process, signal.SIGTERM)
    late = time.monotonic() + TERM_S
    while time.monotonic() < late and not all(map(ended, processes)):
        time.sleep(0.02)
    for process in processes:
        signal_group(process, signal.SIGKILL)
        process.wait()


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(PermissionError):  # what macOS says of a group that has only its dead leader
        os.killpg(process.pid, number)


def tail(log: Path, n_lines: int) -> list[str]:
    """The last lines of a file, without blank ones and those that underline a line of code."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return [line for line in lines if line.strip(" ^~\t")][-n_lines:]


def last_step(metrics: Path) -> dict[str, float]:
    """The newest whole row of metrics.jsonl; empty where there is none yet."""
    try:
        for line in reversed(tail(metrics, 2)):
            try:
                return json.loads(line)
            except json.JSONDecodeError:
                continue  # the row that is being written
    except FileNotFoundError:
        pass
    return {}


def oom_kills() -> int | None:
    """How many processes the system has killed for want of memory, in this control group or, failing that, at all.

    None where the system does not say.
    """
    for file in COUNTERS:
        try:
            count = re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
        except OSError:
            continue
        if count:
            return int(count[1])
    return None
