"""Files that are built once and kept, in the user's cache directory."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_dir


def cache_dir() -> Path:
    """Where fetched and converted files are kept: $DELTATUNE_CACHE, or the user's cache directory."""
    path = Path(os.environ.get("DELTATUNE_CACHE") or user_cache_dir("deltatune"))
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time for this name; the others wait."""
    with open(cache_dir() / f".{name}.lock", "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """The cached directory that `build(directory)` fills, built once even if several processes ask."""
    target = cache_dir() / name
    with locked(name):
        if not target.is_dir():
            scratch = target.with_name(f"{name}.partial")
            shutil.rmtree(scratch, ignore_errors=True)  # what a killed process left
            scratch.mkdir()
            try:
                build(scratch)
                scratch.rename(target)
            except BaseException:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
    return target
