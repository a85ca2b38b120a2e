"""Any JSON Lines file of records as a task; `forms` has the forms of a record.

A file has records of one form; a line that cannot be used is an error that names file and line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from experiments.tasks.base import TRAITS, Example, Kind, TaskData, TaskError, content_sha256
from experiments.tasks.forms import KINDS, Named, example_of, form_of, mixed
from experiments.tasks.metrics import METRICS, Metric, json_match, no_json_object

Parts = dict[str, list[Example]]

SPLIT_OFF = {"val": 100, "test": 200}  # records, where neither a file nor a number is given


def load(config: Any, seed: int = 0) -> TaskData:
    """The parts from their files; without val or test, the records of train with the smallest hashes.

    config: see JsonlConfig. Equal prompts, and records of one group, stay in one part, so that it may get a few more.
    """
    files = {"train": config.train, "val": config.val, "test": config.test}
    named = Named(config.group, config.part)
    read = {part: records(Path(path), named) for part, path in files.items() if path}
    forms = {form for form, _ in read.values()}
    if len(forms) > 1:
        raise TaskError(f"the files have different record forms: {', '.join(sorted(forms))}")
    parts = sized({part: rows for part, (_, rows) in read.items()}, config, seed)
    sources = {path: file_sha256(path) for path in files.values() if path}
    return assembled("jsonl", forms.pop(), parts, config, sources)


def assembled(name: str, form: str, parts: Parts, config: Any, sources: dict[str, str]) -> TaskData:
    """The task of parts of that form, with the metric that the configuration names. Raises TaskError."""
    kind = KINDS.get(form, "generate")
    labels = tuple(sorted({e.completion for e in parts["train"]})) if TRAITS[kind].labelled else ()
    for part in ("val", "test"):
        for e in parts[part]:
            if TRAITS[kind].labelled and e.completion not in labels:
                raise TaskError(f"{e.place}: label {e.completion!r} does not occur in the training part")
    metric = scoring(kind, config)
    sources = sources | {path: file_sha256(path) for path in (config.schema, config.database) if path}
    train, val, test = (parts[part] for part in ("train", "val", "test"))
    digest = content_sha256(train, val, test)
    scored_by = metric.main, metric.scorer, metric.hopeless
    ceiling = 1.0 if TRAITS[kind].prompted else None
    return TaskData(name, kind, train, val, test, labels, digest, sources, *scored_by, ceiling=ceiling)


def scoring(kind: Kind, config: Any) -> Metric:
    """The metric that task.metric, task.schema and task.database ask for."""
    if config.schema is not None:
        if not TRAITS[kind].free_text or config.metric not in (None, "json"):
            raise TaskError("task.schema is for answers in JSON: task.metric=json, on records with a text to write")
        return Metric("exact_match", partial(json_match, schema=json_schema(Path(config.schema))), no_json_object)
    if config.database is not None:
        if not TRAITS[kind].free_text or config.metric not in (None, "execution"):
            raise TaskError(
                "task.database is for answers in SQL: task.metric=execution, on records with a text to write"
            )
        from experiments.tasks.sql.execution import execution_scorer

        return Metric("execution_accuracy", execution_scorer(Path(config.database)))
    known = METRICS[kind]
    if config.metric == "execution" and TRAITS[kind].free_text:
        raise TaskError("task.metric=execution needs the database to execute on: task.database=a.sqlite")
    if config.metric is not None and config.metric not in known:
        raise TaskError(f"task.metric={config.metric}: for data of the kind {kind!r} there are: {', '.join(known)}")
    return known[config.metric or next(iter(known))]


def json_schema(path: Path) -> dict[str, Any]:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        validator_for(schema).check_schema(schema)
    except (OSError, ValueError, SchemaError) as error:
        raise TaskError(f"task.schema={path}: no JSON Schema: {str(error).splitlines()[0]}") from None
    return schema


def sized(read: Parts, config: Any, seed: int) -> Parts:
    """The parts in the sizes that task.n_train, n_val and n_test ask for (None: all there are, or SPLIT_OFF)."""
    parts = dict(read)
    for part in ("test", "val"):
        n = getattr(config, f"n_{part}")
        if part in read:
            parts[part] = read[part] if n is None else taken(part, read[part], n, seed)[0]
            continue
        n = SPLIT_OFF[part] if n is None else n
        parts[part], parts["train"] = taken(part, parts["train"], n, seed)
        if not parts["train"]:
            n_read, split_off = len(read["train"]), [f"task.n_{p}" for p in ("val", "test") if p not in read]
            raise TaskError(
                f"{config.train}: {n_read} records leave none to train on; lower {' or '.join(split_off)} or give files"
            )
    if config.n_train is not None:
        parts["train"], _ = taken("train", parts["train"], config.n_train, seed)
    return parts


def taken(part: str, rows: list[Example], n: int, seed: int) -> tuple[list[Example], list[Example]]:
    """The n records with the smallest hashes, and the others, both in their order."""
    if n > len(rows):
        raise TaskError(f"task.n_{part}={n}: there are only {len(rows)} records to take them from")
    ranks = [rank(row, seed) for row in rows]
    chosen = set(sorted(ranks)[:n])
    return [r for r, own in zip(rows, ranks) if own in chosen], [r for r, own in zip(rows, ranks) if own not in chosen]


def rank(example: Example, seed: int) -> str:
    """A hash of the group, or else of the prompt: the split does not depend on the order of the lines."""
    prompt = [example.messages, example.text, example.text_pair]
    content = json.dumps(example.group or prompt, sort_keys=True)
    return hashlib.sha256(f"{seed}/{content}".encode()).hexdigest()


def records(path: Path, named: Named | None = None) -> tuple[str, list[Example]]:
    """The record form of a file, and its examples. Raises TaskError naming file and line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from None
    if not raw.strip():
        raise TaskError(f"{path}: the file is empty")
    return examples(parsed(path, raw), named)


def parsed(path: Path, raw: bytes) -> Iterable[tuple[str, Any]]:
    """The place and the JSON value of every line."""
    for number, line in enumerate(raw.rstrip().split(b"\n"), 1):
        place = f"{path}:{number}"
        try:
            yield place, json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise TaskError(f"{place}: not UTF-8 at byte {error.start} of the line; save the file as UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise TaskError(f"{place}: not a JSON value: {error}") from None


def examples(values: Iterable[tuple[str, Any]], named: Named | None = None) -> tuple[str, list[Example]]:
    """The one form of all records, and their examples."""
    form, found = "", []
    for place, record in values:
        own = form_of(record, place)
        if form and own != form:
            raise TaskError(f"{place}: {mixed(own, form)}")
        form = own
        found.append(example_of(record, form, place, named))
    return form, found


def file_sha256(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from None
