"""What is derived from the tree of a result: its keys with their meaning, and the flat columns of tables."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import Meta

from experiments.store.result import Complete, Header, Measured, Result, plain

NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", NoneType: "null"}
SQL = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}


@dataclass(frozen=True)
class Key:
    """A key of a file. name: dotted, `*` for the names that a run gives."""

    name: str
    type: str  # what it is, in words
    description: str


@dataclass(frozen=True)
class Column:
    """A column of flat tables: a key that holds one value, or a property of the result."""

    name: str
    path: tuple[str, ...]  # the attributes that lead to it from the result
    sql: str
    description: str


def keys(of: type = Complete, prefix: str = "") -> Iterator[Key]:
    """Every key of result.json, or of another file's dataclass, an outer one before those that lie in it."""
    for name, hint, meta in parts(of):
        key, inner = f"{prefix}{name}", hint
        yield Key(key, in_words(hint), meta.description or "")
        while get_origin(inner := options(inner)[0]) in (dict, tuple):
            key, inner = (
                (f"{key}.*", get_args(inner)[1]) if get_origin(inner) is dict else (f"{key}[]", get_args(inner)[0])
            )
        if (tree := tree_of(inner)) is not None:
            yield from keys(tree, f"{key}.")


@cache
def columns() -> tuple[Column, ...]:
    """The columns of a run: what a header says, then what was measured."""
    listed = (*columns_of(Header), *properties(Header), *columns_of(Measured), *properties(Measured))
    names = [column.name for column in listed]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TypeError(f"several keys of a result have the column {', '.join(twice)}; name them apart by about()")
    return listed


def columns_of(of: type, path: tuple[str, ...] = ()) -> Iterator[Column]:
    """A column for each key that holds one value; for one that holds more where its meaning names one, as JSON."""
    for name, hint, meta in parts(of):
        sql, given = sql_of(hint), (meta.extra or {}).get("column")
        column = name if given is None and sql is not None else given
        if column:
            yield Column(column, (*path, name), sql or "JSON", meta.description or "")
        if (tree := tree_of(hint)) is not None:
            yield from columns_of(tree, (*path, name))


def properties(of: type) -> Iterator[Column]:
    """A column for each property."""
    for name, each in vars(of).items():
        if isinstance(each, property):
            text = (inspect.getdoc(each) or "").rstrip(".")
            yield Column(name, (name,), sql_of(get_type_hints(each.fget)["return"]) or "JSON", text)


def flat(result: Result) -> dict[str, Any]:
    """The values of the result's columns; None for what does not apply, and for what a failed run has not measured."""
    return {column.name: value(result, column.path) for column in columns()}


def value(result: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        result = getattr(result, name, None)
    return result if result is None or isinstance(result, (str, int, float)) else plain(result)


@cache
def parts(of: type) -> tuple[tuple[str, Any, Meta], ...]:
    """Of every field that stands in the file: its name, its type and its meaning."""
    hints = get_type_hints(of, include_extras=True)
    described = [(each.name, hints[each.name]) for each in fields(of) if get_origin(hints[each.name]) is Annotated]
    return tuple((name, *get_args(hint)) for name, hint in described)


def options(hint: Any) -> tuple[Any, ...]:
    """The types of a union, without None; of any other type, itself."""
    return tuple(each for each in get_args(hint) if each is not NoneType) if is_union(hint) else (hint,)


def is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def tree_of(hint: Any) -> type | None:
    """The dataclass that a value of this type is, if it is one."""
    return next((each for each in options(hint) if isinstance(each, type) and is_dataclass(each)), None)


def sql_of(hint: Any) -> str | None:
    """The type of a column, for a key that holds one value."""
    (first, *_) = options(hint)
    return "VARCHAR" if get_origin(first) is Literal else SQL.get(first)


def in_words(hint: Any) -> str:
    """The type of a value for a reader."""
    if is_union(hint):
        return " or ".join(in_words(each) for each in get_args(hint))
    if get_origin(hint) is Literal:
        return "text"
    if get_origin(hint) is tuple:
        return f"list of {in_words(get_args(hint)[0])}s"
    return NAMES.get(hint, "object")
