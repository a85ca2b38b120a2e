"""The log of a comparison, ledger.jsonl: a line of JSON a decision, only appended to, so that it can be audited."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.store.files import lines

Line = dict[str, Any]


class DecisionLog:
    """A file of events to which new ones are appended; those of earlier starts stay."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # A line cut off by a kill would swallow the next one.
        if path.is_file() and (text := path.read_bytes()) and not text.endswith(b"\n"):
            os.truncate(path, text.rfind(b"\n") + 1)
        self._earlier: list[Line] = lines(path) if path.is_file() else []
        self._own: list[Line] = []

    def write(self, event: str, **values: Any) -> None:
        """Append the event with the time."""
        line = {"time": now(), "event": event, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._own.append(line)

    def write_once(self, event: str, **values: Any) -> None:
        """Append the event, unless the log has it with these values."""
        if not any(self.every(event, **values)):
            self.write(event, **values)

    def earlier(self, event: str, **values: Any) -> Iterator[Line]:
        """The events of earlier starts with these values."""
        return matching(self._earlier, event, values)

    def every(self, event: str, **values: Any) -> Iterator[Line]:
        """The events of all starts, this one too, with these values."""
        return matching([*self._earlier, *self._own], event, values)


def matching(lines: Iterable[Line], event: str, values: Line) -> Iterator[Line]:
    for line in lines:
        if line["event"] == event and all(line.get(name) == value for name, value in values.items()):
            yield line


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
