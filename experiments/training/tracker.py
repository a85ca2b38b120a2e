"""The contract of a tracker: the three events of a run that it is told of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class About:
    """What a tracker learns of its run."""

    name: str
    directory: Path  # the run's own
    out: Path  # the folder that holds it
    config: dict[str, Any]


class Tracker(ABC):
    """A tracker of one run. It is made before the run begins; its events come on a thread of its own and may raise."""

    def __init__(self, about: About) -> None:
        """Raises ImportError, before the run begins, where a package is missing."""
        self.about = about

    @abstractmethod
    def start(self, first: int) -> None:
        """Begin; `first` is the step that will be logged first, above 1 where the run goes on."""

    @abstractmethod
    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Take a step's numbers."""

    @abstractmethod
    def finish(self, summary: dict[str, float], error: str | None) -> None:
        """Take the result's numbers and end; `error` is that of a failed run."""


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value inside dicts and lists with its dotted name."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def is_number(value: Any) -> bool:
    """Whether it is a number and no truth value, which Python counts among them."""
    return isinstance(value, int | float) and not isinstance(value, bool)
