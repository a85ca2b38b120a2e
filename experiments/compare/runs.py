"""The runs of a comparison: carried out where they are not done, kept as small files, and written into the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console

from experiments.compare.decision_log import DecisionLog
from experiments.compare.trials import Outcome
from experiments.config.schema import Part
from experiments.store.files import read
from experiments.store.result import Complete, Result
from experiments.store.small import essentials
from experiments.support.files import write_json
from experiments.sweep.arm import Arm
from experiments.sweep.pool import carry_out

TIMING = "timing"  # the folder of runs that are there for their time and memory alone


@dataclass(frozen=True)
class StudyRun:
    """A run of the comparison, and the small file that stays of it."""

    task: str
    method: str
    arm: Arm
    folder: Path

    @property
    def searching(self) -> bool:
        return self.arm.config.eval.part is Part.val

    @property
    def key(self) -> str:
        """The run's key, in which its directory's name ends."""
        return self.arm.directory.name.rpartition("-")[2]

    @cached_property
    def file(self) -> Path:
        """Named by its key too, so that a comparison with other settings, or of other sources, overwrites nothing."""
        config = self.arm.config
        return self.folder / f"{self.method}-lr{config.optim.lr:g}-s{config.seed}-{self.key}.result.json"

    @property
    def complete(self) -> Path | None:
        """The result file of the complete run: in this checkout's runs, or the small one of an earlier checkout."""
        if self.arm.complete:
            return self.arm.result
        return self.file if self.file.is_file() and isinstance(read(self.file), Complete) else None


class Runs:
    """Carries runs out, `slots` at a time, and remembers every run that it was asked for."""

    def __init__(self, results: Path, decisions: DecisionLog, slots: int, console: Console) -> None:
        self.results, self.decisions, self.slots, self.console = results, decisions, slots, console
        self.asked: set[Path] = set()  # the small files of all runs that the comparison asked for

    def carry_out(self, runs: Sequence[StudyRun], slots: int | None = None) -> list[Result]:
        """Their results, in their order. Those that are not done are carried out, and each is kept as it ends.

        slots: how many at a time, where not as many as the comparison has.
        """
        slots = slots or self.slots
        self.asked |= {run.file for run in runs}
        done = {run: run.complete for run in runs}
        fresh = {run.arm.directory: run for run in runs if done[run] is None}
        rows = {run: read(path) for run, path in done.items() if path is not None}
        for run, item in rows.items():
            self.keep(run, item)

        def ended(arm: Arm, item: Result) -> None:
            rows[fresh[arm.directory]] = item
            self.keep(fresh[arm.directory], item, slots)

        if fresh:
            carry_out([run.arm for run in fresh.values()], slots, console=self.console, ended=ended)
        return [rows[run] for run in runs]

    def keep(self, run: StudyRun, item: Result, slots: int | None = None) -> None:
        """Write the run's small file and its line in the log: of a trial what the validation set says alone.

        slots: how many runs there were at a time; None of a run that was done before.
        """
        if run.arm.result.is_file() and not (slots is None and run.file.is_file() and newer(run.file, run.arm.result)):
            run.file.parent.mkdir(parents=True, exist_ok=True)
            write_json(run.file, essentials(read(run.arm.result)))
        entry = {
            "task": run.task,
            "method": run.method,
            "lr": item.lr,
            "seed": item.seed,
            "steps": item.steps,
            "key": run.key,
            "file": str(run.file.relative_to(self.results)),
            "commit": item.environment.commit,
            "sources_sha256": item.sources_sha256,
            "slots": slots,
            "failure": item.failure,
        }
        event = self.event(run)
        if any(self.decisions.earlier(event, key=run.key, failure=item.failure)):
            return  # nothing new
        if event == "timed":
            self.decisions.write(event, **entry)
        elif run.searching:
            self.decisions.write(event, **entry, validation=Outcome.of(item).validation)
        else:
            complete = isinstance(item, Complete)
            entry |= {"test_sha256": item.data.test_sha256 if complete else None}
            self.decisions.write(event, **entry, score=item.score if complete else None)

    def alone(self, run: StudyRun) -> bool:
        """Whether the log has it that the run had the machine to itself."""
        lines = self.decisions.every(self.event(run), key=run.key, failure=None)
        return any(line.get("slots") == 1 for line in lines)

    @staticmethod
    def event(run: StudyRun) -> str:
        """What the log calls the end of the run: trial, tested or timed."""
        return "timed" if run.folder.name == TIMING else "trial" if run.searching else "tested"


def newer(file: Path, other: Path) -> bool:
    return file.stat().st_mtime_ns >= other.stat().st_mtime_ns
