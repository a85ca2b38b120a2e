"""Hyperparameters as they will be saved: checked against the constructor's annotations, and made plain, at injection.

A method says `rank: int = 8` and gets a Python int, whatever kind of whole number was given; what a file could not
hold, or would read back as something else, is refused before anything is trained.
"""

from __future__ import annotations

import enum
import functools
import math
import numbers
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from deltatune.core import DeltaError, DeltaModule, keyword_only


def checked(method: type[DeltaModule], hparams: dict[str, Any]) -> dict[str, Any]:
    """The hyperparameters in Python's own types. Raises DeltaError naming the one that is not what the method takes."""
    kinds = kinds_of(method)
    known = keyword_only(method)
    plain = {}
    for name, value in hparams.items():
        if name not in known:
            raise DeltaError(f"{method.__name__} has no hyperparameter {name}; it has {', '.join(sorted(known))}")
        try:
            plain[name] = made(value, kinds.get(name, Any))
        except ValueError as error:
            raise DeltaError(f"{method.__name__}: {name} is {error}, not {value!r}") from None
    return plain


@functools.cache
def kinds_of(method: type[DeltaModule]) -> dict[str, Any]:
    return get_type_hints(method.__init__)


def made(value: Any, kind: Any) -> Any:
    """The value as this annotation has it. Raises ValueError saying what it should be."""
    value = unwrapped(value)
    origin, inner = get_origin(kind), get_args(kind)
    if kind is None or kind is types.NoneType:
        return want(value is None, "None", None)
    if origin in (Union, types.UnionType):
        for each in sorted(inner, key=lambda k: k is not types.NoneType):
            try:
                return made(value, each)
            except ValueError:
                continue
        raise ValueError(" or ".join(spelled(k) for k in inner))
    if origin is Literal:
        return want(value in inner, f"one of {', '.join(map(repr, inner))}", value)
    if kind is bool:
        return want(isinstance(value, bool), "True or False", value)
    if kind is int:
        return want(isinstance(value, int) and not isinstance(value, bool), "a whole number", value)
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return want(number, "a finite number", float(value) if number else None)
    if kind is str:
        return want(isinstance(value, str), "text", str(value) if isinstance(value, str) else None)
    sequence = spelled(origin or kind).rpartition(".")[2] in ("tuple", "list", "Sequence")
    if sequence or (kind is Any and isinstance(value, (list, tuple))):
        each = inner[0] if inner else Any
        return tuple(made(v, each) for v in want(isinstance(value, (list, tuple, range)), "a sequence", value))
    saved = value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))
    return want(saved, "what a file can hold: a finite number, text, True, False, None or a sequence of them", value)


def want(fits: bool, what: str, value: Any) -> Any:
    if not fits:
        raise ValueError(what)
    return value


def unwrapped(value: Any) -> Any:
    """Numbers of numpy and torch, their arrays, sets and enums as Python's own; anything else as it is."""
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, str):
        return str(value)
    if callable(getattr(value, "tolist", None)):  # numpy's and torch's scalars and arrays
        return value.tolist()
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, (bool, int)) else value


def spelled(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
