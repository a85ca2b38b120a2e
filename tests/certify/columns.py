"""The methods as they are certified: a column each, made from the METHODS table and the arguments of its classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import deltatune as dt
from deltatune.core import keyword_only
from tests.certify.architectures import Subject

TOKENS = (5, 6, 7)  # a prompt, and rows of a table, are of these
SMALL: dict[str, Any] = {"rank": 2, "width": 4, "length": len(TOKENS), "tokens": TOKENS}


@dataclass(frozen=True)
class Column:
    """A method with its hyperparameters; primed: started from the batch."""

    name: str
    method: type[dt.DeltaModule]
    hparams: dict[str, Any] = field(default_factory=dict)
    primed: bool = False

    def rule(self, subject: Subject) -> dt.Rule:
        small = {n: v for n, v in SMALL.items() if n in keyword_only(self.method)}
        return self.method.on("" if subject.alone else None, **(small | self.hparams))


def columns() -> list[Column]:
    """A column a method, and further forms of some."""
    plain = [Column(name, method) for name, method in dt.METHODS.items()]
    return [
        *plain,
        Column("Adapter-parallel", dt.Adapter, {"form": "parallel"}),
        Column("Prefix-primed", dt.Prefix, primed=True),
    ]
