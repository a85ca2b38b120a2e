"""The tables that queries ask, made in memory from the result files of the folders, which stay the truth."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import msgspec

from experiments.store.files import find
from experiments.store.lines import Prediction, Step
from experiments.store.records import LINES, Problem, Record, doubled, read_all, read_lines, rows_of, unfinished
from experiments.store.result import OtherTask
from experiments.store.schema import Column, columns, columns_of

RUN = Column("run", (), "BIGINT", "the run, by its number in the table runs")
MORE = Column("more", (), "JSON", "what else the line holds")


@dataclass(frozen=True)
class Table:
    """A table and its meaning."""

    name: str
    description: str
    columns: tuple[Column, ...]

    @property
    def sql(self) -> str:
        """What makes it, with its meaning in comments."""
        lines = [f"CREATE TABLE {self.name} ( -- {self.description}"]
        for number, column in enumerate(self.columns, 1):
            comma = "," if number < len(self.columns) else ""
            lines.append(f"    {quoted(column.name)} {column.sql}{comma} -- {column.description}")
        return "\n".join([*lines, ");"])

    @property
    def comments(self) -> Iterator[str]:
        """What gives it and its columns their meaning in the database too."""
        yield f"COMMENT ON TABLE {self.name} IS {literal(self.description)}"
        for column in self.columns:
            yield f"COMMENT ON COLUMN {self.name}.{quoted(column.name)} IS {literal(column.description)}"

    def insert(self, connection: duckdb.DuckDBPyConnection, records: Sequence[Record]) -> None:
        """Put the records in, all at once: a statement for each would take DuckDB a hundred times as long."""
        shape = literal(json.dumps([{column.name: column.sql for column in self.columns}]))
        rows = [{column.name: record[column.name] for column in self.columns} for record in records]
        unnested = f"SELECT unnest(from_json_strict(?::JSON, {shape})) AS record"
        connection.execute(f"INSERT INTO {self.name} SELECT record.* FROM ({unnested})", [encoded(rows)])


TABLES = (
    Table(
        "runs",
        "a result file; NULL: does not apply, or not measured because the run failed",
        (RUN, Column("file", (), "VARCHAR", "the result file"), *columns()),
    ),
    Table(
        "quality",
        "every metric of a run, over all examples and over each part of them",
        (
            RUN,
            Column("split", (), "VARCHAR", "`test` or `validation`"),
            Column("part", (), "VARCHAR", "language, category or the like; empty for all examples"),
            Column("metric", (), "VARCHAR", "name of the metric; `loss` is in nats a labelled token"),
            Column("value", (), "DOUBLE", "its value over the examples"),
        ),
    ),
    Table(
        "phases",
        "wall time of a run by phase; the phases of a run sum to its total_s",
        (
            RUN,
            Column("phase", (), "VARCHAR", "name of the phase"),
            Column("seconds", (), "DOUBLE", "seconds that it took"),
        ),
    ),
    Table(
        "forgetting",
        "what a run did to another task's metric",
        (RUN, Column("task", (), "VARCHAR", "the other task"), *columns_of(OtherTask)),
    ),
    Table("metrics", "a step of training", (RUN, *columns_of(Step), MORE)),
    Table(
        "predictions",
        "an example of the run's split",
        (RUN, Column("example", (), "BIGINT", "its number, from 0"), *columns_of(Prediction), MORE),
    ),
    Table(
        "problems",
        "a file that is not in the tables, or is there twice",
        (
            Column("file", (), "VARCHAR", "the file"),
            Column("kind", (), "VARCHAR", "`unreadable`, `unfinished` or `doubled`"),
            Column("message", (), "VARCHAR", "what is wrong, and what to do"),
        ),
    ),
)


def fill(connection: duckdb.DuckDBPyConnection, places: Sequence[Path], wanted: Collection[str]) -> list[Problem]:
    """Make every table and fill it from the places; what is wrong with their files.

    wanted: names of the tables that will be asked. Steps and predictions, which are many, are read where they, or the
    problems, are among these. A file that cannot be read costs its own contents only.
    """
    records: dict[str, list[Record]] = {table.name: [] for table in TABLES}
    problems: list[Problem] = []
    results = list(read_all(find(places), problems))
    for run, result in results:
        for name, rows in rows_of(run, result).items():
            records[name] += rows
    for name in LINES:
        if {name, "problems"} & set(wanted):
            records[name] += read_lines(results, name, problems)
    problems += [*doubled(results), *unfinished(places)]
    records["problems"] = [vars(problem) for problem in problems]
    for table in TABLES:
        for statement in (table.sql, *table.comments):
            connection.execute(statement)
        if records[table.name]:
            table.insert(connection, records[table.name])
    return problems


def encoded(rows: Sequence[Record]) -> str:
    """The rows as JSON; a number that is none becomes null, half a sign, which has no UTF-8, a question mark."""
    try:
        return msgspec.json.encode(rows).decode()
    except UnicodeEncodeError:
        text = json.dumps(rows, ensure_ascii=False).encode("utf-8", errors="replace")
        return msgspec.json.encode(json.loads(text)).decode()


def quoted(name: str) -> str:
    """The name as SQL reads it, whatever word it is."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as SQL reads it."""
    return "'" + text.replace("'", "''") + "'"
