"""Things by name: a table of each kind, with the package's own; plugins add to it by a decorator of one line."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
TABLES: list[Table[Any]] = []  # every table of the rooms that are imported
LOADING: list[str] = []  # the plugin that is being imported stands last


class PluginError(ValueError):
    """A plugin cannot be used; the message says which, where, and why."""


@dataclass(frozen=True)
class Origin:
    """Where an entry comes from: the plugin, by the name that it was loaded under, and the line that adds it."""

    plugin: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def first_line(thing: Any) -> str:
    """The first line of an object's docstring; of a module by its name, which is read and not imported; of a file's
    first comment."""
    if isinstance(thing, Path):
        comments = (line.partition("# ")[2] for line in thing.read_text(encoding="utf-8").splitlines())
        return next(filter(None, comments), "")
    if isinstance(thing, str):
        spec = find_spec(thing)
        assert spec is not None and spec.origin is not None, thing
        doc = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    else:
        doc = thing.__doc__
    return (doc or "").strip().partition("\n")[0]


class Table(dict[str, T]):
    """The things of one kind by name: the package's, then those that plugins add, whose origins are kept.

    about: what an entry is, in one line; by default the first of its docstring.
    """

    def __init__(self, kind: str, own: Mapping[str, T], about: Callable[[T], str] = first_line) -> None:
        super().__init__(own)
        self.kind, self.about = kind, about
        self.origins: dict[str, Origin] = {}
        frame = sys._getframe(1)
        self.room, self.file = frame.f_globals["__name__"], f"{frame.f_code.co_filename}:{frame.f_lineno}"
        TABLES.append(self)

    def add(self, name: str, entry: T) -> None:
        """A plugin's entry. Raises PluginError where another line has taken the name."""
        origin = origin_of_caller()
        taken_by = self.origins.get(name)
        if name in self and (taken_by is None or (taken_by.file, taken_by.line) != (origin.file, origin.line)):
            raise PluginError(
                f"{origin}: there is a {self.kind} {name!r} already, at {taken_by or self.file}; choose another name"
            )
        self[name], self.origins[name] = entry, origin


def origin_of_caller() -> Origin:
    """The nearest line outside this package."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] == "experiments":
        frame = frame.f_back
    plugin = LOADING[-1] if LOADING else frame.f_globals.get("__name__", "")
    return Origin(plugin, frame.f_code.co_filename, frame.f_lineno)
