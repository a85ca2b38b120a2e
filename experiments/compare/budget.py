"""An equal number of trainable parameters for every method: its rank, width or length, solved from the plan.

Sizes are counted by dt.plan on a model without weights (torch's meta device), so nothing is loaded and nothing trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from experiments.config.schema import Config, MethodConfig, Trains

SIZES = ("rank", "width", "length")


@dataclass(frozen=True)
class Sized:
    """A method at the size nearest to the budget. size: None for a method that has none to choose."""

    overrides: tuple[str, ...]
    size: int | None
    parameters: int | None  # counted by the plan, without a classifier's new head; None where nothing was counted

    @property
    def note(self) -> str:
        """What the reader of the table must know."""
        return "has no size to choose, so it does not meet the budget" if self.size is None else ""


def sizes_of(method: MethodConfig) -> dict[int, str]:
    """The name of the size by the number of its rule, as its configuration gives it."""
    return {i: name for i, rule in enumerate(method.rules) for name in SIZES if name in rule.hparams}


def resized(method: MethodConfig, size: int) -> dict[tuple[int, str], int | float]:
    """The hyperparameters of every rule, by (rule, name), where the method's largest size becomes `size`.

    Other sizes keep their proportion to it, and alpha its proportion to the rank, so that LoRA's scale stays.
    """
    names = sizes_of(method)
    largest = max(method.rules[i].hparams[name] for i, name in names.items())
    values: dict[tuple[int, str], int | float] = {}
    for i, name in names.items():
        hparams = method.rules[i].hparams
        values[i, name] = max(1, round(size * hparams[name] / largest))
        if name == "rank" and "alpha" in hparams:
            values[i, "alpha"] = float(f"{hparams['alpha'] * values[i, name] / hparams[name]:.6g}")
    return values


def solve(config: Config, budget: int) -> Sized:
    """The size of config's method whose trainable parameters come nearest to the budget."""
    method = config.method
    if method.trains is not Trains.deltas or not sizes_of(method):
        return Sized((), None, None)
    count = counter(config)
    size = nearest(count, budget)
    values = resized(method, size)
    overrides = tuple(f"method.rules.{i}.hparams.{name}={value}" for (i, name), value in values.items())
    return Sized(overrides, size, count(size))


def nearest(count: Callable[[int], int], budget: int) -> int:
    """The size, from 1, whose count is nearest to the budget; counts rise with the size, about linearly."""
    first, second = count(1), count(2)
    size = max(1, 1 + (budget - first) // max(1, second - first))
    while count(size) < budget:
        size += 1
    while size > 1 and count(size - 1) >= budget:
        size -= 1
    # Here size is the smallest that reaches the budget, or 1.
    return size - 1 if size > 1 and budget - count(size - 1) <= count(size) - budget else size


def counter(config: Config) -> Callable[[int], int]:
    """A function from the method's size to its number of parameters in config's model."""
    import deltatune as dt  # torch and transformers, which take seconds, for budgets alone
    from experiments.models.load import skeleton
    from experiments.models.method import method_class

    model = skeleton(config.model)
    counted: dict[int, int] = {}

    def count(size: int) -> int:
        if size not in counted:
            values = resized(config.method, size)
            rules = []
            for i, rule in enumerate(config.method.rules):
                new = {name: value for (at, name), value in values.items() if at == i}
                rules.append(method_class(config.method, rule.method).on(rule.where, **{**rule.hparams, **new}))
            counted[size] = dt.plan(model, *rules).parameters
        return counted[size]

    return count
