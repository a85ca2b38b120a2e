"""The stages of a comparison: its plan, the head's rate, every method's search, and new seeds, which are tested."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console

from experiments import ROOT
from experiments.compare.arms import PROBE, Arms
from experiments.compare.axes import Axis
from experiments.compare.config import CompareConfig, Sources, check, plain
from experiments.compare.decision_log import DecisionLog
from experiments.compare.outcome import comparison_of, log_tests, say, show
from experiments.compare.plan import Plan, PlannedTask, planned
from experiments.compare.runs import TIMING, Runs, StudyRun
from experiments.compare.search_runs import MethodSearch, at, carry_out
from experiments.compare.sources import made_by_others, refusal
from experiments.compare.summary import NONE
from experiments.compare.table import markdown
from experiments.compare.task_study import TaskStudy
from experiments.compare.trials import Choice
from experiments.config.sources import sources_sha256
from experiments.store.result import Complete, Failed, Result
from experiments.support.files import locked, write_json, write_text
from experiments.sweep.arm import Arm


class Study:
    """A comparison and its stages, which `run` goes through one after the other."""

    def __init__(self, config: CompareConfig, console: Console) -> None:
        check(config)
        self.config, self.console = config, console
        self.results = ROOT / config.results
        self.results.mkdir(parents=True, exist_ok=True)
        self.decisions = DecisionLog(self.results / "ledger.jsonl")
        self.plan = Plan(self.results, self.decisions)
        self.runs = Runs(self.results, self.decisions, config.slots, console)
        self.tasks = {task: TaskStudy(task) for task in config.tasks}
        self.arms = Arms(config)
        self.axes: dict[tuple[str, str], tuple[Axis, ...]] = {}  # the keys are task and method

    def run(self) -> int:
        """Go through all stages; 1 where a run failed. Raises ValueError where another comparison is at work there."""
        lock = locked(self.results / "lock")
        if lock is None:
            raise ValueError(f"results={self.config.results}: another comparison is at work there; give another name=")
        with lock:
            return self.stages()

    def stages(self) -> int:
        """Plan, search, choose, test, and write it all down."""
        self.decisions.write("started", config=plain(self.config))
        self.meet_budget()
        self.make_plan()
        for task in self.tasks:  # one task after the other, so that of an interrupted study some tasks are whole
            self.find_head_rate(task)
            self.choose(task)
            self.test(task)
        self.time()
        self.plan.unforeseen(self.results, self.tasks, self.runs.asked)
        comparison = self.write()
        from experiments.compare.plot import plot

        plot(comparison, self.results / "plot.png")
        log_tests(self.decisions, comparison)
        show(self.console, self.config, comparison)
        return 1 if any(study.missing for study in self.tasks.values()) else 0

    # ---------------------------------------------------------------- the plan

    def meet_budget(self) -> None:
        """Choose every method's size, where a number of parameters is to be met."""
        if self.config.budget is None:
            return
        from experiments.compare.budget import solve

        sizes = {}
        for method in self.arms.methods:
            sized = solve(self.arms.tested(self.config.tasks[0], method).config, self.config.budget)
            sizes[method] = sized.overrides
            self.decisions.write("size", method=method, budget=self.config.budget, **asdict(sized))
            for study in self.tasks.values():
                study.note(method, sized.note)
        self.arms = Arms(self.config, sizes)

    def make_plan(self) -> None:
        """Write down, before the first run, what is going to be done; or what departs from what was written."""
        if (self.results / "comparison.json").is_file() and not self.plan.path.is_file():
            raise ValueError(
                f"results={self.config.results}: there lies a study without a plan; give this one another name="
            )
        tasks = {task: self.planned_task(task) for task in self.tasks}
        if others := made_by_others(self.results, {task: each.sources_sha256 for task, each in tasks.items()}):
            if self.config.sources is Sources.refuse:
                raise ValueError(refusal(others, self.results))
            for file in others:
                say(self.console, f"other sources made {file.relative_to(self.results)}; it is left out")
        self.plan.hold(planned(self.config, tasks))

    def planned_task(self, task: str) -> PlannedTask:
        """What is planned for the task; the axes of its searches are kept."""
        study, arms = self.tasks[task], self.arms
        study.methods, study.baselines = arms.methods, arms.baselines
        study.pending = [pending_line(*each) for each in self.to_test()]
        study.head_lr = self.config.head_lr if arms.task_head else None
        for method in (*arms.methods, *((PROBE,) if arms.probes else ())):
            self.axes[task, method] = arms.axes(task, method)
        config = arms.tested(task, arms.methods[0]).config
        methods = {
            method: (arms.searched(task, method).config.method, self.axes[task, method]) for method in arms.methods
        }
        probe = self.axes[task, PROBE][0] if arms.probes else None
        return PlannedTask(config, sources_sha256(config), methods, arms.baselines, probe)

    # ---------------------------------------------------------------- the search

    def find_head_rate(self, task: str) -> None:
        """Search the rate of the task head, the same for all methods: that at which a linear probe is best."""
        if not self.arms.probes:
            return
        self.search({PROBE: self.method_search(task, PROBE)})
        study = self.tasks[task]
        study.head_lr = study.choices[PROBE].lr
        self.decisions.write("head_lr", task=task, head_lr=study.head_lr)
        if study.head_lr is None:
            raise ValueError(f"{task}: no trial of the linear probe is complete; see its runs, or give head_lr=")

    def choose(self, task: str) -> None:
        """Search every method, at the head's rate."""
        self.search({method: self.method_search(task, method) for method in self.arms.methods if method != PROBE})

    def method_search(self, task: str, method: str) -> MethodSearch:
        usual = self.arms.searched(task, method)
        if (head_lr := self.tasks[task].head_lr) is not None:
            usual = usual.at(head_lr=head_lr)
        folder = self.results / task / "search"
        return MethodSearch(task, method, usual, self.axes[task, method], self.config.terms, folder)

    def search(self, searches: dict[str, MethodSearch]) -> None:
        """Carry out the searches of a task, and choose from their trials alone: nothing of the test set is in them."""
        for method, each in searches.items():
            axes = {axis.name: axis.words() for axis in each.search.axes}
            self.decisions.write("search", task=each.task, method=method, axes=axes)
        for run, failure in carry_out([*searches.values()], self.runs, lambda line: say(self.console, line)):
            which = f"lr {run.arm.config.optim.lr:g} of the search"
            self.tasks[run.task].missing.append(failed_line(run, which, failure))
        for method, each in searches.items():
            task, choice = each.task, each.search.choice()
            study = self.tasks[task]
            study.trials[method], study.searched[method] = each.search.trials(), each.rows
            study.choices[method] = choice
            by = self.config.choose_by.value
            self.decisions.write("choice", task=task, method=method, by=by, lr=choice.lr, **asdict(choice))
            study.note(method, *choice.notes, self.hindsight(task, method, choice))
            if choice.values is None:
                study.missing.append(f"{method}: {choice.notes[0]}")

    def hindsight(self, task: str, method: str, choice: Choice) -> str:
        """A note where an earlier start chose another rate, and its test scores have been seen."""
        if method == PROBE or choice.lr is None:  # where no rate was searched, there is none to have known
            return ""
        tested = self.decisions.earlier("tested", task=task, method=method, failure=None)
        seen = {line["lr"] for line in tested} - {choice.lr}
        listed = ", ".join(f"{lr:g}" for lr in sorted(seen))
        return f"test scores at lr {listed}, chosen earlier, had been seen before this choice was made" if seen else ""

    # ---------------------------------------------------------------- the test

    def test(self, task: str) -> None:
        """Carry out what is tested, one seed of every arm at a time, so that a part of it is a fair part."""
        batches = self.test_runs(task)
        runs = [run for batch in batches for run in batch]
        study = self.tasks[task]
        study.pending = [pending_line(run.method, run.arm.config.seed) for run in runs]
        n_done = sum(run.complete is not None for run in runs)
        say(self.console, f"{task}: settings are chosen; {len(runs)} runs to be tested, {n_done} of them done")
        for batch in batches:
            for run, row in zip(batch, self.runs.carry_out(batch)):
                self.take(run, row)
            self.write()

    def test_runs(self, task: str) -> list[list[StudyRun]]:
        """List the task's tested runs, by seed: all but those of a method for which nothing could be chosen."""
        batches: dict[int, list[StudyRun]] = {seed: [] for seed in self.config.test_seeds}
        methods = (*self.arms.baselines, *self.arms.methods)
        arms = {method: self.chosen(task, method, self.arms.tested(task, method)) for method in methods}
        for method, seed in self.to_test():
            if (arm := arms[method]) is not None:
                batches[seed].append(StudyRun(task, method, arm.at(seed=seed), self.results / task / "test"))
        return [*batches.values()]

    def to_test(self) -> list[tuple[str, int]]:
        """Which methods are tested with which seeds; no seed changes the untouched model."""
        methods = (*self.arms.baselines, *self.arms.methods)
        seeds = self.config.test_seeds
        return [(method, seed) for method in methods for seed in seeds if method != NONE or seed == seeds[0]]

    def chosen(self, task: str, method: str, usual: Arm) -> Arm | None:
        """The arm at what was chosen for its method; None where nothing could be chosen."""
        study = self.tasks[task]
        if study.head_lr is not None:
            usual = usual.at(head_lr=study.head_lr)
        if method not in self.arms.methods or (method == PROBE and not self.arms.probes):
            return usual
        values = study.choices[method].values
        return None if values is None else at(usual, self.axes[task, method], values)

    def take(self, run: StudyRun, item: Result) -> None:
        """Count the run as tested, or as missing."""
        study = self.tasks[run.task]
        study.pending.remove(pending_line(run.method, run.arm.config.seed))
        if isinstance(item, Failed):
            study.missing.append(failed_line(run, f"seed {run.arm.config.seed}", item.failure))
            study.note(run.method, f"seed {run.arm.config.seed} failed and is not in the mean ({item.failure_kind})")
            return
        study.tested.setdefault(run.method, []).append(item)
        if not self.runs.alone(run):
            study.shared.add(item.key)

    def time(self) -> None:
        """Take time and memory of short runs, one at a time, of the arms whose tested runs shared the machine."""
        if not self.config.timing_steps:
            return
        runs = [run for task, study in self.tasks.items() for run in self.timing_runs(task, study)]
        for run, row in zip(runs, self.runs.carry_out(runs, slots=1)):
            if isinstance(row, Complete) and self.runs.alone(run):
                self.tasks[run.task].timed[run.method] = row

    def timing_runs(self, task: str, study: TaskStudy) -> list[StudyRun]:
        """List a short run of every trained arm that is not known to have been alone, with what was chosen for it."""
        folder = self.results / task / TIMING
        shared = [method for method, rows in study.tested.items() if not (study.alone(method) or rows[0].untrained)]
        arms = {method: self.chosen(task, method, self.arms.timed(task, method)) for method in shared}
        seed = self.config.first_seed
        return [StudyRun(task, method, arm.at(seed=seed), folder) for method, arm in arms.items() if arm is not None]

    def write(self) -> dict[str, Any]:
        """Write comparison.json and table.md of what is there so far."""
        comparison = comparison_of(self.config, self.tasks, self.plan)
        write_json(self.results / "comparison.json", comparison)
        write_text(self.results / "table.md", markdown(comparison))
        return comparison


def pending_line(method: str, seed: int) -> str:
    return f"{method} seed {seed}"


def failed_line(run: StudyRun, which: str, failure: str) -> str:
    return f"{run.method}, {which}, failed: {' '.join(failure.split())}"
