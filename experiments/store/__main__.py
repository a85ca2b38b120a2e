"""Ask the results of many runs, in SQL, as a table on the terminal or in a file.

    python -m experiments.store list --runs runs experiments/results
    python -m experiments.store sql "SELECT method, avg(score) FROM runs WHERE split = 'test' GROUP BY method"
    python -m experiments.store export --format latex --out table.tex

The tables are made from the result files each time; a query can read them and nothing else. `sql` without a query
prints the tables and what their columns mean. Exits with 1 where a file could not be read; the others are answered
for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from experiments.store.database import TABLES
from experiments.store.export import FORMATS, TEXT, rich_table
from experiments.store.files import ReportError
from experiments.store.query import ask, write_parquet
from experiments.store.records import Problem
from experiments.support.files import write_text
from experiments.support.output import lasting_output

PLACES = (Path("runs"),)
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


def terminal() -> Console:
    """A console as wide as the terminal; into a pipe or a file, as wide as the table."""
    console = Console()
    return console if console.is_terminal else Console(width=10_000)


def main(argv: Sequence[str] | None = None, prog: str = "python -m experiments.store") -> int:
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="an overview: a line for each method, learning rate and length")
    sql = commands.add_parser("sql", help="a query; without one, the tables that it can ask")
    sql.add_argument("query", nargs="?", help="a SELECT")
    export = commands.add_parser("export", help="write a query's rows, or those of every run, as a table")
    export.add_argument("query", nargs="?", default=TABLE, help="a SELECT; without one, a line for every run")
    export.add_argument("--format", choices=FORMATS, default="csv", help="%(default)s where none is given")
    export.add_argument("--out", type=Path, help="the file to write; without one, text goes to the standard output")
    for each in (listing, sql, export):
        places = "folders that hold runs, at any depth, or result files (runs)"
        each.add_argument("--runs", nargs="+", type=Path, default=PLACES, metavar="DIR", help=places)
    given = parser.parse_args(argv)
    try:
        if given.command == "export":
            return report(write(given.runs, given.query, given.format, given.out))
        if given.command == "sql" and given.query is None:
            print("\n".join(table.sql for table in TABLES))
            return 0
        answer = ask(given.runs, OVERVIEW if given.command == "list" else given.query)
        terminal().print(rich_table(answer.headers, answer.rows))
        return report(answer.problems)
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def report(problems: Iterable[Problem]) -> int:
    """Say which files are not in the tables, or twice; 1 where one could not be read."""
    kinds = [problem.kind for problem in problems]
    for problem in problems:
        if problem.kind != "unfinished":
            print(f"{problem.kind}: {problem.message}", file=sys.stderr)
    if n := kinds.count("unfinished"):
        print(f"unfinished: {n} runs without a result yet; SELECT * FROM problems names them", file=sys.stderr)
    return 1 if "unreadable" in kinds else 0


def write(places: Sequence[Path], sql: str, form: str, out: Path | None) -> list[Problem]:
    """Write the query's rows in this form; what is wrong with the files that were asked."""
    if form == "parquet":
        if out is None:
            raise ReportError("Parquet is no text; name the file with --out FILE.parquet")
        return write_parquet(places, sql, out)
    answer = ask(places, sql)
    text = TEXT[form](answer.headers, answer.rows)
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)
    return answer.problems


if __name__ == "__main__":
    lasting_output()
    raise SystemExit(main())
