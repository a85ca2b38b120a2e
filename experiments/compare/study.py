"""The stages of a comparison: rates searched on validation, new seeds tested, what is found written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import ROOT
from experiments.compare.config import CompareConfig, check, how, plain
from experiments.compare.decision_log import Ledger
from experiments.compare.rates import Choice, Trial, choose, grid
from experiments.compare.summary import FORMAT, NONE, Contest, compared
from experiments.compare.table import markdown, notes, rich_table
from experiments.config.identity import key
from experiments.config.schema import Trains
from experiments.store.result import Row, essentials, read, row
from experiments.support.files import locked, write_json, write_text
from experiments.sweep.arm import Arm
from experiments.sweep.pool import carry_out


@dataclass(frozen=True)
class Cell:
    """One run of the comparison, and the small file that stays of it."""

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
        return self.file if self.file.is_file() and read(self.file)["status"] == "complete" else None


class Comparison:
    """The stages, one after the other."""

    def __init__(self, config: CompareConfig, console: Console) -> None:
        check(config)
        self.config, self.console = config, console
        self.results = ROOT / config.results
        self.results.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(self.results / "ledger.jsonl")
        self.contests = {task: Contest(task) for task in config.tasks}
        self.methods = [method for method in config.methods if method != NONE]
        self.sizes: dict[str, tuple[str, ...]] = {}

    def run(self) -> int:
        """Everything; 1 where a run failed. Raises ValueError where another comparison is at work in the folder."""
        lock = locked(self.results / "lock")
        if lock is None:
            raise ValueError(f"results={self.config.results}: another comparison is at work there; give another name=")
        with lock:
            return self.stages()

    def stages(self) -> int:
        self.ledger.write("started", config=plain(self.config))
        self.meet_budget()
        search = self.search_cells()
        n_done = sum(cell.complete is not None for cell in search)
        n_tests = len(self.contests) * (len(self.methods) * self.config.seeds + 1)
        say(
            self.console,
            f"{len(search)} runs to choose learning rates, {n_done} of them done; then {n_tests} runs to be tested",
        )
        self.carry_out(search)
        self.choose()
        batches = self.test_cells()
        cells = [cell for batch in batches for cell in batch]
        n_done = sum(cell.complete is not None for cell in cells)
        say(self.console, f"learning rates are chosen; {len(cells)} runs to be tested, {n_done} of them done")
        for number, batch in enumerate(batches, 1):
            self.carry_out(batch)
            comparison = self.write([cell for later in batches[number:] for cell in later])
        from experiments.compare.plot import plot

        plot(comparison, self.results / "plot.png")
        self.record(comparison)
        self.show(comparison)
        return 1 if any(contest.missing for contest in self.contests.values()) else 0

    def overrides(self, task: str, method: str, steps: int, more: Sequence[str] = ()) -> tuple[str, ...]:
        config = self.config
        given = (f"model={config.model}", f"task={task}", f"method={method}", *self.sizes.get(method, ()))
        return (*given, f"optim.steps={steps}", *config.shared, *more, f"out={config.out}")

    def meet_budget(self) -> None:
        """Every method's size, where a number of parameters is to be met."""
        if self.config.budget is None:
            return
        from experiments.compare.budget import solve

        for method in self.methods:
            usual = Arm(self.overrides(self.config.tasks[0], method, self.config.steps))
            sized = solve(usual.config, self.config.budget)
            self.sizes[method] = sized.overrides
            self.ledger.write("size", method=method, budget=self.config.budget, **asdict(sized))
            for contest in self.contests.values():
                contest.note(method, sized.note)

    def search_cells(self) -> list[Cell]:
        """The runs of the search: the default rate of every method first."""
        config = self.config
        steps = config.search_steps or config.steps
        numbered: list[tuple[int, Cell]] = []
        for task, contest in self.contests.items():
            for method in self.methods:
                usual = Arm(self.overrides(task, method, steps, (*config.search, "eval.part=val")))
                if usual.config.method.trains is Trains.nothing:
                    raise ValueError(f"methods: {method!r} trains nothing; the untouched model is in every comparison")
                rates = grid(usual.config.optim.lr, config.trials, config.factor)
                contest.rates[method] = rates
                self.ledger.write("grid", task=task, method=method, rates=rates, steps=steps, seed=config.search_seed)
                for number, lr in enumerate(rates):
                    arm = usual.at(lr=lr, seed=config.search_seed)
                    numbered.append((number, Cell(task, method, arm, self.results / task / "search")))
        return [cell for _, cell in sorted(numbered, key=lambda pair: pair[0])]

    def choose(self) -> None:
        """Every method's rate, from its trials alone: nothing that was measured on the test set is in them."""
        by = self.config.choose_by
        for task, contest in self.contests.items():
            for method in self.methods:
                choice = choose(contest.trials.get(method, []), contest.rates[method], by)
                contest.choices[method] = choice
                self.ledger.write("choice", task=task, method=method, by=by.value, **asdict(choice))
                contest.note(method, *choice.notes, self.hindsight(task, method, choice))
                if choice.lr is None:
                    contest.missing.append(f"{method}: {choice.notes[0]}")

    def hindsight(self, task: str, method: str, choice: Choice) -> str:
        """A note where an earlier comparison chose another rate, and its test scores have been seen."""
        tested = self.ledger.earlier("tested", task=task, method=method, failure=None)
        seen = {line["lr"] for line in tested} - {choice.lr}
        listed = ", ".join(f"{lr:g}" for lr in sorted(seen))
        return f"test scores at lr {listed}, chosen earlier, had been seen before this choice was made" if seen else ""

    def test_cells(self) -> list[list[Cell]]:
        """The runs that are tested, one seed of every method at a time, so that a part of them is a fair part."""
        config = self.config
        batches: list[list[Cell]] = [[] for _ in range(config.seeds)]
        for task, contest in self.contests.items():
            for method in (NONE, *self.methods):
                usual = Arm(self.overrides(task, method, config.steps))
                lr = usual.config.optim.lr if method == NONE else contest.choices[method].lr
                for batch, seed in zip(batches, range(config.first_seed, config.first_seed + config.seeds)):
                    if lr is not None and (method != NONE or seed == config.first_seed):  # no seed changes that model
                        batch.append(Cell(task, method, usual.at(lr=lr, seed=seed), self.results / task / "test"))
        return batches

    def carry_out(self, cells: Sequence[Cell]) -> None:
        """Run those that are not done; what is found of each is kept as it ends."""
        done = {cell: cell.complete for cell in cells}
        fresh = {cell.arm.directory: cell for cell in cells if done[cell] is None}
        rows = {cell: row(path) for cell, path in done.items() if path is not None}
        for cell, item in rows.items():
            self.keep(cell, item)

        def ended(arm: Arm, item: Row) -> None:
            rows[fresh[arm.directory]] = item
            self.keep(fresh[arm.directory], item)

        if fresh:
            carry_out([cell.arm for cell in fresh.values()], self.config.slots, console=self.console, ended=ended)
        for cell in cells:  # in this order, whichever ended first
            self.take(cell, rows[cell])

    def keep(self, cell: Cell, item: Row) -> None:
        """The run's small file, and its line in the ledger: of one of the search what the validation set says alone."""
        if cell.arm.result.is_file():
            cell.file.parent.mkdir(parents=True, exist_ok=True)
            write_json(cell.file, essentials(read(cell.arm.result)))
        config = cell.arm.config
        said = {
            "task": cell.task,
            "method": cell.method,
            "lr": item.lr,
            "seed": item.seed,
            "key": key(config),
            "file": str(cell.file.relative_to(self.results)),
            "commit": item.environment.get("commit"),
            "failure": item.failure,
        }
        event = "trial" if cell.searching else "tested"
        if any(self.ledger.earlier(event, key=said["key"], failure=item.failure)):
            return  # nothing new
        if cell.searching:
            self.ledger.write(event, **said, validation=Trial.of(item).validation)
        else:
            self.ledger.write(event, **said, score=None if item.failure is not None else item.score)

    def take(self, cell: Cell, item: Row) -> None:
        """Into the contest."""
        contest, config = self.contests[cell.task], cell.arm.config
        if item.failure is not None:
            which = f"lr {config.optim.lr:g} of the search" if cell.searching else f"seed {config.seed}"
            contest.missing.append(f"{cell.method}, {which}, failed: {' '.join(item.failure.split())}")
            if not cell.searching:
                contest.note(cell.method, f"seed {config.seed} failed and is not in the mean ({item.failure_kind})")
        if cell.searching:
            contest.trials.setdefault(cell.method, []).append(Trial.of(item))
        elif item.failure is None:
            contest.tested.setdefault(cell.method, []).append(item)

    def write(self, pending: Sequence[Cell]) -> dict[str, Any]:
        """comparison.json and table.md of what is there so far. pending: the runs that are still to be tested."""
        config = self.config
        for task, contest in self.contests.items():
            contest.pending = [f"{cell.method} seed {cell.arm.config.seed}" for cell in pending if cell.task == task]
        tasks = {task: compared(each, config.alpha, config.resamples) for task, each in self.contests.items()}
        seeds = "1 seed" if config.seeds == 1 else f"{config.seeds} seeds"
        title = f"{config.model}: {', '.join(config.tasks)}, {config.steps} steps, {seeds}"
        if pending:
            title += f"; under way, {len(pending)} runs still to be tested"
        comparison = {"format": FORMAT, "title": title, "how": how(config), "tasks": tasks}
        write_json(self.results / "comparison.json", comparison)
        write_text(self.results / "table.md", markdown(comparison))
        return comparison

    def record(self, comparison: dict[str, Any]) -> None:
        """The tests and the ties into the ledger."""
        for task, found in comparison["tasks"].items():
            for pair in found["pairs"]:
                self.ledger.write("pair", task=task, **pair)
            groups = {item["method"]: item["group"] for item in found["methods"]}
            self.ledger.write("ties", task=task, groups=groups, share_of_full_reason=found["share_of_full_reason"])

    def show(self, comparison: dict[str, Any]) -> None:
        for task, found in comparison["tasks"].items():
            if found["methods"]:
                self.console.print(rich_table(f"{self.config.model} on {task}", found))
            for line in notes(found):
                say(self.console, line)
        for name in ("table.md", "plot.png", "comparison.json", "ledger.jsonl"):
            say(self.console, str(Path(self.config.results) / name))


def say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
