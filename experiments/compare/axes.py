"""What a search varies: keys of a run, each over a list of values or over a log grid around the method's own value.

An axis has places: 0 is the method's default, 1 the next value up, −1 the next one down. A log grid has no end, and
between two of its places lie others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.compare.budget import resized, sizes_of
from experiments.config.keys import value_at
from experiments.config.schema import Config, Trains

RATE, HEAD_RATE = "optim.lr", "optim.head_lr"
SIZE = "size"  # the method's rank, width or length, whichever it has; alpha keeps its proportion to the rank
FACTOR = 3.0


@dataclass(frozen=True)
class Axis:
    """One axis of a method's search. grid: its values; None: a log grid, a factor from each to the next."""

    name: str
    default: Any
    grid: tuple[Any, ...] | None = None
    factor: float = FACTOR

    @property
    def start(self) -> int:
        """Where the default stands in the grid; without it there, the middle."""
        assert self.grid is not None
        return self.grid.index(self.default) if self.default in self.grid else (len(self.grid) - 1) // 2

    def value(self, place: float) -> Any:
        """The value at the place; None where there is none. A rate has two digits: 3.3e-4, not a third of 1e-3."""
        if self.grid is not None:
            at = self.start + place
            return self.grid[int(at)] if at == int(at) and 0 <= at < len(self.grid) else None
        if place == 0:
            return self.default
        if isinstance(self.default, int):
            inner = place - 1 if place > 0 else place + 1  # the next place towards the default
            value = round(self.default * self.factor**place)
            return value if value >= 1 and value != round(self.default * self.factor**inner) else None
        return float(f"{self.default * self.factor**place:.2g}")

    def words(self) -> Any:
        """The axis as the plan has it."""
        if self.grid is not None:
            return {"default": self.default, "grid": list(self.grid)}
        return {"default": self.default, "factor": self.factor}


def check_axis(name: str, given: Any) -> None:
    """Raises ValueError for an axis that makes no sense, naming it."""
    if isinstance(given, Mapping) and set(given) == {"factor"}:
        if not (isinstance(given["factor"], (int, float)) and given["factor"] > 1):
            raise ValueError(f"axes.{name}.factor={given['factor']}: must be above 1, the step to the next value")
    elif not (isinstance(given, (list, tuple)) and given and len(set(map(repr, given))) == len(given)):
        raise ValueError(f"axes.{name}={given}: give a list of values, each one once, or {{factor: 3}}, or null")


def axes_of(axes: Mapping[str, Any], config: Config) -> tuple[Axis, ...]:
    """The axes of config's method, its rate the first; an axis that the method does not have is left out."""
    made = []
    for name in sorted(axes, key=lambda name: name != RATE):
        keys = keys_of(name, config)
        if not keys:
            continue
        default = largest(config) if name == SIZE else value_at(config, keys[0])
        given = axes[name]
        if isinstance(given, Mapping):
            if not isinstance(default, (int, float)) or not default > 0:
                raise ValueError(
                    f"axes.{name}: {config.method.name} has {default!r} there, which no log grid is around; give a list"
                )
            made.append(Axis(name, default, factor=float(given["factor"])))
        else:
            made.append(Axis(name, default, tuple(given)))
    return tuple(made)


def keys_of(name: str, config: Config) -> list[str]:
    """The run's keys that an axis sets: of one with a * those of all rules that have it."""
    if name == SIZE:
        sized = config.method.trains is Trains.deltas and sizes_of(config.method)
        return [f"method.rules.{i}.hparams.{hparam}" for i, hparam in sizes_of(config.method).items()] if sized else []
    if "*" not in name:
        value_at(config, name)
        return [name]
    keys = [re.sub(r"\*", str(i), name, count=1) for i in range(len(config.method.rules))]
    return [key for key in keys if there(config, key)]


def there(config: Config, key: str) -> bool:
    try:
        value_at(config, key)
    except ValueError:
        return False
    return True


def largest(config: Config) -> int:
    """The method's size: the largest, where several rules have one."""
    return max(config.method.rules[i].hparams[name] for i, name in sizes_of(config.method).items())


def settings(axis: Axis, value: Any, config: Config) -> dict[str, Any]:
    """The run's keys and what the axis sets them to at this value."""
    if axis.name == SIZE:
        return {f"method.rules.{i}.hparams.{name}": each for (i, name), each in resized(config.method, value).items()}
    return dict.fromkeys(keys_of(axis.name, config), value)
