"""Trackers beside a run's own files: TensorBoard, Weights & Biases, MLflow and trackio, each of them optional.

    trackers = Trackers(config.track, config)  # ValueError for a name or a package that is not there
    trackers.log(step, {"loss": 0.5})
    trackers.finish(result)

Each works on a thread of its own. Once the run has begun, an error costs a warning, and waiting costs at most FINISH_S
seconds at the end. Nothing leaves the machine unless the tracker's own environment variables ask for that: WANDB_MODE
is offline by default, MLFLOW_TRACKING_URI a database in `out`, and trackio keeps to its folder (TRACKIO_DIR).
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import re
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.config.identity import run_name
from experiments.config.schema import Config, plain

FINISH_S = 60.0  # for all trackers together
WAITING = 10_000  # calls; a tracker that falls behind by more is given up
SUMMARY = (
    *("quality", "quality_by_part", "validation", "loss", "parameters", "bytes", "memory", "seconds"),
    *("tokens_per_s", "step_s", "flops", "cost", "forgetting"),
)


@dataclass(frozen=True)
class About:
    """What a tracker learns of its run."""

    name: str
    directory: Path  # the run's own
    out: Path  # the folder that holds it
    config: dict[str, Any]


class Tracker(ABC):
    """The four events of a run, in a tracker's own words; any of them may raise."""

    package: str  # what pip calls it
    modules: tuple[str, ...]  # to import: the first that is there
    quiet: dict[str, str] = {}  # environment variables against reports of the package's own use; set ones stay

    def __init__(self, module: ModuleType) -> None:
        self.module: Any = module

    @abstractmethod
    def start(self, about: About, first: int) -> None:
        """`first` is the step that will be logged first."""

    @abstractmethod
    def log(self, step: int, metrics: dict[str, float]) -> None: ...

    @abstractmethod
    def finish(self, summary: dict[str, float], error: str | None) -> None:
        """`error` is that of a failed run."""


class TensorBoard(Tracker):
    """Event files in the run's directory: tensorboard --logdir runs."""

    package = "tensorboard"
    modules = ("torch.utils.tensorboard", "tensorboardX")

    def start(self, about: About, first: int) -> None:
        # What a process that died logged from this step on is hidden.
        folder, suffix = about.directory / "tensorboard", f".{os.getpid()}.{first}"  # the name alone counts seconds
        self.writer = self.module.SummaryWriter(str(folder), purge_step=first, filename_suffix=suffix)
        self.writer.add_text("config", f"```json\n{json.dumps(about.config, indent=2)}\n```")
        self.last = first

    def log(self, step: int, metrics: dict[str, float]) -> None:
        for name, number in metrics.items():
            self.writer.add_scalar(f"step/{name}", number, step)
        self.last = step

    def finish(self, summary: dict[str, float], error: str | None) -> None:
        for name, number in summary.items():
            self.writer.add_scalar(name, number, self.last)
        if error is not None:
            self.writer.add_text("error", error)
        self.writer.close()


class Wandb(Tracker):
    """An offline run in the run's directory, which `wandb sync` uploads; WANDB_MODE=online to do so at once."""

    package = "wandb"
    modules = ("wandb",)
    quiet = {"WANDB_ERROR_REPORTING": "false"}

    def start(self, about: About, first: int) -> None:
        self.run = self.module.init(
            project=os.environ.get("WANDB_PROJECT", "deltatune"),
            name=about.name,
            dir=str(about.directory),
            config=about.config,
            mode=os.environ.get("WANDB_MODE", "offline"),
            # The run's output is its own, and it is being measured: nothing may sample it.
            settings=self.module.Settings(silent=True, console="off", x_disable_stats=True),
        )

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.run.log(metrics, step=step)

    def finish(self, summary: dict[str, float], error: str | None) -> None:
        self.run.summary.update(summary if error is None else {**summary, "error": error})
        self.run.finish(exit_code=0 if error is None else 1)


class MLflow(Tracker):
    """A run in the database mlflow.db in `out`, or at MLFLOW_TRACKING_URI."""

    package = "mlflow"
    modules = ("mlflow",)
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true"}

    def start(self, about: About, first: int) -> None:
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            self.module.set_tracking_uri(f"sqlite:///{about.out.resolve() / 'mlflow.db'}")
        self.module.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "deltatune"))
        self.module.start_run(run_name=about.name)
        params = [(self.allowed(name), str(value)[:500]) for name, value in leaves(about.config)]
        for i in range(0, len(params), 100):  # the most that one request may hold
            self.module.log_params(dict(params[i : i + 100]))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.module.log_metrics({self.allowed(name): number for name, number in metrics.items()}, step=step)

    def finish(self, summary: dict[str, float], error: str | None) -> None:
        self.module.log_metrics({self.allowed(name): number for name, number in summary.items()})
        if error is not None:
            self.module.set_tag("error", error[:500])
        self.module.end_run("FINISHED" if error is None else "FAILED")

    @staticmethod
    def allowed(name: str) -> str:
        """MLflow refuses other signs."""
        return re.sub(r"[^\w\-. :/]", "_", name)


class Trackio(Tracker):
    """A run in trackio's own folder: trackio show --project deltatune."""

    package = "trackio"
    modules = ("trackio",)

    def start(self, about: About, first: int) -> None:
        project = os.environ.get("TRACKIO_PROJECT", "deltatune")
        self.run = self.module.init(
            project=project,
            name=about.name,
            config=about.config,
            resume="allow",  # a run that goes on is the same run
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.run.log(metrics, step=step)

    def finish(self, summary: dict[str, float], error: str | None) -> None:
        self.run.log(summary)
        self.run.finish()


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": MLflow, "trackio": Trackio}


class Trackers:
    """All trackers of one run. Raises ValueError for one that is unknown or not installed; later on, never."""

    def __init__(self, names: Sequence[str], config: Config) -> None:
        made = {name: made_ready(name) for name in names}
        out = Path(config.out)
        self.workers: list[Worker] = []
        if made:
            name = run_name(config)
            about = About(name, out / name, out, plain(config))
            self.workers = [Worker(each, tracker, about) for each, tracker in made.items()]

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


def made_ready(name: str) -> Tracker:
    """The tracker with its package imported."""
    if name not in TRACKERS:
        raise ValueError(f"track: no tracker {name!r}; there are: {', '.join(TRACKERS)}")
    kind = TRACKERS[name]
    for variable, value in kind.quiet.items():
        os.environ.setdefault(variable, value)
    errors = []
    for module in kind.modules:
        try:
            return kind(importlib.import_module(module))
        except Exception as error:  # a broken installation raises anything
            errors.append(f"{module}: {type(error).__name__}: {error}")
    tried = "; ".join(errors)
    raise ValueError(f"track: cannot import {name} ({tried}); pip install {kind.package}, or leave it out of track")


class Worker:
    """A thread that carries out what a tracker is asked, in order; its first error is said, none is raised."""

    def __init__(self, name: str, tracker: Tracker, about: About) -> None:
        self.name, self.tracker, self.about = name, tracker, about
        self.asked: queue.Queue[tuple[int, Callable[[Tracker], None] | None]] = queue.Queue(WAITING)
        self.said = self.given_up = False
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
        step, what = self.asked.get()
        try:
            self.tracker.start(self.about, step)
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
        """For the end of the thread, until this time of the monotonic clock."""
        if self.given_up:
            return
        self.thread.join(max(0.0, until - time.monotonic()))
        if self.thread.is_alive():
            self.give_up(f"did not finish within {FINISH_S:g} s")

    def give_up(self, why: str) -> None:
        self.given_up = True
        self.warn(why)

    def warn(self, why: str) -> None:
        """Say it once."""
        if not self.said:
            self.said = True
            print(f"warning: tracker {self.name}: {why}; the run goes on", file=sys.stderr)


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value inside dicts and lists with its dotted name."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
