"""Files that are written whole or not at all, and the lock that says who is at work in a directory."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

PART = ".part"  # how the name of what is being written ends


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yields a path to write a file or a new folder at, which takes its place when the block has ended.

    On any error the old file stays as it was, and what was written goes.
    """
    with temporary(path) as written:
        yield written
        settle(written, path)


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Yields a path beside this one that no other process writes at; whatever is left there goes."""
    written = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        yield written
    finally:
        remove(written)


def settle(written: Path, path: Path) -> None:
    """Put what was written, once it is on the disk, in the place of the path."""
    for file in (written, *written.rglob("*")) if written.is_dir() else (written,):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    os.replace(written, path)


def remove(path: Path) -> None:
    """Remove the file or the folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def clear(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left half written in the folder, or of this name in it; under its lock."""
    for left in folder.glob(f"*{PART}" if name is None else f"{escape(name)}.{'?' * 8}{PART}"):
        remove(left)


def write_text(path: Path, text: str) -> None:
    """The text in place of the file, or, on any error, the file as it was."""
    with replaced(path) as written:
        written.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def locked(path: Path) -> ExitStack | None:
    """The lock on the file at `path`, made where there is none, held until it is closed; None where another holds it.

    The kernel takes the lock back when its holder dies, however it dies.
    """
    lock = ExitStack()
    try:
        lock.enter_context(FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False))
    except Timeout:
        return None
    return lock
