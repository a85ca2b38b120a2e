"""Queries over the result files of folders: SQL that can read the tables made of them, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from experiments.store.database import TABLES, fill, literal
from experiments.store.files import ReportError
from experiments.store.records import Problem
from experiments.support.files import replaced

HINT = "a query reads and no more, by one SELECT; `python -m experiments.store sql` prints the tables"
# The order matters: the last but one forbids every other file, the last forbids to undo it.
LOCKED = {
    "temp_directory": "''",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "enable_external_access": "false",
    "lock_configuration": "true",
}


@dataclass(frozen=True)
class Answer:
    """What a query found. problems: files that are not in the tables as they should be."""

    headers: list[str]
    rows: list[tuple[Any, ...]]
    problems: list[Problem]


def ask(places: Sequence[Path], sql: str) -> Answer:
    """The query's rows over the results in the places. Raises ReportError where it asks for more than to read."""
    with relation_of(places, sql) as (relation, problems):
        rows = [tuple(map(number, row)) for row in relation.fetchall()]
        return Answer(relation.columns, rows, problems)


def write_parquet(places: Sequence[Path], sql: str, out: Path) -> list[Problem]:
    """The query's rows as a file with a typed column for each header; what is wrong with the files asked."""
    with replaced(out) as temporary, relation_of(places, sql, temporary) as (relation, problems):
        # Parquet would get the second column of a name under another one.
        if len(set(relation.columns)) < len(relation.columns):
            names = ", ".join(relation.columns)
            raise ReportError(f"Parquet: two columns have one name in {names}; name them apart with AS")
        relation.write_parquet(str(temporary))
        return problems


@contextmanager
def relation_of(
    places: Sequence[Path], sql: str, out: Path | None = None
) -> Iterator[tuple[duckdb.DuckDBPyRelation, list[Problem]]]:
    """Yields the query over the tables. out: the one file that may be written."""
    with duckdb.connect(":memory:") as connection:
        try:
            check(connection, sql)
            problems = fill(connection, places, [table.name for table in TABLES if names(sql, table.name)])
            connection.execute(f"SET allowed_paths = [{literal(str(out))}]" if out else "SELECT 1")
            for name, value in LOCKED.items():
                connection.execute(f"SET {name} = {value}")
            connection.execute("BEGIN TRANSACTION READ ONLY")
            yield connection.sql(sql), problems
        except duckdb.Error as error:
            raise ReportError(f"sql: {error}; {HINT}") from error


def check(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raise ReportError for anything but one SELECT."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise ReportError(f"sql: {sql!r} is not one SELECT; {HINT}")


def names(sql: str, table: str) -> bool:
    """Whether the table's name stands in the query; where it means something else, a table too many is read."""
    return re.search(rf"\b{table}\b", sql, re.IGNORECASE) is not None


def number(value: Any) -> Any:
    """A value as the exports know it: SQL's decimals are floats here."""
    return float(value) if isinstance(value, Decimal) else value
