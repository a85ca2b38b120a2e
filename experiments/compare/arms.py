"""The arms of a comparison at their defaults, each composed once: of the search, and of the runs that are tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from experiments.compare.axes import FACTOR, HEAD_RATE, RATE, Axis, axes_of
from experiments.compare.baselines import fits, has_task_head
from experiments.compare.config import CompareConfig
from experiments.compare.summary import NONE
from experiments.config.schema import Trains
from experiments.sweep.arm import Arm

ENABLED = "forgetting.enabled"
PROBE = "head"  # the method that trains a task head alone


class Arms:
    """Arms by task and method. sizes: overrides that size a method for a budget."""

    def __init__(self, config: CompareConfig, sizes: Mapping[str, Sequence[str]] | None = None) -> None:
        self.config, self.sizes = config, sizes or {}
        self.plugins = (f"plugins=[{','.join(config.plugins)}]",) if config.plugins else ()
        self._composed: dict[tuple[str, ...], Arm] = {}

    def arm(self, task: str, method: str, more: Sequence[str]) -> Arm:
        config = self.config
        given = (f"model={config.model}", f"task={task}", f"method={method}", *self.sizes.get(method, ()))
        steps = f"optim.steps={config.steps}"
        words = (*given, steps, *self.plugins, *config.shared, *more, f"out={config.out}")
        return self._composed.setdefault(words, Arm(words))

    def searched(self, task: str, method: str) -> Arm:
        """The arm of the search: scored on the validation set, so that nothing of the test set can be known of it."""
        given = self.config.search
        if self.config.frontier:
            given = [*(word for word in given if word.split("=")[0] != ENABLED), f"{ENABLED}=true"]
        return self.arm(task, method, (*given, "eval.part=val"))

    def tested(self, task: str, method: str) -> Arm:
        along = ("forgetting.along=true",) if self.config.frontier else ()
        return self.arm(task, method, (f"eval.points={self.config.points}", *along))

    def timed(self, task: str, method: str) -> Arm:
        """The arm of a short run for its time and memory, of which no score is read."""
        more = ("forgetting.enabled=false", "eval.part=val", f"optim.steps={self.config.timing_steps}")
        return self.arm(task, method, more)

    @cached_property
    def task_head(self) -> bool:
        """Whether the model ends in a head for the task."""
        return has_task_head(self.searched(self.config.tasks[0], self.methods[0]).config.model)

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods that are compared."""
        return tuple(method for method in self.config.methods if method != NONE)

    @cached_property
    def baselines(self) -> tuple[str, ...]:
        """The baselines that fit the model."""
        task = self.config.tasks[0]
        named = dict.fromkeys(self.config.baselines)
        return tuple(name for name in named if fits(self.tested(task, name).config.method, self.task_head))

    @property
    def probes(self) -> bool:
        """Whether a linear probe is searched for the rate of the task head."""
        return self.task_head and self.config.head_lr is None

    def axes(self, task: str, method: str) -> tuple[Axis, ...]:
        """The axes of the method's search; those of the probe are the rate of the head alone."""
        config = self.searched(task, method).config
        if config.method.trains is Trains.nothing:
            raise ValueError(f"methods: {method!r} trains nothing; name it among the baselines")
        if method == PROBE:
            return axes_of({HEAD_RATE: self.config.varied.get(RATE, {"factor": FACTOR})}, config)
        return axes_of(self.config.varied, config)
