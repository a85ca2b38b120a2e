"""Result files and those beside them: found, read, and checked key by key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from experiments.store.result import FORMAT, Complete, Failed, Result

AGAIN = "delete the file and run again"


class ReportError(ValueError):
    """A result file that cannot be shown; the message names the file and the key."""


def read(path: Path) -> Result:
    """The result file at `path`, checked; a key that is missing or of the wrong type is an error that names it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ReportError(f"{path}: not a readable result file ({error}); delete it and run again") from error
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise ReportError(
            f"{path}: key 'format' is {version!r}, not {FORMAT}: another version made this file; "
            "delete it and run again, or read it with the version that made it"
        )
    if content.get("status") not in ("complete", "failed"):
        raise ReportError(f"{path}: key 'status' is {content.get('status')!r}, not 'complete' or 'failed'; {AGAIN}")
    try:
        result = msgspec.convert(content, Complete if content["status"] == "complete" else Failed)
    except msgspec.ValidationError as error:
        raise ReportError(f"{path}: {fault(str(error), content)}; {AGAIN}") from error
    return replace(result, file=path)


def fault(message: str, content: dict[str, Any]) -> str:
    """What msgspec says is wrong with the content, with the key and the value.

    It says `Object missing required field `share` - at `$.parameters``, or `Expected `int`, got `str` - at `$.seed``;
    of a dictionary's entries, which are all alike, `$.quality[...]`.
    """
    what, _, place = message.partition(" - at `$")
    place = place.rstrip("`").removeprefix(".")
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        return f"key '{'.'.join(filter(None, (place, missing[1])))}' is missing"
    if not place:
        return what
    inner: Any = content
    for name in place.split("[")[0].split("."):
        inner = inner[name]
    return f"key '{place}' is {inner!r:.60}: {what}"


def beside(path: Path, name: str) -> Path:
    """The run's file of this name: next to its result.json, or for a small x.result.json the file x.<name>."""
    return path.with_name(path.name.removesuffix("result.json") + name)


def lines(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl or predictions.jsonl; a line that is none is an error that names it."""
    records = []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path}: cannot be read ({error}); run again") from error
    # Not splitlines: a prediction may hold other signs that Unicode calls line ends.
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ReportError(f"{path}:{number}: not a JSON record ({error}); run again") from error
        if not isinstance(record, dict):
            raise ReportError(f"{path}:{number}: {type(record).__name__}, not a JSON record; run again")
        records.append(record)
    return records


def find(places: Iterable[Path]) -> list[Path]:
    """Every file whose name ends in result.json in or under the folders, in the order of their names.

    A place may be such a file itself.
    """
    places = list(places)
    files: list[Path] = []
    for place in places:
        if not place.exists():
            raise ReportError(f"{place}: no such folder; give the folder of a run or one that holds runs")
        files += sorted(place.rglob("*result.json")) if place.is_dir() else [place]
    if not files:
        raise ReportError(f"no result.json under {', '.join(map(str, places))}")
    return list(dict.fromkeys(files))
