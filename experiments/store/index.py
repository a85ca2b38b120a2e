"""A SQLite index of result files, built anew from them whenever asked: the files are the truth, this is for queries.

The schema below is kept in the database with its comments; `python -m experiments.results sql` prints it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.store.result import HEAD, ReportError, Row, beside, find, lines, row

SCHEMA = """
CREATE TABLE runs ( -- one result file; NULL: does not apply, or not measured because the run failed
    run INTEGER PRIMARY KEY, -- what the other tables mean by run
    file TEXT NOT NULL UNIQUE, -- the result file
    status TEXT NOT NULL, -- complete or failed
    failure TEXT, failure_kind TEXT, -- of a failed run; the kind is error, nan, oom or killed
    key TEXT NOT NULL, -- hash of the configuration
    method TEXT NOT NULL, model TEXT NOT NULL, task TEXT NOT NULL, seed INTEGER NOT NULL,
    lr REAL, -- NULL for the untrained model
    steps INTEGER NOT NULL, batch_size INTEGER NOT NULL,
    metric TEXT, -- the task's main one
    split TEXT NOT NULL, -- of quality, score and predictions: test, or validation in a search for rates
    score REAL, -- the main metric's value on the examples of the split
    n_test INTEGER, -- how many these are
    validation_loss REAL, train_loss REAL, -- nats per labelled token; train: of the last step
    trainable INTEGER, added INTEGER, total INTEGER, share REAL, -- parameters; share is trainable / total
    delta_bytes INTEGER, full_copy_bytes INTEGER, -- on disk
    peak_bytes INTEGER, training_peak_bytes INTEGER, increase_bytes INTEGER, device_peak_bytes INTEGER, -- memory
    total_s REAL, train_s REAL, step_s REAL, -- wall clock, its part in training, the median step
    tokens_per_s REAL, -- in training
    train_flops REAL, flops_per_token REAL, -- estimated
    switch_s REAL, unmerged_tokens_per_s REAL, merged_tokens_per_s REAL, -- to another task; in generation
    perplexity_before REAL, perplexity_after REAL, -- of held-out general text
    kl_per_token REAL, -- nats, to the base on text that it wrote
    feature_drift REAL, -- of an encoder, which has no perplexity
    n_train INTEGER, n_val INTEGER, n_truncated INTEGER, data_sha256 TEXT,
    base TEXT, device TEXT, cpu TEXT, torch TEXT, git_commit TEXT,
    data TEXT, config TEXT, environment TEXT -- JSON: config ->> '$.optim.warmup'
);
CREATE TABLE quality ( -- every metric of a run, over all examples and over each part of them
    run INTEGER NOT NULL REFERENCES runs, split TEXT NOT NULL, -- test or validation
    part TEXT NOT NULL, -- '' for all examples
    metric TEXT NOT NULL, value REAL
);
CREATE TABLE phases ( -- seconds by phase; those of a run sum to its total_s
    run INTEGER NOT NULL REFERENCES runs, phase TEXT NOT NULL, seconds REAL NOT NULL
);
CREATE TABLE forgetting ( -- what a run did to another task's metric
    run INTEGER NOT NULL REFERENCES runs, task TEXT NOT NULL, metric TEXT, before REAL, after REAL
);
CREATE TABLE metrics ( -- a step of training
    run INTEGER NOT NULL REFERENCES runs, step INTEGER NOT NULL,
    loss REAL, lr REAL, grad_norm REAL, tokens INTEGER, wall_s REAL, -- tokens and wall_s count from the first step
    more TEXT -- JSON of what else the line holds
);
CREATE TABLE predictions ( -- an example of the run's split
    run INTEGER NOT NULL REFERENCES runs, example INTEGER NOT NULL, -- from 0, in their order
    part TEXT, prompt TEXT, gold TEXT, prediction TEXT, score REAL, correct INTEGER,
    more TEXT -- JSON of what else the line holds
);
CREATE TABLE problems ( -- what is not in the index, or is there twice
    file TEXT NOT NULL, kind TEXT NOT NULL, -- unreadable, unfinished or doubled
    said TEXT NOT NULL
);
CREATE TABLE built (at TEXT NOT NULL, places TEXT NOT NULL); -- UTC; the folders that were searched, JSON
"""
INDICES = """
CREATE INDEX quality_of ON quality (run);
CREATE INDEX phases_of ON phases (run);
CREATE INDEX forgetting_of ON forgetting (run);
CREATE INDEX metrics_of ON metrics (run, step);
CREATE INDEX predictions_of ON predictions (run, example);
"""
# The keys of a line that have a column.
LINES = {
    "metrics": ("step", "loss", "lr", "grad_norm", "tokens", "wall_s"),
    "predictions": ("example", "part", "prompt", "gold", "prediction", "score", "correct"),
}
UNFIT = (sqlite3.Error, OverflowError, UnicodeError)  # for values that SQLite cannot hold
READING = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)


@dataclass(frozen=True)
class Problem:
    """A file that is not in the index as it should be."""

    file: str
    kind: str
    said: str


def rebuild(places: Sequence[Path], database: Path) -> tuple[int, list[Problem]]:
    """Index every result file in the places and put the index in the database's stead, whole or not at all.

    Returns the number of runs and what could not be indexed; a file that cannot be read costs its own contents only.
    """
    found = find(places)
    database.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f"{database.name}.", suffix=".part", dir=database.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with closing(sqlite3.connect(temporary)) as connection:
            connection.execute("PRAGMA journal_mode = OFF")  # a crash leaves the old index, so no journal is needed
            connection.execute("PRAGMA synchronous = OFF")
            connection.executescript(SCHEMA)
            problems = [*fill(connection, found), *unfinished(places)]
            connection.executemany("INSERT INTO problems VALUES (:file, :kind, :said)", map(vars, problems))
            built = (datetime.now(UTC).isoformat(timespec="seconds"), json.dumps([str(place) for place in places]))
            connection.execute("INSERT INTO built VALUES (?, ?)", built)
            connection.executescript(INDICES)
            connection.commit()
            (n_runs,) = connection.execute("SELECT count(*) FROM runs").fetchone()
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's is the owner's alone
        os.replace(temporary, database)
    finally:
        temporary.unlink(missing_ok=True)
    return n_runs, problems


def fill(connection: sqlite3.Connection, found: Iterable[Path]) -> Iterator[Problem]:
    """Put the files' runs in; yields what is wrong with them."""
    keys: dict[str, Path] = {}
    for run, path in enumerate(found, 1):
        try:
            item = row(path)
            insert_run(connection, run, item)
        except (ReportError, *UNFIT) as error:
            yield unreadable(path, error)
            continue
        if (earlier := keys.setdefault(item.key, path)) != path:
            yield Problem(str(path), "doubled", f"{path}: the same configuration as {earlier}; both are in the index")
        for table, known in LINES.items():
            file = beside(path, f"{table}.jsonl")
            try:
                insert_lines(connection, table, run, lines(file) if file.is_file() else [], known)
            except (ReportError, *UNFIT) as error:
                connection.execute(f"DELETE FROM {table} WHERE run = ?", (run,))
                yield unreadable(file, error)


def unreadable(file: Path, error: Exception) -> Problem:
    said = str(error) if isinstance(error, ReportError) else f"{file}: {error}; run again"
    return Problem(str(file), "unreadable", said)


def insert_run(connection: sqlite3.Connection, run: int, item: Row) -> None:
    """Everything that stands in the result file itself."""
    columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(runs)")]
    places = ", ".join(f":{name}" for name in columns)
    connection.execute(f"INSERT INTO runs VALUES ({places})", dict.fromkeys(columns) | values(item) | {"run": run})
    phases = [(run, phase, seconds) for phase, seconds in item.seconds.items() if phase != "total"]
    others = (item.other_tasks or {}).items()
    tasks = [(run, name, one.get("metric"), one.get("before"), one.get("after")) for name, one in others]
    connection.executemany("INSERT INTO quality VALUES (?, ?, ?, ?, ?)", [(run, *one) for one in qualities(item)])
    connection.executemany("INSERT INTO phases VALUES (?, ?, ?)", phases)
    connection.executemany("INSERT INTO forgetting VALUES (?, ?, ?, ?, ?)", tasks)


def insert_lines(
    connection: sqlite3.Connection, table: str, run: int, records: Sequence[dict[str, Any]], known: Sequence[str]
) -> None:
    """The records as rows of the table: run, the known keys (`example` is the line's number), JSON of all others."""
    rows = []
    for number, record in enumerate(records):
        record = {"example": number} | record if "example" in known else record
        more = {name: value for name, value in record.items() if name not in known}
        cells = [record.get(name) for name in known]
        rows.append((run, *cells, json.dumps(more, ensure_ascii=False) if more else None))
    connection.executemany(f"INSERT INTO {table} VALUES (?, {'?, ' * len(known)}?)", rows)


def values(item: Row) -> dict[str, Any]:
    """The columns of a run. A failed one has no numbers, and a row's zeros in their place are left out."""
    environment = item.environment
    same = {each.name: getattr(item, each.name) for each in fields(Row)}
    always = {
        **{name: same[name] for name in HEAD},
        "file": str(item.file),
        "split": item.split,
        "status": "complete" if item.failure is None else "failed",
        "failure": item.failure,
        "failure_kind": item.failure_kind,
        "device": environment.get("device"),
        "cpu": environment.get("cpu"),
        "torch": environment.get("torch"),
        "git_commit": environment.get("commit"),
        "config": json.dumps(item.config),
        "environment": json.dumps(environment),
    }
    if item.failure is not None:
        return always
    return {
        **{name: each for name, each in same.items() if not isinstance(each, dict | tuple)},
        "score": item.score,
        "validation_loss": item.validation.get("loss"),
        "total_s": item.total_s,
        "train_s": item.train_s,
        "train_flops": item.flops.get("train"),
        "flops_per_token": item.flops.get("per_token"),
        "n_train": item.data.get("n_train"),
        "n_val": item.data.get("n_val"),
        "n_truncated": item.data.get("n_truncated"),
        "data_sha256": item.data.get("sha256"),
        "data": json.dumps(item.data),
        **always,
    }


def qualities(item: Row) -> Iterator[tuple[str, str, str, float]]:
    """Split, part, metric, value."""
    for split, metrics in {item.split: item.quality, "validation": item.validation}.items():
        yield from ((split, "", metric, number) for metric, number in metrics.items())
    for part, metrics in item.quality_by_part.items():
        yield from ((item.split, part, metric, number) for metric, number in metrics.items())


def unfinished(places: Iterable[Path]) -> Iterator[Problem]:
    """The runs that have a configuration and no result yet."""
    for place in places:
        for file in sorted(place.rglob("config.yaml")):
            if not file.with_name("result.json").exists() and file.parent.name != ".hydra":
                said = f"{file.parent}: no result yet; if it is not running, the command that began it goes on with it"
                yield Problem(str(file.parent), "unfinished", said)


@contextmanager
def opened(database: Path) -> Iterator[sqlite3.Connection]:
    """The index, to read and no more: whatever is asked of it, no file is written."""
    if not database.is_file():
        raise ReportError(f"{database}: no such index; make it with `python -m experiments.results rebuild runs`")
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("PRAGMA query_only = ON")
        # Read-only as it is, SQLite would still write copies (VACUUM INTO) and open other files (ATTACH).
        connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in READING else sqlite3.SQLITE_DENY)
        yield connection


def query(database: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of a query over the index."""
    with opened(database) as connection:
        try:
            cursor = connection.execute(sql)
            if cursor.description is None:
                raise ReportError(f"sql: {sql!r} asks for nothing; write a SELECT")
            return [name for name, *_ in cursor.description], cursor.fetchall()
        except (sqlite3.Error, sqlite3.Warning) as error:
            hint = (
                "the index is read-only and answers SELECT alone; `python -m experiments.results sql` prints its tables"
            )
            raise ReportError(f"sql: {error}; {hint}") from error
