"""The lines of a JSON Lines file, and what each says; every fault names its file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from experiments.tasks.base import TaskError

# First bytes of what is no text, and what it is.
BINARY = {
    b"\x1f\x8b": "compressed with gzip: unpack it",
    b"PK\x03\x04": "a zip archive or a spreadsheet: write its rows as JSON Lines",
    b"PAR1": "a Parquet file: give its directory, task=hub task.path=",
}


class LineError(TaskError):
    """A line that cannot be used. kind: as the data gate calls it; place: file and line; reason: the message without
    its place."""

    def __init__(self, place: str, reason: str, kind: str = "broken_line") -> None:
        super().__init__(f"{place}: {reason}")
        self.place, self.reason, self.kind = place, reason, kind


SKIPPED: ContextVar[list[LineError] | None] = ContextVar("SKIPPED", default=None)


@contextmanager
def skipping(faulty: bool) -> Iterator[list[LineError]]:
    """Inside, lines that cannot be used are left out where `faulty` says so; the block is given a list of them."""
    skipped: list[LineError] = []
    token = SKIPPED.set(skipped if faulty else None)
    try:
        yield skipped
    finally:
        SKIPPED.reset(token)


def refuse(error: LineError) -> None:
    """Raise the error, or note it where such lines are left out."""
    if (skipped := SKIPPED.get()) is None:
        raise error
    if all(str(error) != str(known) for known in skipped):  # a file may be read twice
        skipped.append(error)


def contents(path: Path) -> bytes:
    """The bytes of a file of records. Raises TaskError for one that is none as a whole."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from None
    if not raw.strip():
        raise TaskError(f"{path}: the file is empty")
    for start, what in BINARY.items():
        if raw.startswith(start):
            raise TaskError(f"{path}: no JSON Lines, but {what}")
    if (opened := raw.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]) == b"[" and is_array(raw):
        raise TaskError(
            f"{path}: a JSON array, and records stand in JSON Lines, one JSON object a line: "
            f"`jq -c '.[]' {path.name} > {beside(path)}` writes them so"
        )
    if opened == b"{" and b"\n" in raw.strip() and is_object(raw):
        raise TaskError(
            f"{path}: one JSON object over several lines, and records stand in JSON Lines, one a line: "
            f"`jq -c . {path.name} > {beside(path)}` writes them so"
        )
    return raw


def beside(path: Path) -> str:
    """The name of a file of records made from this one, never its own, which a shell would empty before it is read."""
    return f"{path.stem}{'.records' if path.suffix == '.jsonl' else ''}.jsonl"


def is_array(raw: bytes) -> bool:
    """Whether the whole is a JSON array, or begins as one that is written over several lines."""
    first = raw.lstrip().split(b"\n", 1)[0].strip()
    read = [] if first in (b"[", b"[{") else whole(raw)
    return read == [] or (isinstance(read, list) and any(isinstance(each, dict) for each in read))


def is_object(raw: bytes) -> bool:
    """Whether the first line is no value by itself, and the file as a whole is an object."""
    return whole(raw.strip().split(b"\n", 1)[0]) is None and isinstance(whole(raw), dict)


def whole(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def lines(path: Path, raw: bytes) -> Iterator[tuple[str, bytes]]:
    """The place and the bytes of every line."""
    for number, line in enumerate(raw.rstrip().split(b"\n"), 1):
        yield f"{path}:{number}", line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def value(line: bytes, place: str) -> Any:
    """The JSON value of a line. Raises LineError; also for an object that has a key twice."""
    try:
        return json.loads(line.decode(), object_pairs_hook=once)
    except UnicodeDecodeError as error:
        raise LineError(
            place, f"not UTF-8 at byte {error.start} of the line; save the file as UTF-8", "not_utf8"
        ) from None
    except Twice as error:
        raise LineError(place, f"key {error.key!r} stands twice in one object; keep one of them") from None
    except (ValueError, RecursionError) as error:
        raise LineError(place, f"not a JSON value: {error}") from None


class Twice(Exception):
    """A key that an object has twice."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs, of which JSON would have the last of two alike win."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise Twice(next(name for i, name in enumerate(names) if name in names[:i]))
    return made
