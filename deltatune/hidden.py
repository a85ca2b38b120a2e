"""The hidden state in what a host is given and in what it returns: one tensor among others, and how to put another."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from deltatune.core import DeltaError

Put = Callable[[Tensor], Any]


class Hidden(NamedTuple):
    """The hidden state, and `put`, which gives what held it with another in its place."""

    x: Tensor
    put: Put


def given(first: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hidden:
    """The hidden state of a call: its first input, or, where that is a mask or no tensor, the first of numbers.

    put gives (args, kwargs). Raises DeltaError where no input is a tensor.
    """
    inputs: dict[int | str, Any] = {**dict(enumerate(args)), **kwargs}
    names = list(inputs) if args or first not in kwargs else [first, *(n for n in kwargs if n != first)]
    states = {n: state for n in names if (state := state_of(inputs[n])) is not None}
    main = names[0] if names else None
    if main not in states or states[main].x.dtype.itemsize == 1:  # a mask
        main = next((n for n, s in states.items() if s.x.is_floating_point()), next(iter(states), None))
    if main is None:
        raise DeltaError(f"the host was called without its first input {first!r}; its deltas have nothing to read")

    def put(x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        changed = {**inputs, main: states[main].put(x)}
        return tuple(changed[i] for i in range(len(args))), {n: changed[n] for n in kwargs}

    return Hidden(states[main].x, put)


def state_of(value: Any) -> Hidden | None:
    """An input as a hidden state: a tensor, or the rows of a packed sequence."""
    if isinstance(value, Tensor):
        return Hidden(value, lambda x: x)
    return Hidden(value.data, lambda x: value._replace(data=x)) if isinstance(value, PackedSequence) else None


def returned(value: Any) -> Hidden:
    """The hidden state in what a host returned: the tensor itself, or the first of numbers, of at least one axis, in a
    tuple, list or dict (a model's output is one). Raises DeltaError where there is none.
    """
    found = search(value)
    if found is None:
        raise DeltaError(
            f"the host returned {type(value).__name__}; a delta changes a tensor, or the first one in a tuple, list or "
            "dict: choose a module inside it as the host"
        )
    return found


def search(value: Any) -> Hidden | None:
    state = state_of(value)
    if state is not None:
        return state if state.x.dim() and state.x.is_floating_point() else None
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (tuple, list)) else ()
    for key, entry in entries:
        if (state := search(entry)) is not None:
            return Hidden(state.x, lambda x, key=key, state=state: put_at(value, key, state.put(x)))
    return None


def put_at(value: Any, key: Any, entry: Any) -> Any:
    """A copy of a tuple, list or dict with another entry; of its own type, named tuples and model outputs included."""
    if isinstance(value, tuple):
        entries = [entry if i == key else each for i, each in enumerate(value)]
        return value._make(entries) if hasattr(value, "_make") else type(value)(entries)  # type: ignore[attr-defined]
    changed = copy.copy(value)
    changed[key] = entry
    return changed
