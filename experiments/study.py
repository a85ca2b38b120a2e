"""The long comparison, `make study`: every method at a learning rate searched for it.

    python -m experiments.study [--only lora dora] [--steps 500]

Two stages. Short runs over a small grid of learning rates, the rate chosen on the validation set; then one long run
a method at its rate, whose test result is shown. Started again, it goes on where it was, also in another checkout
that has its small result files. The essentials of every run, the tables and the plot are small files in
experiments/results/study. Exits with 1 if a run failed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from rich.console import Console

from experiments.arms import ROOT, Arm
from experiments.files import write_json
from experiments.plot import quality_plot
from experiments.report import ending, markdown_table, notes, rich_table, terminal, write_markdown
from experiments.rows import Row, essentials, read, row

METHODS = ("none", "lora", "dora", "adapter", "prefix", "prompt", "bitfit", "ia3", "mam", "full")
FACTORS = (1.0, 1 / 3, 3.0)  # of a method's default learning rate, the default first
SEARCH_STEPS = 80
STEPS = 250  # one pass over the 2,000 sentences
N_TEST = 200
RESULTS = Path("experiments/results/study")
HOW = (
    "Made by `python -m experiments.study` (`make study`): {steps} steps a run, one seed, the same batches in the "
    "same order for every method, on one thread of the CPU. The learning rates were searched with runs of "
    "{search_steps} steps and chosen by the loss on the validation set, whose 50 sentences are too few to tell rates "
    "apart by exact matches; quality is the test set's."
)


@cache
def default(method: str, shared: tuple[str, ...]) -> Arm:
    """The method at its default learning rate."""
    return Arm((f"method={method}", *shared))


@dataclass(frozen=True)
class Cell:
    """One method at one learning rate, None being its default."""

    method: str
    lr: float | None
    shared: tuple[str, ...]
    searching: bool = True

    @cached_property
    def arm(self) -> Arm:
        usual = default(self.method, self.shared)
        same = self.lr is None or self.lr == usual.config.optim.lr
        return usual if same else Arm((*usual.overrides, f"optim.lr={self.lr:g}"))

    @property
    def file(self) -> str:
        """The name of the small result file."""
        return f"search/{self.method}-lr{self.arm.config.optim.lr:g}.json" if self.searching else f"{self.method}.json"

    def kept(self, results: Path) -> Row | None:
        """The row of its small result file, if that is of this very configuration."""
        path = results / self.file
        if path.is_file() and self.arm.result.parent.name.endswith(read(path)["key"]):
            return row(path)
        return None

    def done(self, results: Path) -> Row | None:
        """Its row where it is complete: in this checkout's runs, or in the small files of an earlier one."""
        kept = None if self.arm.complete else self.kept(results)
        return kept if kept is not None and kept.failure is None else None


def grid(methods: Sequence[str], shared: tuple[str, ...]) -> list[Cell]:
    """Every run of the search in its order: all methods at their default rate, then the other rates.

    A rate has two digits: 3.3e-4, not a third of 1e-3.
    """
    return [
        Cell(method, float(f"{default(method, shared).config.optim.lr * factor:.2g}"), shared)
        for factor in FACTORS
        for method in methods
        if method != "none"  # the untouched model has no learning rate
    ]


def best(rows: Sequence[Row]) -> Row | None:
    """The complete run with the lowest validation loss; None where no run is complete."""
    done = [item for item in rows if item.failure is None]
    return min(done, key=lambda item: item.validation["loss"], default=None)


def chosen(rows: Sequence[Row]) -> tuple[float | None, str]:
    """The best learning rate of a method's search, and what the grid leaves open; None where no run is complete."""
    pick = best(rows)
    rates = sorted(item.lr for item in rows if item.lr is not None)
    said = []
    if len(rates) < len(FACTORS):
        said.append(f"only {len(rates)} of {len(FACTORS)} learning rates tried so far")
    elif pick is not None and pick.lr in (rates[0], rates[-1]):
        said.append(f"lr {pick.lr:g} is at the edge of its grid ({rates[0]:g} to {rates[-1]:g}); beyond may be better")
    said += [f"lr {item.lr:g} failed: {item.failure}" for item in rows if item.failure is not None]
    return None if pick is None else pick.lr, "; ".join(said)


def rates_table(rows: Sequence[Row]) -> str:
    """Every run of the search, with what the choice was made on."""
    headers = ["method", "lr", "validation", "validation loss", "test", "chosen"]
    lines = []
    for item in sorted(rows, key=lambda item: (METHODS.index(item.method), item.lr or 0.0)):
        if item.failure is not None:
            lines.append([item.method, f"{item.lr:g}", "failed", "", "", ""])
            continue
        rate, _ = chosen([other for other in rows if other.method == item.method])
        numbers = (item.validation[item.metric], item.validation["loss"], item.score)
        mark = "yes" if item.lr == rate else ""
        lines.append([item.method, f"{item.lr:g}", *(f"{number:.3f}" for number in numbers), mark])
    return markdown_table(headers, lines)


def collect(cells: Sequence[Cell], results: Path) -> list[Row]:
    """The rows of the cells that have a small result file of this very configuration, in the grid's order."""
    return [kept for kept in (cell.kept(results) for cell in cells) if kept is not None]


def write_tables(finals: Sequence[Row], searched: Sequence[Row], results: Path, title: str, how: str) -> list[Row]:
    """table.md and plot.png from the rows; returns the long runs' rows, with the search's notes."""
    noted = [item.noted(chosen([o for o in searched if o.method == item.method])[1]) for item in finals]
    noted = [item if item.method == "none" else after for item, after in zip(finals, noted)]
    if any(item.failure is None for item in noted):
        plot = quality_plot(noted, results / "plot.png", title)
        extra = "## Learning rates\n\n" + rates_table(searched)
        write_markdown(results / "table.md", title, how, noted, plot, extra)
    return noted


def carry_out(cells: Sequence[Cell], results: Path, jobs: int, console: Console) -> dict[str, Row]:
    """Run the cells that are not done, keep their small files, and return the failures by file."""
    failed: dict[str, Row] = {}
    fresh = {cell.file for cell in cells if not cell.arm.complete and cell.done(results) is None}
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = pool.map(lambda cell: cell.done(results) or cell.arm.run(), cells)
        for number, (cell, item) in enumerate(zip(cells, outcomes), 1):
            name = f"{number} of {len(cells)}: {cell.file.removesuffix('.json')}"
            console.rule(f"{name}, {'ran' if cell.file in fresh else 'done already'}", align="left")
            if cell.arm.result.is_file():
                write_json(results / cell.file, essentials(read(cell.arm.result)))
            if item.failure is not None:
                failed[cell.file] = item
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.study", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS, help="run these methods alone")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps of a long run (%(default)s)")
    parser.add_argument("--search-steps", type=int, default=SEARCH_STEPS, help="of a run of the search (%(default)s)")
    parser.add_argument("--n-test", type=int, default=N_TEST, help="test examples (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each (%(default)s)")
    parser.add_argument("--model", default="smollm2", help="of experiments/conf/model (%(default)s)")
    parser.add_argument("--out", default="runs/study", help="folder for the runs (%(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the small files (%(default)s)")
    given = parser.parse_args(argv)

    common = (f"model={given.model}", "task=ha_json", f"task.n_test={given.n_test}", "task.n_val=50", "threads=1")
    short = (*common, f"optim.steps={given.search_steps}", f"out={given.out}")
    long = (*common, f"optim.steps={given.steps}", f"out={given.out}")
    results = ROOT / given.results
    (results / "search").mkdir(parents=True, exist_ok=True)
    title = f"{given.model} on ha_json, {given.steps} steps, learning rates searched"
    how = HOW.replace("{steps}", str(given.steps)).replace("{search_steps}", str(given.search_steps))
    console = terminal()

    search = grid(METHODS, short)
    failed = carry_out([cell for cell in search if cell.method in given.only], results, given.jobs, console)
    searched = collect(search, results)
    rates = {method: chosen([item for item in searched if item.method == method])[0] for method in METHODS}
    finals = [Cell(method, rates[method], long, searching=False) for method in METHODS]
    ready = [cell for cell in finals if cell.method in given.only and (cell.lr is not None or cell.method == "none")]
    failed |= carry_out(ready, results, given.jobs, console)
    rows = write_tables(collect(finals, results), searched, results, title, how)
    console.print(rich_table(rows, title))
    for line in [*notes(rows), *(f"{file}: {item.failure}" for file, item in failed.items())]:
        console.print(line, markup=False)
    console.print(f"table: {given.results / 'table.md'}", f"plot: {given.results / 'plot.png'}", sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(ending(main))
