"""Files that are built once and kept, in the user's cache directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_dir

from experiments.support.files import clear, replaced


def cache_dir() -> Path:
    """Where fetched and converted files are kept: $DELTATUNE_CACHE, or the user's cache directory."""
    path = Path(os.environ.get("DELTATUNE_CACHE") or user_cache_dir("deltatune"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """The cached directory that `build(directory)` fills, built once even if several processes ask.

    One that is there is taken without a lock, so that a warm cache may be one that nobody can write to.
    """
    target = cache_dir() / name
    if target.is_dir():
        return target
    with FileLock(cache_dir() / f".{name}.lock", thread_local=False, fallback_to_soft=False):
        if not target.is_dir():
            clear(cache_dir(), name)
            with replaced(target) as folder:
                folder.mkdir()
                build(folder)
    return target
