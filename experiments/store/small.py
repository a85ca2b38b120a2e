"""The small copy of a result for the repository, which names no path of this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from experiments import ROOT
from experiments.store.result import Result, plain

FOLDERS = re.compile(r"""(?<![\w.~/…:])/(?:[^\s/:'"]+/)+""")  # an absolute path inside a text


def essentials(result: Result) -> dict[str, Any]:
    """The result as a small file for the repository, which `read` reads all the same: without this machine's paths.

    A path in the checkout starts at `.`; of another, no more than the name is kept. Whole scores become integers.
    """
    small = portable(plain(result))
    small["config"] = {name: each for name, each in small["config"].items() if name not in ("out", "log_every")}
    if "scores" in small:
        small["scores"] = [int(each) if each == int(each) else each for each in small["scores"]]
    return small


def portable(value: Any) -> Any:
    """The value with every path in its strings shortened."""
    if isinstance(value, str):
        value = value.replace(str(ROOT), ".")
        if value.startswith("/") and ":" not in value:  # a path and nothing else, which may have spaces
            return f"…/{Path(value).name}"
        return FOLDERS.sub("…/", value)
    if isinstance(value, dict):
        return {portable(name): portable(each) for name, each in value.items()}
    return [portable(each) for each in value] if isinstance(value, list) else value
