"""The stages of a comparison: rates searched on validation, new seeds tested, both written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import ROOT
from experiments.compare.config import CompareConfig, check, how, plain
from experiments.compare.decision_log import DecisionLog
from experiments.compare.rates import Choice, Trial, choose, grid
from experiments.compare.summary import FORMAT, NONE, TaskStudy, across, compared
from experiments.compare.table import markdown, notes, rich_table
from experiments.config.identity import key
from experiments.config.schema import Trains
from experiments.store.files import read
from experiments.store.result import Complete, Failed, Result
from experiments.store.small import essentials
from experiments.support.files import locked, write_json, write_text
from experiments.sweep.arm import Arm
from experiments.sweep.pool import carry_out


@dataclass(frozen=True)
class StudyRun:
    """A run of the comparison, and the small file that stays of it."""

    task: str
    method: str
    arm: Arm
    folder: Path

    @property
    def searching(self) -> bool:
        return self.folder.name == "search"

    @cached_property
    def file(self) -> Path:
        """Named by its configuration too, so that a comparison with other settings overwrites nothing."""
        config = self.arm.config
        return self.folder / f"{self.method}-lr{config.optim.lr:g}-s{config.seed}-{key(config)}.result.json"

    @property
    def complete(self) -> Path | None:
        """The result file of the complete run: in this checkout's runs, or the small one of an earlier checkout."""
        if self.arm.complete:
            return self.arm.result
        return self.file if self.file.is_file() and isinstance(read(self.file), Complete) else None


class Study:
    """A comparison and its stages, which `run` goes through one after the other."""

    def __init__(self, config: CompareConfig, console: Console) -> None:
        check(config)
        self.config, self.console = config, console
        self.results = ROOT / config.results
        self.results.mkdir(parents=True, exist_ok=True)
        self.decisions = DecisionLog(self.results / "ledger.jsonl")
        self.tasks = {task: TaskStudy(task) for task in config.tasks}
        self.methods = [method for method in config.methods if method != NONE]
        self.sizes: dict[str, tuple[str, ...]] = {}
        self.plugins = (f"plugins=[{','.join(config.plugins)}]",) if config.plugins else ()

    def run(self) -> int:
        """Go through all stages; 1 where a run failed. Raises ValueError where another comparison is at work there."""
        lock = locked(self.results / "lock")
        if lock is None:
            raise ValueError(f"results={self.config.results}: another comparison is at work there; give another name=")
        with lock:
            return self.stages()

    def stages(self) -> int:
        """Search, choose, test, and write it all down."""
        self.decisions.write("started", config=plain(self.config))
        self.meet_budget()
        search = self.search_runs()
        n_done = sum(run.complete is not None for run in search)
        n_tests = len(self.tasks) * (len(self.methods) * self.config.seeds + 1)
        say(
            self.console,
            f"{len(search)} runs to choose learning rates, {n_done} of them done; then {n_tests} runs to be tested",
        )
        self.carry_out(search)
        self.choose()
        batches = self.test_runs()
        runs = [run for batch in batches for run in batch]
        n_done = sum(run.complete is not None for run in runs)
        say(self.console, f"learning rates are chosen; {len(runs)} runs to be tested, {n_done} of them done")
        for number, batch in enumerate(batches, 1):
            self.carry_out(batch)
            comparison = self.write([run for later in batches[number:] for run in later])
        from experiments.compare.plot import plot

        plot(comparison, self.results / "plot.png")
        self.record(comparison)
        self.show(comparison)
        return 1 if any(task_study.missing for task_study in self.tasks.values()) else 0

    def overrides(self, task: str, method: str, steps: int, more: Sequence[str] = ()) -> tuple[str, ...]:
        """The overrides of a run at the method's own learning rate."""
        config = self.config
        given = (f"model={config.model}", f"task={task}", f"method={method}", *self.sizes.get(method, ()))
        return (*given, f"optim.steps={steps}", *self.plugins, *config.shared, *more, f"out={config.out}")

    def meet_budget(self) -> None:
        """Choose every method's size, where a number of parameters is to be met."""
        if self.config.budget is None:
            return
        from experiments.compare.budget import solve

        for method in self.methods:
            usual = Arm(self.overrides(self.config.tasks[0], method, self.config.steps))
            sized = solve(usual.config, self.config.budget)
            self.sizes[method] = sized.overrides
            self.decisions.write("size", method=method, budget=self.config.budget, **asdict(sized))
            for task_study in self.tasks.values():
                task_study.note(method, sized.note)

    def search_runs(self) -> list[StudyRun]:
        """List the runs of the search, the default rate of every method first."""
        config = self.config
        steps = config.search_steps or config.steps
        numbered: list[tuple[int, StudyRun]] = []
        for task, task_study in self.tasks.items():
            for method in self.methods:
                usual = Arm(self.overrides(task, method, steps, (*config.search, "eval.part=val")))
                if usual.config.method.trains is Trains.nothing:
                    raise ValueError(f"methods: {method!r} trains nothing; the untouched model is in every comparison")
                rates = grid(usual.config.optim.lr, config.trials, config.factor)
                task_study.rates[method] = rates
                self.decisions.write(
                    "grid", task=task, method=method, rates=rates, steps=steps, seed=config.search_seed
                )
                for number, lr in enumerate(rates):
                    arm = usual.at(lr=lr, seed=config.search_seed)
                    numbered.append((number, StudyRun(task, method, arm, self.results / task / "search")))
        return [run for _, run in sorted(numbered, key=lambda pair: pair[0])]

    def choose(self) -> None:
        """Choose every method's rate from its trials alone: nothing that was measured on the test set is in them."""
        by = self.config.choose_by
        for task, task_study in self.tasks.items():
            for method in self.methods:
                choice = choose(task_study.trials.get(method, []), task_study.rates[method], by)
                task_study.choices[method] = choice
                self.decisions.write("choice", task=task, method=method, by=by.value, **asdict(choice))
                task_study.note(method, *choice.notes, self.hindsight(task, method, choice))
                if choice.lr is None:
                    task_study.missing.append(f"{method}: {choice.notes[0]}")

    def hindsight(self, task: str, method: str, choice: Choice) -> str:
        """A note where an earlier comparison chose another rate, and its test scores have been seen."""
        tested = self.decisions.earlier("tested", task=task, method=method, failure=None)
        seen = {line["lr"] for line in tested} - {choice.lr}
        listed = ", ".join(f"{lr:g}" for lr in sorted(seen))
        return f"test scores at lr {listed}, chosen earlier, had been seen before this choice was made" if seen else ""

    def test_runs(self) -> list[list[StudyRun]]:
        """List the runs that are tested, one seed of every method at a time, so that a part of them is a fair part."""
        config = self.config
        batches: list[list[StudyRun]] = [[] for _ in range(config.seeds)]
        for task, task_study in self.tasks.items():
            for method in (NONE, *self.methods):
                usual = Arm(self.overrides(task, method, config.steps))
                lr = usual.config.optim.lr if method == NONE else task_study.choices[method].lr
                for batch, seed in zip(batches, range(config.first_seed, config.first_seed + config.seeds)):
                    if lr is not None and (method != NONE or seed == config.first_seed):  # no seed changes that model
                        batch.append(StudyRun(task, method, usual.at(lr=lr, seed=seed), self.results / task / "test"))
        return batches

    def carry_out(self, runs: Sequence[StudyRun]) -> None:
        """Carry out those that are not done, and keep what stays of each as it ends."""
        done = {run: run.complete for run in runs}
        fresh = {run.arm.directory: run for run in runs if done[run] is None}
        rows = {run: read(path) for run, path in done.items() if path is not None}
        for run, item in rows.items():
            self.keep(run, item)

        def ended(arm: Arm, item: Result) -> None:
            rows[fresh[arm.directory]] = item
            self.keep(fresh[arm.directory], item)

        if fresh:
            carry_out([run.arm for run in fresh.values()], self.config.slots, console=self.console, ended=ended)
        for run in runs:  # the order is kept, whichever ended first
            self.take(run, rows[run])

    def keep(self, run: StudyRun, item: Result) -> None:
        """Write the run's small file and its line in the log: of a trial what the validation set says alone."""
        if run.arm.result.is_file():
            run.file.parent.mkdir(parents=True, exist_ok=True)
            write_json(run.file, essentials(read(run.arm.result)))
        config = run.arm.config
        entry = {
            "task": run.task,
            "method": run.method,
            "lr": item.lr,
            "seed": item.seed,
            "key": key(config),
            "file": str(run.file.relative_to(self.results)),
            "commit": item.environment.commit,
            "failure": item.failure,
        }
        event = "trial" if run.searching else "tested"
        if any(self.decisions.earlier(event, key=entry["key"], failure=item.failure)):
            return  # nothing new
        if run.searching:
            self.decisions.write(event, **entry, validation=Trial.of(item).validation)
        else:
            self.decisions.write(event, **entry, score=item.score if isinstance(item, Complete) else None)

    def take(self, run: StudyRun, item: Result) -> None:
        """Count the run in its task: as a trial, as tested, or as missing."""
        task_study, config = self.tasks[run.task], run.arm.config
        if isinstance(item, Failed):
            which = f"lr {config.optim.lr:g} of the search" if run.searching else f"seed {config.seed}"
            task_study.missing.append(f"{run.method}, {which}, failed: {' '.join(item.failure.split())}")
            if not run.searching:
                task_study.note(run.method, f"seed {config.seed} failed and is not in the mean ({item.failure_kind})")
        if run.searching:
            task_study.trials.setdefault(run.method, []).append(Trial.of(item))
        elif isinstance(item, Complete):
            task_study.tested.setdefault(run.method, []).append(item)

    def write(self, pending: Sequence[StudyRun]) -> dict[str, Any]:
        """Write comparison.json and table.md of what is there so far. pending: the runs that are still to be tested."""
        config = self.config
        for task, task_study in self.tasks.items():
            task_study.pending = [f"{run.method} seed {run.arm.config.seed}" for run in pending if run.task == task]
        tasks = {task: compared(each, config.alpha, config.margin) for task, each in self.tasks.items()}
        seeds = "1 seed" if config.seeds == 1 else f"{config.seeds} seeds"
        title = f"{config.model}: {', '.join(config.tasks)}, {config.steps} steps, {seeds}"
        if pending:
            title += f"; under way, {len(pending)} runs still to be tested"
        comparison = {"format": FORMAT, "title": title, "how": how(config), "tasks": tasks}
        comparison["across"] = across(tasks, config.alpha, config.resamples)
        write_json(self.results / "comparison.json", comparison)
        write_text(self.results / "table.md", markdown(comparison))
        return comparison

    def record(self, comparison: dict[str, Any]) -> None:
        """Log the tests and the ties."""
        for task, outcome in comparison["tasks"].items():
            for pair in outcome["pairs"]:
                self.decisions.write("pair", task=task, **pair)
            groups = {item["method"]: item["group"] for item in outcome["methods"]}
            reason = outcome["share_of_full_reason"]
            self.decisions.write("ties", task=task, groups=groups, share_of_full_reason=reason)

    def show(self, comparison: dict[str, Any]) -> None:
        """Print the tables, their notes, and where the files lie."""
        for task, outcome in comparison["tasks"].items():
            if outcome["methods"]:
                self.console.print(rich_table(f"{self.config.model} on {task}", outcome))
            for line in notes(outcome):
                say(self.console, line)
        for name in ("table.md", "plot.png", "comparison.json", "ledger.jsonl"):
            say(self.console, str(Path(self.config.results) / name))


def say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
