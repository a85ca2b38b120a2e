"""Runs that other versions of the sources made: never mixed with those of this one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from experiments.store.files import ReportError, read


def made_by_others(results: Path, sources: Mapping[str, str]) -> list[Path]:
    """The result files under the folder whose sources are not those of their task today; sources: hashes by task."""
    return [
        file
        for task, sha256 in sources.items()
        for file in sorted((results / task).rglob("*result.json"))
        if source_of(file) != sha256
    ]


def source_of(file: Path) -> str | None:
    """The hash of the sources that made a result; None of an older file, or of one that this version cannot read."""
    try:
        return read(file).sources_sha256
    except ReportError:
        return None


def refusal(files: Iterable[Path], results: Path) -> str:
    """Why nothing starts, with the list."""
    listed = "\n".join(f"  {file.relative_to(results)}" for file in files)
    return (
        f"sources=refuse: other versions of the sources made these runs in {results}:\n{listed}\n"
        "say sources=rerun to carry them out again, check out the version that made them, or give another name="
    )
