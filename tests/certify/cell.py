"""One method on one model: right, refused with its reason, or wrong with the first law that is broken."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import Any

import deltatune as dt
from tests.certify.architectures import CannotBuild, Subject
from tests.certify.columns import Column
from tests.certify.laws import LAWS
from tests.certify.trial import Trial

Cell = dict[str, Any]
# What verify says of a delta that was put where it has no effect: the usual sites are at fault, so this is no refusal.
MISPLACED = re.compile(r"was never called|got no gradient|needs no gradient")


def certified(subject: Subject, column: Column, laws: Iterable[str] = LAWS) -> Cell:
    """outcome, law and message, words on what did not apply, seconds."""
    begun, trial = time.perf_counter(), Trial(subject, column)
    cell: Cell = {"outcome": "right", "law": "", "message": "", "notes": []}
    law = "inject"
    try:
        _ = trial.started
        for law in laws:
            word = LAWS[law](trial)
            if word:
                cell["notes"].append(f"{law}: {word}")
    except Exception as error:
        refused = isinstance(error, dt.DeltaError) and law in ("inject", "identity", "verified")
        if law != "inject" and MISPLACED.search(str(error)):
            refused = False
        kind = "" if isinstance(error, AssertionError | dt.DeltaError) else f"{type(error).__name__}: "
        cell |= {"outcome": "refused" if refused else "wrong", "law": law, "message": kind + first_line(error)}
    return cell | {"seconds": round(time.perf_counter() - begun, 2)}


def first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:600]


def attempt(make: Callable[[], Subject]) -> tuple[Subject | None, str]:
    """The subject, or why there is none."""
    try:
        return make(), ""
    except CannotBuild as error:
        return None, first_line(error)
    except Exception as error:
        return None, f"{type(error).__name__}: {first_line(error)}"
