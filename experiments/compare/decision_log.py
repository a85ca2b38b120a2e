"""The log of a comparison, ledger.jsonl: a line of JSON a decision, only appended to, so that it can be audited."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.store.files import lines


class DecisionLog:
    """A file of events to which new ones are appended; those of earlier comparisons stay."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # A line cut off by a kill would swallow the next one.
        if path.is_file() and (text := path.read_bytes()) and not text.endswith(b"\n"):
            os.truncate(path, text.rfind(b"\n") + 1)
        self._earlier = lines(path) if path.is_file() else []

    def write(self, event: str, **values: Any) -> None:
        """Append the event with the time."""
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")

    def earlier(self, event: str, **values: Any) -> Iterator[dict[str, Any]]:
        """The events of earlier comparisons with these values."""
        for line in self._earlier:
            if line["event"] == event and all(line.get(name) == value for name, value in values.items()):
                yield line
