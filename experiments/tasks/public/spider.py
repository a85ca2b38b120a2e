"""Spider: a question over one of many databases -> SQL, which is executed on that database.

{"db_id", "question", "query"}; the databases lie in task.databases, as Spider's own archive has them: a folder each
with <db_id>.sqlite, or <db_id>.sqlite alone, or a script <db_id>/schema.sql with its INSERTs. The group is the
database: the test's are in no training part. Rows count as a multiset, and in order where the gold query orders them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from experiments.support.cache import cached
from experiments.tasks.base import Example, Scores, TaskError, mean, of_each
from experiments.tasks.jsonl import file_sha256
from experiments.tasks.public.rows import Row
from experiments.tasks.sql.execution import ExecutionScorer, QueryError, Reader

MAIN = "execution_accuracy"


@dataclass(frozen=True)
class Databases:
    """Reads Spider's rows and scores queries; folder: where the databases lie."""

    folder: str

    def read(self, row: Row) -> Example:
        name = row.text("db_id")
        text = f"{schema_of(self.file(name, row.place))}\nQuestion: {row.text('question')}\nSQL:"
        return Example(completion=row.text("query"), text=text, group=name, place=row.place)

    def file(self, name: str, place: str = "") -> Path:
        """The SQLite file of a database; of a script it is made once, in the cache. Raises TaskError."""
        return _file(self.folder, name, place)

    def usable(self, example: Example) -> bool:
        """Whether the gold query runs within the limits of sql/execution.py."""
        with Reader(self.file(example.group, example.place)) as reader:
            try:
                reader.rows(example.completion)
            except QueryError:
                return False
        return True

    def __call__(self, examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
        right = [0.0] * len(examples)
        means: dict[str, list[float]] = {}
        for name in sorted({example.group for example in examples}):
            own = [i for i, example in enumerate(examples) if example.group == name]
            scorer = ExecutionScorer(self.file(name, examples[own[0]].place))
            scores = scorer([examples[i] for i in own], [predictions[i] for i in own])
            for i, each in zip(own, scores.each):
                right[i] = each
            for metric, value in scores.means.items():
                means.setdefault(metric, []).extend([value] * len(own))
        return of_each(MAIN, right, **{metric: mean(each) for metric, each in means.items() if metric != MAIN})


@cache
def _file(folder: str, name: str, place: str) -> Path:
    inside = Path(folder)
    if not inside.is_dir():
        raise TaskError(f"task.databases={folder}: there is no such directory; give the one of Spider's databases")
    for own in (inside / name / f"{name}.sqlite", inside / f"{name}.sqlite"):
        if own.is_file():
            return filled(own, place)
    for script in (inside / name / "schema.sql", inside / name / f"{name}.sql", inside / f"{name}.sql"):
        if script.is_file():
            return filled(built(script, name), place)
    raise TaskError(
        f"{place}: no database {name!r} in task.databases={folder}; it may be {name}/{name}.sqlite or {name}/schema.sql"
    )


def built(script: Path, name: str) -> Path:
    def build(into: Path) -> None:
        try:
            with closing(sqlite3.connect(into / f"{name}.sqlite")) as connection, connection:
                connection.executescript(script.read_text(encoding="utf-8"))
        except (OSError, sqlite3.Error) as error:
            raise TaskError(f"{script}: cannot be carried out: {error}") from None

    return cached(f"spider-{name}-{file_sha256(str(script))[:16]}", build) / f"{name}.sqlite"


def filled(file: Path, place: str) -> Path:
    """The file, if a table of it has a row: on an empty database every query gives the same."""
    with _reading(file) as connection:
        tables = [row[0] for row in connection.execute(TABLES)]
        if not any(connection.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone() for table in tables):
            raise TaskError(f"{place}: {file} has no rows, so that execution tells nothing; give the filled database")
    return file


TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid"


@cache
def schema_of(file: Path) -> str:
    """A line a table with its columns, then the links between them."""
    tables, links = [], []
    with _reading(file) as connection:
        for (table,) in connection.execute(TABLES):
            columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
            tables.append(f"{table}({', '.join(columns)})")
            for row in connection.execute(f'PRAGMA foreign_key_list("{table}")'):
                links.append(f"{table}.{row[3]} = {row[2]}.{row[4] or row[3]}")
    return "\n".join([*tables, *links])


def _reading(file: Path) -> closing[sqlite3.Connection]:
    connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        connection.execute(TABLES)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise TaskError(f"{file}: no SQLite database: {error}") from None
    return closing(connection)
