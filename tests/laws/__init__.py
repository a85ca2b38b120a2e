"""The laws that every method keeps on every host, each a function of a case and a host.

A method that is new joins by a `Case` that names its rules; nothing here knows the methods apart, but for what the
case itself declares.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.laws.algebra import (
    copies,
    eject_restores,
    fold_equals_call,
    heads_are_left_alone,
    identity_at_start,
    image,
    load_of_save,
    merge_is_for_good,
    plan_changes_nothing,
    state_dict_keeps_the_base,
    strength_zero_is_the_base,
    strengths_between,
)
from tests.laws.running import (
    base_runs_once,
    cache_is_invisible,
    checkpointing_is_equal,
    compiles_whole,
    kernels_are_invisible,
    modes_agree,
    only_deltas_get_gradients,
    padding_is_invisible,
    parameters_are_fp32,
)
from tests.support.cases import Case
from tests.support.hosts import Host

Law = Callable[[Case, Host], None]

LAWS: tuple[Law, ...] = (
    identity_at_start,
    plan_changes_nothing,
    heads_are_left_alone,
    fold_equals_call,
    merge_is_for_good,
    strength_zero_is_the_base,
    strengths_between,
    eject_restores,
    state_dict_keeps_the_base,
    load_of_save,
    copies,
    modes_agree,
    only_deltas_get_gradients,
    kernels_are_invisible,
    checkpointing_is_equal,
    base_runs_once,
    padding_is_invisible,
    cache_is_invisible,
    parameters_are_fp32,
)


def holds_on(law: Law, host: Host) -> bool:
    """Whether a law says anything of this host: not every one can be padded, or generates."""
    needs: dict[Law, bool] = {padding_is_invisible: host.pads, cache_is_invisible: host.generates}
    return needs.get(law, True)


__all__ = ["LAWS", "Law", "compiles_whole", "holds_on", "image"]
