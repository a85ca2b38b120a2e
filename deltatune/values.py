"""What a trace is made of: nodes (values), calls of modules, attentions; and what tells one value from another."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(slots=True)
class Node:
    """A value: the operation, what it was computed from, inside which call, and the axis of a softmax."""

    op: str
    inputs: tuple[int, ...]
    call: int
    shape: tuple[int, ...]
    floating: bool = True
    dim: int | None = None


@dataclass(slots=True)
class Call:
    """A run of a module's forward; nodes made inside it are first .. last − 1. leaf: a map's output, for gradients."""

    path: str
    module: nn.Module
    parent: int
    inputs: tuple[int, ...]
    first: int
    is_map: bool
    single: bool  # one positional tensor and nothing else
    into: tuple[int, ...] = ()
    last: int = 0
    outputs: tuple[int, ...] = ()
    out: tuple[int, ...] = ()
    leaf: Tensor | None = None


@dataclass(slots=True)
class Attended:
    """One attention: inside which call, and queries, keys and values as they arrive, (…, T, D) and (…, S, D)."""

    call: int
    nodes: tuple[int, ...]
    tensors: tuple[Tensor, ...] = field(repr=False)
    whole: bool = True  # scaled_dot_product_attention itself, not products and a softmax


def storage(t: Tensor) -> int:
    try:
        return t.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # a wrapper that has none
        return id(t)


def continuous(t: Tensor) -> bool:
    """Whether gradients can flow through a tensor."""
    return t.is_floating_point() or t.is_complex()


def key(t: Tensor) -> Any:
    try:
        return storage(t), t.storage_offset(), tuple(t.shape), t.stride()
    except (NotImplementedError, RuntimeError):
        return id(t)


def flat(values: Any) -> Iterator[Tensor]:
    """The tensors among an operation's arguments."""
    for v in values:
        if isinstance(v, Tensor):
            yield v
        elif isinstance(v, (list, tuple)):
            yield from (t for t in v if isinstance(t, Tensor))


@functools.cache
def named(func: Any) -> tuple[str, bool]:
    """(an operation's name without overload and underscore behind, whether it writes in place)."""
    name = func.__name__.partition(".")[0]
    mutable = func._schema.is_mutable
    return (name[:-1] if mutable and name.endswith("_") else name), mutable
