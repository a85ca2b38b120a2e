"""Files that are built once and kept, in the user's cache directory."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_dir

from experiments.support.files import clear, replaced


def cache_dir() -> Path:
    """Where fetched and converted files are kept: $DELTATUNE_CACHE, or the user's cache directory."""
    return Path(os.environ.get("DELTATUNE_CACHE") or user_cache_dir("deltatune"))


@cache
def own_folder() -> Path:
    """A folder of this process alone, for what a cache that nobody can write to lacks."""
    folder = Path(tempfile.mkdtemp(prefix="deltatune-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def writable(folder: Path) -> bool:
    """Whether files can be made in the folder, which is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """The cached directory that `build(directory)` fills, built once even if several processes ask.

    One that is there is taken without a lock, so that a warm cache may be one that nobody can write to; what it lacks
    is then built for this process alone.
    """
    folder = cache_dir()
    if (folder / name).is_dir():
        return folder / name
    folder = folder if writable(folder) else own_folder()
    target = folder / name
    with FileLock(folder / f".{name}.lock", thread_local=False, fallback_to_soft=False):
        if not target.is_dir():
            clear(folder, name)
            with replaced(target) as made:
                made.mkdir()
                build(made)
    return target
