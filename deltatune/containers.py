"""Hosts that walk over their own children, as nn.Sequential does: the child that holds deltas is never among them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from deltatune.maps import CHILD

WALKS = {"children", "named_children", "modules", "named_modules", "_modules"}


class Walking(threading.local):
    """The hosts whose own forward this thread is in, innermost last."""

    def __init__(self) -> None:
        self.hosts: list[nn.Module] = []


walking = Walking()


def walks(cls: type[nn.Module]) -> bool:
    """Whether a class may look through its children: a container of torch's, or code of it that names such a walk."""
    if issubclass(cls, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return True
    own = [base for base in cls.__mro__ if base not in (nn.Module, object)]
    codes = [getattr(f, "__code__", None) for base in own for f in vars(base).values()]
    return any(WALKS & {*code.co_names} for code in codes if code is not None)


@contextmanager
def inside(host: nn.Module) -> Iterator[None]:
    """A block in which this thread runs the host's own forward."""
    walking.hosts.append(host)
    try:
        yield
    finally:
        walking.hosts.pop()


def children_of(host: nn.Module) -> dict[str, nn.Module | None]:
    """A host's children as it knows them itself."""
    return {name: child for name, child in vars(host)["_modules"].items() if name != CHILD}


def _modules(self: nn.Module) -> dict[str, Any]:
    own = any(host is self for host in walking.hosts)
    return children_of(self) if own else vars(self)["_modules"]


def twin(host: Any) -> Any:
    """A plain container of the host's own children, for torch's methods to read."""
    kind = next(k for k in (nn.Sequential, nn.ModuleList, nn.ModuleDict) if isinstance(host, k))
    plain = kind()
    plain._modules = children_of(host)  # type: ignore[assignment]
    return plain


def _read(kind: type[nn.Module], name: str) -> Callable[..., Any]:
    def method(self: nn.Module, *args: Any) -> Any:
        return getattr(kind, name)(twin(self), *args)

    return method


READS = {
    nn.Sequential: ("__iter__", "__len__", "__getitem__"),
    nn.ModuleList: ("__iter__", "__len__", "__getitem__"),
    nn.ModuleDict: ("__iter__", "__len__", "__contains__", "keys", "values", "items"),
}


def unseen(cls: type[nn.Module]) -> dict[str, Any]:
    """What the swapped class of a walking host has besides, so that its walks pass over the deltas."""
    if not walks(cls):
        return {}
    kind = next((k for k in READS if issubclass(cls, k)), None)
    reads = [] if kind is None else [n for n in READS[kind] if getattr(cls, n) is getattr(kind, n)]
    return {"_modules": property(_modules)} | {n: _read(kind, n) for n in reads}  # type: ignore[arg-type]
