"""The verbs that switch deltas: use until further notice, active for a block; and which names are there to switch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from torch import nn

from deltatune.core import DeltaError, NoMatch
from deltatune.host import Deltas, deltas_of, excuse, hosts, merged_strengths, names, record_of
from deltatune.strengths import enter, forget, leave


def use(model: nn.Module, /, *on: str, **strengths: float) -> None:
    """Which deltas are live, at what strength: use(m, "sql"), use(m, sql=1.0, chat=0.5); use(m) is the base.

    It holds until the next `use`, in every thread and task, where no `active` block says otherwise; those of this
    thread or task that are open say nothing of the model from here on. DistributedDataParallel, made of this model
    after this, waits for no gradient of what is off. Raises NoMatch for a name that is not injected, DeltaError where
    weights stand merged at another strength.
    """
    said = to_say(model, on, strengths)
    for carrier, each in said.items():
        carrier._strengths = each
    excuse(model)
    forget(said)


@contextmanager
def active(model: nn.Module, /, *on: str, **strengths: float) -> Iterator[None]:
    """`use` for a block, in this thread or task alone (and in tasks that it starts).

    Blocks may be left in any order: the last one entered and still open rules. A delta injected inside is on.
    """
    block = enter(to_say(model, on, strengths))
    try:
        yield
    finally:
        leave(block)


def to_say(model: nn.Module, on: tuple[str, ...], strengths: dict[str, float]) -> dict[Deltas, dict[str, float]]:
    """The strengths wanted, for each carrier of the model's deltas."""
    wanted = dict.fromkeys(on, 1.0) | strengths
    known(model, *wanted)
    said = {deltas_of(host): {n: float(wanted.get(n, 0.0)) for n in deltas_of(host)} for _, host in hosts(model)}
    for path, host in hosts(model):
        for n, s in merged_strengths(deltas_of(host)).items():
            if said[deltas_of(host)][n] != s:
                raise DeltaError(f"{path}: {n!r} stands merged in the weights at strength {s:g}; leave merged() first")
    return said


def refuse_merged(model: nn.Module, verb: str) -> None:
    """Raise where weights stand merged, which are not those that this verb is about."""
    for path, host in hosts(model):
        if inside := merged_strengths(deltas_of(host)):
            raise DeltaError(f"{path}: {', '.join(inside)} stands merged in the weights; leave merged() before {verb}")


def known(model: nn.Module, *given: str | None, whole: bool = True) -> None:
    """Raise NoMatch for a name that is not injected, and DeltaError for a delta, of these names or with None of any,
    that lost a host; whole=False: not for that."""
    there = names(model)
    for name in given:
        if name is not None and name not in there:
            raise NoMatch(f"no delta named {name!r} is injected; there are: {', '.join(there) or 'none'}")
    for name in there if None in given else cast("tuple[str, ...]", given):
        if whole:
            record_of(model, name)
