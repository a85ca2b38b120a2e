"""Any JSON Lines file of records as a task; `forms` has the forms of a record.

A file has records of one form; a line that cannot be used is an error that names file and line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from experiments.tasks.base import TRAITS, Example, Kind, TaskData, TaskError, content_sha256
from experiments.tasks.forms import KINDS, Named, example_of, form_of, mixed
from experiments.tasks.json_lines import LineError, contents, lines, refuse, value
from experiments.tasks.metrics import METRICS, Metric, json_match, no_json_object
from experiments.tasks.split import Parts, sized


def load(config: Any, seed: int = 0) -> TaskData:
    """The parts from their files; without val or test, a part of the records of train (`split`).

    config: see JsonlConfig. Equal prompts, and records of one group, stay in one part, so that it may get a few more.
    """
    files = {"train": config.train, "val": config.val, "test": config.test}
    named = Named(config.group, config.part)
    read = {part: records(Path(path), named) for part, path in files.items() if path}
    forms = {form for form, _ in read.values()}
    if len(forms) > 1:
        raise TaskError(f"the files have different record forms: {', '.join(sorted(forms))}")
    (form,) = forms
    labelled = TRAITS[KINDS.get(form, "generate")].labelled
    parts = sized({part: rows for part, (_, rows) in read.items()}, config, seed, labelled)
    sources = {path: file_sha256(path) for path in files.values() if path}
    return assembled("jsonl", form, parts, config, sources)


def assembled(name: str, form: str, parts: Parts, config: Any, sources: dict[str, str]) -> TaskData:
    """The task of parts of that form, with the metric that the configuration names. Raises TaskError."""
    kind = KINDS.get(form, "generate")
    labels = tuple(sorted({e.completion for e in parts["train"]})) if TRAITS[kind].labelled else ()
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


def records(path: Path, named: Named | None = None) -> tuple[str, list[Example]]:
    """The record form of a file, and its examples. Raises TaskError naming file and line."""
    form, found = examples(parsed(path, contents(path)), named)
    if not found:
        raise TaskError(f"{path}: no line of it can be used")
    return form, found


def parsed(path: Path, raw: bytes) -> Iterator[tuple[str, Any]]:
    """The place and the JSON value of every line."""
    for place, line in lines(path, raw):
        try:
            yield place, value(line, place)
        except LineError as error:
            refuse(error)


def examples(
    values: Iterable[tuple[str, Any]], named: Named | None = None, mapped: Collection[str] = ()
) -> tuple[str, list[Example]]:
    """The one form of all records, and their examples. mapped: fields that columns were mapped to."""
    form, found = "", []
    for place, record in values:
        try:
            own = form_of(record, place, mapped)
            if form and own != form:
                raise TaskError(f"{place}: {mixed(own, form)}")
            found.append(example_of(record, own, place, named))
            form = own
        except TaskError as error:
            refuse(LineError(place, str(error).removeprefix(f"{place}: ")))
    return form, found


def file_sha256(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from None
