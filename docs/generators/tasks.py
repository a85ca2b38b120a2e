"""The keys of every task, from the dataclass of its configuration and the comments beside the fields."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields
from typing import Any, get_type_hints

from omegaconf import MISSING

from docs.generators.text import inline, page, table
from experiments.config.tasks import PUBLIC as ABOUT
from experiments.config.tasks import TASKS, PublicConfig, TaskConfig
from experiments.tasks.public.table import PUBLIC, Public
from experiments.tasks.public.task import metric_of

# What keys mean that most tasks have, and say nothing of.
USUAL = {"n_train": "training examples", "n_val": "validation examples", "n_test": "test examples"}


def page_of_tasks() -> str:
    """A table of each task's keys, but for the public ones; without a title, for data.md to include."""
    parts: list[str] = []
    for name, each in TASKS.items():
        if name in ABOUT:
            continue
        parts += [
            f"### {name}",
            inline(TASKS.about(each).removeprefix(f"{name}: ")),
            table(["key", "type", "default", "what it is"], keys(each.config)),
        ]
    return page(*parts)


def page_of_public_tasks() -> str:
    """Of each public task its sources, columns, metric and protocol, after the keys that all have."""
    parts = [table(["key", "type", "default", "what it is"], keys(PublicConfig))]
    for name in PUBLIC:
        parts += [f"## {name}", inline(ABOUT[name]), table(["", ""], facts(name, PUBLIC[name]))]
    return page(*parts)


def facts(name: str, public: Public) -> list[list[str]]:
    splits = {part: getattr(public.splits, part) for part in ("train", "val", "test")}
    listed = {part: ", ".join(f"`{source.name}`" for source in sources) for part, sources in splits.items() if sources}
    missing = [part for part, sources in splits.items() if not sources]
    sources = "; ".join(f"{part}: {names}" for part, names in listed.items())
    if public.members:
        sources = "those of " + ", ".join(f"`{member}`" for member in public.members)
    elif missing:
        sources += f"; {' and '.join(missing)}: split off from train"
    versions = {source.revision for each in splits.values() for source in each} - {None}
    metric = "accuracy" if public.members else metric_of(public, PublicConfig(name)).main
    lines = [
        ["source", sources + "".join(f", at `{version}`" for version in versions)],
        ["columns", inline(public.columns)],
        ["licence", inline(public.licence)],
        ["metric", f"`{metric}`" + (" and `macro_accuracy`" if public.members else "")],
        ["the most it can be", "no bound that is reached" if public.kind == "respond" else "1.0"],
        ["published numbers", inline(public.protocol)],
    ]
    return lines


def keys(config: type[TaskConfig]) -> list[list[str]]:
    """A line a key: its name on the command line, type, default and comment."""
    hints, notes = get_type_hints(config), comments(config)
    listed = [each for each in fields(config) if each.name != "name"]
    meanings = [inline(notes.get(each.name) or USUAL.get(each.name, "")) for each in listed]
    return [
        [f"`task.{each.name}`", f"`{in_words(hints[each.name])}`", default(each), meaning]
        for each, meaning in zip(listed, meanings)
    ]


def comments(config: type) -> dict[str, str]:
    """The comment on each field's line, those of inherited fields included."""
    written: dict[str, str] = {}
    for each in reversed(config.__mro__[:-1]):
        source = inspect.getsource(each)
        lines = source.splitlines()
        for node in ast.parse(inspect.cleandoc(source)).body[0].body:  # type: ignore[attr-defined]
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                rest = lines[(node.end_lineno or 1) - 1][node.end_col_offset or 0 :]
                written[node.target.id] = rest.partition("#")[2].strip() or written.get(node.target.id, "")
    return written


def default(of: Field[Any]) -> str:
    value = of.default_factory() if of.default_factory is not NO_DEFAULT else of.default
    return "must be given" if value == MISSING else "–" if value is None else f"`{value}`"


def in_words(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not re.search(r"\[", str(hint)) else str(hint)
