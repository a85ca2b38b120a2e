"""Any JSON Lines file of one of four record forms as a task.

{"prompt", "completion"}; {"instruction", "input", "output"}; {"messages"}, the last turn the assistant's;
{"text", "label"} with an optional "text_pair". A file has records of one form; a line that
cannot be used is an error that names file and line.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from experiments.metrics import classification, exact_match
from experiments.tasks import Example, TaskData, TaskError, content_sha256

FORMS = {
    "prompt/completion": ("prompt", "completion"),
    "instruction/output": ("instruction", "output"),
    "messages": ("messages",),
    "text/label": ("text", "label"),
}


def load(task: Any, seed: int = 0) -> TaskData:
    """The parts from their files; without val or test, the records of train with the smallest hashes.

    task: train, val, test (paths) and n_val, n_test, the records to split off. Equal prompts stay in one
    part, so that it may get a few more.
    """
    files = {"train": task.train, "val": task.val, "test": task.test}
    read = {part: records(Path(path)) for part, path in files.items() if path}
    forms = {form for form, _ in read.values()}
    if len(forms) > 1:
        raise TaskError(f"the files have different record forms: {', '.join(sorted(forms))}")
    parts = {part: rows for part, (_, rows) in read.items()}
    for part, n in (("test", task.n_test), ("val", task.n_val)):
        if part not in parts:
            rows = parts["train"]
            ranks = [rank(row, seed) for row in rows]
            chosen = set(sorted(ranks)[:n])
            parts[part] = [row for row, own in zip(rows, ranks) if own in chosen]
            parts["train"] = [row for row, own in zip(rows, ranks) if own not in chosen]
            if not parts["train"]:
                raise TaskError(f"{task.train}: {len(rows)} records leave none to train on after task.n_{part}={n}")
    classify = forms == {"text/label"}
    labels = tuple(sorted({e.completion for e in parts["train"]})) if classify else ()
    for part in ("val", "test"):
        for e in parts[part]:
            if classify and e.completion not in labels:
                raise TaskError(f"{e.place}: label {e.completion!r} does not occur in the training part")
    sources = {str(p): hashlib.sha256(Path(p).read_bytes()).hexdigest() for p in files.values() if p}
    digest = content_sha256(parts["train"], parts["val"], parts["test"])
    kind = "classify" if classify else "generate"
    metric, scorer = ("accuracy", classification) if classify else ("exact_match", exact_match)
    return TaskData("jsonl", kind, parts["train"], parts["val"], parts["test"], labels, digest, sources, metric, scorer)


def rank(example: Example, seed: int) -> str:
    """A hash of the prompt: the split does not depend on the order of the lines."""
    content = json.dumps([example.messages, example.text, example.text_pair], sort_keys=True)
    return hashlib.sha256(f"{seed}/{content}".encode()).hexdigest()


def records(path: Path) -> tuple[str, list[Example]]:
    """The record form of a file, and its examples. Raises TaskError naming file and line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from None
    form, examples = "", []
    if not raw.strip():
        raise TaskError(f"{path}: the file is empty")
    for number, line in enumerate(raw.rstrip().split(b"\n"), 1):
        place = f"{path}:{number}"
        try:
            record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise TaskError(f"{place}: not UTF-8 at byte {error.start} of the line; save the file as UTF-8") from None
        except ValueError as error:
            raise TaskError(f"{place}: not a JSON value: {error}") from None
        own = form_of(record, place)
        if form and own != form:
            raise TaskError(f"{place}: a {own} record in a file of {form} records")
        form = own
        examples.append(example_of(record, form, place))
    return form, examples


def form_of(record: Any, place: str) -> str:
    if not isinstance(record, dict):
        raise TaskError(f"{place}: a record is a JSON object, not {type(record).__name__}")
    for form, fields in FORMS.items():
        if all(f in record for f in fields):
            return form
    for form, fields in FORMS.items():
        if any(f in record for f in fields):
            missing = next(f for f in fields if f not in record)
            raise TaskError(f"{place}: field {missing!r} is missing for a {form} record")
    raise TaskError(f"{place}: no known record form; there are: {', '.join(FORMS)}")


def text_of(record: dict[str, Any], field: str, place: str, empty: bool = False) -> str:
    value = record[field]
    if not isinstance(value, str):
        raise TaskError(f"{place}: field {field!r} must be a text, not {type(value).__name__}")
    if not value.strip() and not empty:
        raise TaskError(f"{place}: field {field!r} is empty")
    return value


def example_of(record: dict[str, Any], form: str, place: str) -> Example:
    if form == "prompt/completion":
        prompt, completion = (text_of(record, f, place) for f in FORMS[form])
        return Example((), completion, text=prompt, place=place)
    if form == "instruction/output":
        prompt, completion = (text_of(record, f, place) for f in FORMS[form])
        given = text_of({"input": "", **record}, "input", place, empty=True)
        content = f"{prompt}\n\n{given}" if given.strip() else prompt
        return Example(({"role": "user", "content": content},), completion, place=place)
    if form == "text/label":
        label = record["label"]
        if isinstance(label, bool) or not isinstance(label, (str, int)):
            raise TaskError(f"{place}: field 'label' must be a text or a whole number, not {type(label).__name__}")
        pair = text_of(record, "text_pair", place) if "text_pair" in record else None
        return Example((), str(label), text=text_of(record, "text", place), text_pair=pair, place=place)
    turns = record["messages"]
    if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(t, dict) for t in turns):
        raise TaskError(f"{place}: field 'messages' must be a list of two or more turns")
    for turn in turns:
        for field in ("role", "content"):
            if field not in turn:
                raise TaskError(f"{place}: a turn of 'messages' has no {field!r}")
            text_of(turn, field, place)
    if turns[-1]["role"] != "assistant":
        raise TaskError(f"{place}: the last turn of 'messages' must be the assistant's, not {turns[-1]['role']!r}")
    before = tuple({"role": t["role"], "content": t["content"]} for t in turns[:-1])
    return Example(before, turns[-1]["content"], place=place)
