"""A tracker that one of accelerate's carries out."""

from __future__ import annotations

import importlib
import os
import threading
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from experiments.training.tracker import About, Tracker

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

STATE = threading.Lock()  # every tracker has a thread, and the first of them makes accelerate's state


class Accelerated(Tracker):
    """A tracker that one of accelerate's, its `peer`, carries out."""

    modules: tuple[str, ...]  # imported before the run begins: the first that is there
    environment: dict[str, str] = {}  # variables by which nothing leaves the machine; those that are set stay

    def __init__(self, about: About) -> None:
        super().__init__(about)
        for variable, value in self.environment.items():
            os.environ.setdefault(variable, value)
        importlib.import_module("accelerate.tracking")
        self.package: Any = import_first(self.modules)

    @abstractmethod
    def opened(self, first: int) -> GeneralTracker:
        """The peer, which has not started."""

    def start(self, first: int) -> None:
        from accelerate import PartialState

        with STATE:
            PartialState(cpu=True)  # accelerate's own messages ask it whether to be shown
        self.peer: Any = self.opened(first)
        self.peer.start()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.peer.log(metrics, step=step)

    def finish(self, summary: dict[str, float], error: str | None) -> None:
        if summary:  # a failed run has none
            self.peer.log(summary)
        if error is not None:
            self.peer.log({"error": error})
        self.peer.finish()

    def project(self, variable: str) -> str:
        """The project that the variable names, by default this one."""
        return os.environ.get(variable) or "deltatune"


def import_first(modules: tuple[str, ...]) -> Any:
    """The first module that can be imported. Raises ImportError with what happened to each."""
    errors = []
    for module in modules:
        try:
            return importlib.import_module(module)
        except Exception as error:  # a broken installation raises anything
            errors.append(f"{module}: {type(error).__name__}: {error}")
    raise ImportError("; ".join(errors))
