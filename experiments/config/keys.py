"""The values of a configuration by their dotted keys, as Hydra's overrides name them."""

from __future__ import annotations

from dataclasses import is_dataclass
from enum import Enum
from typing import Any


def value_at(config: Any, key: str) -> Any:
    """The value at the key, an enum as its word. Raises ValueError where there is no such key."""
    inner: Any = config
    for part in key.split("."):
        try:
            inner = inner[int(part)] if isinstance(inner, list) else step(inner, part)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            raise ValueError(f"{key}: the run has no such key; `python -m experiments.run --help` has them") from None
    return inner.value if isinstance(inner, Enum) else inner


def step(inner: Any, part: str) -> Any:
    return getattr(inner, part) if is_dataclass(inner) else inner[part]


def override(key: str, value: Any) -> str:
    """What sets the key to the value, in Hydra's words."""
    return f"{key}={_word(value)}"


def _word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_word, value))}]"
    if isinstance(value, str):
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{quoted}'"
    return repr(value)
