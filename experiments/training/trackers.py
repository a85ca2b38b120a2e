"""Trackers beside a run's own files, each of them optional: TensorBoard, Weights & Biases, MLflow, trackio and others.

    trackers = Trackers(config.track, config)  # ValueError for a name or a package that is not there
    trackers.log(step, {"loss": 0.5})
    trackers.finish(result)

Each works on a thread of its own. Once the run has begun, an error costs a warning, and waiting costs at most FINISH_S
seconds at the end. Nothing leaves the machine unless the tracker's own environment variables ask for that: WANDB_MODE
is offline by default, MLFLOW_TRACKING_URI a database in `out`, and trackio keeps to its folder (TRACKIO_DIR); the
others' are in tracker_table.py.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config.identity import run_name
from experiments.config.schema import Config, plain
from experiments.training.tracker import About, Tracker, is_number, leaves
from experiments.training.tracker_table import TRACKERS

FINISH_S = 60.0  # what all trackers together may take
WAITING = 10_000  # calls; a tracker that falls behind by more is given up
SUMMARY = (
    *("quality", "quality_by_part", "validation", "loss", "parameters", "bytes", "memory", "seconds"),
    *("tokens_per_s", "step_s", "flops", "cost", "forgetting"),
)


class Trackers:
    """All trackers of one run. Raises ValueError for one that is unknown or not installed; later on, never."""

    def __init__(self, names: Sequence[str], config: Config) -> None:
        self.workers: list[Worker] = []
        if names:
            out, name = Path(config.out), run_name(config)
            about = About(name, out / name, out, plain(config))
            trackers = {each: ready(each, about) for each in names}
            self.workers = [Worker(each, tracker) for each, tracker in trackers.items()]

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """The step's numbers; waits for nobody."""
        numbers = {name: float(value) for name, value in metrics.items() if name != "step" and is_number(value)}
        for worker in self.workers:
            worker.ask(step, lambda tracker: tracker.log(step, numbers))

    def finish(self, result: Mapping[str, Any]) -> None:
        """The result's numbers, or its error, and the end; waits FINISH_S seconds at most."""
        numbers = {
            name.replace(".", "/"): float(value)
            for section in SUMMARY
            for name, value in leaves({section: result.get(section)})
            if is_number(value)
        }
        error = str(result.get("error")) if result.get("status") == "failed" else None
        until = time.monotonic() + FINISH_S
        for worker in self.workers:
            worker.ask(0, lambda tracker: tracker.finish(numbers, error))
            worker.ask(0, None)
        for worker in self.workers:
            worker.wait(until)


def ready(name: str, about: About) -> Tracker:
    """The tracker with its package imported."""
    if name not in TRACKERS:
        raise ValueError(f"track: no tracker {name!r}; there are: {', '.join(TRACKERS)}")
    try:
        return TRACKERS[name](about)
    except ImportError as error:
        raise ValueError(
            f"track: cannot import {name} ({error}); pip install {name}, or leave it out of track"
        ) from error


class Worker:
    """A thread that carries out what a tracker is asked, in order; its first error is printed, none is raised."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name, self.tracker = name, tracker
        self.asked: queue.Queue[tuple[int, Callable[[Tracker], None] | None]] = queue.Queue(WAITING)
        self.warned = self.given_up = False
        # A daemon, so that one which hangs cannot keep the process.
        self.thread = threading.Thread(target=self.work, name=f"tracker {name}", daemon=True)
        self.thread.start()

    def ask(self, step: int, what: Callable[[Tracker], None] | None) -> None:
        """Queue a call; None ends the thread."""
        if self.given_up:
            return
        try:
            self.asked.put_nowait((step, what))
        except queue.Full:
            self.give_up(f"is {WAITING} calls behind")

    def work(self) -> None:
        """Start the tracker at the first call's step, then carry out every call."""
        step, what = self.asked.get()
        try:
            self.tracker.start(step)
        except BaseException as error:  # a package may even try to exit
            self.give_up(f"{type(error).__name__}: {error}")
            return
        while what is not None:
            try:
                what(self.tracker)
            except BaseException as error:
                self.warn(f"{type(error).__name__}: {error}")
            _, what = self.asked.get()

    def wait(self, until: float) -> None:
        """Wait for the end of the thread, until this time of the monotonic clock."""
        if self.given_up:
            return
        self.thread.join(max(0.0, until - time.monotonic()))
        if self.thread.is_alive():
            self.give_up(f"did not finish within {FINISH_S:g} s")

    def give_up(self, why: str) -> None:
        """Ask nothing more of the tracker."""
        self.given_up = True
        self.warn(why)

    def warn(self, why: str) -> None:
        """Print why, the first time."""
        if not self.warned:
            self.warned = True
            print(f"warning: tracker {self.name}: {why}; the run goes on", file=sys.stderr)
