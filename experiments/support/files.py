"""Files that are written whole or not at all, and the lock that says who is at work in a directory."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import IO, Any


def write_text(path: Path, text: str) -> None:
    """The text in place of the file, or, on any error, the file as it was."""
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def locked(path: Path) -> IO[str] | None:
    """The file at `path`, made where there is none and locked until it is closed; None where another holds it.

    The kernel takes the lock back when its holder dies, however it dies.
    """
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
