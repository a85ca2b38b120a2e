"""Execution accuracy: a predicted query is right where it gives the rows that the gold one gives (Yu et al., 2018,
"Spider", section 5). Queries of a model run on the user's machine, so they may read this one database and no more.

What holds a query: the file is opened read-only and immutable; an authorizer allows SELECT, reading, and a list of
functions, so no ATTACH, PRAGMA, write, load_extension or recursion; texts and blobs are at most MAX_BYTES long; after
MAX_OPERATIONS of SQLite's virtual machine or MAX_ROWS rows it is stopped. Operations, not seconds, decide, so that
a busy machine changes no score; MAX_SECONDS is there for what is slow within few operations.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.tasks.base import Example, Scores, TaskError
from experiments.tasks.metrics import mean, of_each

MAX_BYTES = 100_000  # the most that one text, blob or row may have, or a query
MAX_OPERATIONS = 10_000_000  # about a second; a scan of 34,000 rows takes 200,000
MAX_ROWS = 10_000
MAX_SECONDS = 10.0
CHECK_EVERY = 1000  # operations between looks at the two limits

FUNCTIONS = frozenset({
    "abs", "avg", "ceil", "ceiling", "coalesce", "count", "cume_dist", "date", "datetime", "dense_rank",
    "first_value", "floor", "group_concat", "ifnull", "iif", "instr", "julianday", "lag", "last_value", "lead",
    "length", "like", "lower", "ltrim", "max", "min", "mod", "nth_value", "ntile", "nullif", "percent_rank", "pow",
    "power", "quote", "rank", "replace", "round", "row_number", "rtrim", "sign", "sqrt", "strftime", "substr",
    "substring", "sum", "time", "total", "trim", "trunc", "typeof", "unicode", "unixepoch", "upper",
})  # fmt: skip
FENCE = re.compile(r"```(?:sql|sqlite)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
INNERMOST = re.compile(r"\([^()]*\)")

Result = list[tuple[Any, ...]]


class QueryError(ValueError):
    """The query is not SQL, is not allowed, or was stopped at a limit."""


@dataclass(frozen=True)
class ExecutionScorer:
    """Scores predicted queries against `Example.completion` over one database file."""

    database: Path

    def __call__(self, examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
        right, valid, same = [], [], []
        with Reader(self.database) as reader:
            for example, prediction in zip(examples, predictions, strict=True):
                query = query_of(prediction)
                try:
                    gold = reader.rows(example.completion)
                except QueryError as error:
                    where = example.place or example.group
                    raise TaskError(f"{where}: the gold query fails on {self.database}: {error}") from None
                try:
                    rows = reader.rows(query)
                except QueryError:
                    rows = None
                valid.append(rows is not None)
                right.append(rows is not None and alike(rows, gold, ordered(example.completion)))
                same.append(plain(query) == plain(example.completion))
        return of_each("execution_accuracy", right, valid_sql=mean(valid), exact_match=mean(same))


def execution_scorer(database: Path) -> ExecutionScorer:
    """The scorer of any SQLite file. Raises TaskError where it is not one."""
    with Reader(database) as reader:
        try:
            reader.rows("SELECT name FROM sqlite_master")
        except QueryError as error:
            raise TaskError(f"{database}: not a SQLite database: {error}") from None
    return ExecutionScorer(database)


class Reader:
    """A database that can only be read, within the limits of this module."""

    def __init__(self, database: Path) -> None:
        if not database.is_file():
            raise TaskError(f"{database}: there is no such database; give the path of a SQLite file")
        # immutable: SQLite looks for no journal and writes none, so the folder may be read-only too
        self.connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BYTES)
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_BYTES)
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        self.connection.set_authorizer(allowed)
        self.connection.set_progress_handler(self._go_on, CHECK_EVERY)
        self.checks, self.deadline = 0, 0.0

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def rows(self, query: str) -> Result:
        """The rows of one SELECT. Raises QueryError."""
        self.checks, self.deadline = 0, time.monotonic() + MAX_SECONDS
        try:
            cursor = self.connection.execute(query)
            rows = cursor.fetchmany(MAX_ROWS + 1)
            cursor.close()
        # UnicodeError: a lone surrogate in the query; Warning: two statements (before Python 3.12)
        except (sqlite3.Error, sqlite3.Warning, UnicodeError, ValueError, OverflowError) as error:
            raise QueryError(str(error)) from None
        if cursor.description is None:
            raise QueryError("the query gives no rows: not a SELECT")
        if len(rows) > MAX_ROWS:
            raise QueryError(f"more than {MAX_ROWS} rows")
        return rows

    def _go_on(self) -> int:
        """Not zero stops the query."""
        self.checks += 1
        return self.checks * CHECK_EVERY > MAX_OPERATIONS or time.monotonic() > self.deadline


def allowed(action: int, _: str | None, function: str | None, *__: str | None) -> int:
    """SQLite's authorizer, called while a query is compiled."""
    if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and function is not None and function.lower() in FUNCTIONS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def query_of(prediction: str) -> str:
    """The query in an answer: what a code fence holds where there is one, else all of it."""
    fenced = FENCE.search(prediction)
    return (fenced.group(1) if fenced else prediction).strip()


def plain(query: str) -> str:
    """The query with single spaces and no semicolon at its end."""
    return " ".join(query.split()).rstrip("; ")


def ordered(query: str) -> bool:
    """Whether the whole query, not only one inside it, has an ORDER BY."""
    outer = QUOTED.sub(" ", query)
    while (less := INNERMOST.sub(" ", outer)) != outer:
        outer = less
    return re.search(r"\border\s+by\b", outer, re.IGNORECASE) is not None


def alike(one: Result, other: Result, in_order: bool) -> bool:
    """The same rows, as a sequence or as a multiset. Numbers count by value, to nine digits; columns' names do not."""
    if len(one) != len(other):
        return False
    left, right = ([tuple(map(_value, row)) for row in rows] for rows in (one, other))
    return left == right if in_order else Counter(left) == Counter(right)


def _value(cell: Any) -> Any:
    return float(f"{cell:.9g}") if isinstance(cell, (int, float)) else cell
