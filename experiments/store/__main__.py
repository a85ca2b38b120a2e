"""Ask the results of many runs: an index in SQLite, built from their files.

    python -m experiments.results rebuild runs experiments/results
    python -m experiments.results list
    python -m experiments.results sql "SELECT method, avg(score) FROM runs WHERE split = 'test' GROUP BY method"
    python -m experiments.results export --format latex --out table.tex

The files are the truth and the index may be deleted at any time. `sql` without a query prints the tables and what
their columns mean; queries can read and no more.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.store.export import FORMATS, TEXT, rich_table, write_parquet
from experiments.store.index import query, rebuild
from experiments.store.result import ReportError

DATABASE = Path("runs/index.sqlite")
OVERVIEW = """
SELECT model, task, split, method, lr, steps, count(*) AS runs, sum(status = 'failed') AS failed, max(metric) AS metric,
    avg(score) AS mean, min(score) AS lowest, max(score) AS highest, max(trainable) AS trainable,
    avg(perplexity_after / perplexity_before) AS perplexity_ratio, sum(total_s) AS total_s
FROM runs GROUP BY model, task, split, n_test, method, lr, steps
ORDER BY model, task, split, mean DESC NULLS LAST, method
"""
TABLE = """
SELECT model, task, method, seed, lr, steps, status, metric, split, score, n_test, validation_loss, trainable, share,
    delta_bytes, full_copy_bytes, training_peak_bytes, increase_bytes, device_peak_bytes, train_s, total_s,
    tokens_per_s, perplexity_before, perplexity_after, kl_per_token, switch_s, unmerged_tokens_per_s,
    merged_tokens_per_s, key
FROM runs ORDER BY model, task, method, lr, steps, seed, file
"""
TABLES = "SELECT sql || ';' FROM sqlite_master WHERE type = 'table'"


def terminal() -> Console:
    """A console as wide as the terminal; into a pipe or a file, as wide as the table."""
    console = Console()
    return console if console.is_terminal else Console(width=10_000)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.results", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("rebuild", help="build the index from the result files")
    build.add_argument("places", nargs="+", type=Path, help="folders that hold runs, at any depth, or result files")
    listing = commands.add_parser("list", help="an overview: a line for each method, learning rate and length")
    ask = commands.add_parser("sql", help="a query over the index; without one, its tables")
    ask.add_argument("query", nargs="?", help="a SELECT")
    export = commands.add_parser("export", help="write a query's rows, or those of every run, as a table")
    export.add_argument("query", nargs="?", default=TABLE, help="a SELECT; without one, a line for every run")
    export.add_argument("--format", choices=FORMATS, default="csv", help="%(default)s where none is given")
    export.add_argument("--out", type=Path, help="the file to write; without one, text goes to the standard output")
    for each in (build, listing, ask, export):
        each.add_argument("--db", type=Path, default=DATABASE, help="the index (%(default)s)")
    given = parser.parse_args(argv)
    try:
        if given.command == "rebuild":
            return report_rebuild(given.places, given.db)
        if given.command == "export":
            write(given.query, given.format, given.out, given.db)
        elif given.command == "list":
            terminal().print(rich_table(*query(given.db, OVERVIEW)))
        elif given.query is None:
            print("\n".join(text for (text,) in query(given.db, TABLES)[1]))
        else:
            terminal().print(rich_table(*query(given.db, given.query)))
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def report_rebuild(places: Sequence[Path], database: Path) -> int:
    """Build, say what was found and what was not; 1 where a file could not be read."""
    began = time.perf_counter()
    n_runs, problems = rebuild(places, database)
    for problem in problems:
        print(f"{problem.kind}: {problem.said}", file=sys.stderr)
    unreadable = sum(problem.kind == "unreadable" for problem in problems)
    wall_s = time.perf_counter() - began
    print(f"{database}: {n_runs} runs in {wall_s:.1f} s; files that could not be read: {unreadable}")
    return 1 if unreadable else 0


def write(sql: str, form: str, out: Path | None, database: Path) -> None:
    """The query's rows in this form."""
    headers, rows = query(database, sql)
    if form == "parquet":
        if out is None:
            raise ReportError("Parquet is no text; name the file with --out FILE.parquet")
        write_parquet(out, headers, rows)
    elif out is None:
        print(TEXT[form](headers, rows), end="")
    else:
        out.write_text(TEXT[form](headers, rows), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
