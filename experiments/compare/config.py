"""What a comparison is asked to do: its configuration, checked, and put into words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from experiments.compare.aggregate import RESAMPLES
from experiments.compare.axes import FACTOR, RATE, check_axis
from experiments.compare.search import Terms
from experiments.compare.statistics import ALPHA
from experiments.compare.summary import FULL, NONE
from experiments.compare.trials import ChooseBy
from experiments.config.schema import STREAMS

BASELINES = (NONE, "few_shot", "head", "tfidf")
OURS = (
    *("method", "model", "task", "out", "seed", "plugins"),
    *("optim.lr", "optim.head_lr", "optim.steps", "eval.part", "eval.points", "forgetting.along"),
)  # the keys that the comparison sets itself


class Sources(Enum):
    """What is done about runs of the same settings that other versions of the sources made.

    rerun: they are listed and left out, and the runs are carried out again. refuse: nothing starts.
    """

    rerun = "rerun"
    refuse = "refuse"


@dataclass
class CompareConfig:
    model: str = "smollm2"  # a name of experiments/conf/model
    tasks: list[str] = field(default_factory=lambda: ["ha_json"])
    methods: list[str] = field(default_factory=lambda: ["lora", "adapter", "prefix", "bitfit", "ia3", FULL])
    baselines: list[str] = field(default_factory=lambda: list(BASELINES))  # those of them that fit the model
    # the search, on the validation set
    axes: Any = None  # what is varied beside the rate, by key: a list, or {factor: 2} of a log grid, or null
    trials: int = 5  # settings that every method tries
    cap: int = 9  # the most that one may try, to have something on both sides of its best
    halving: list[float] = field(default_factory=lambda: [1.0])  # rungs, shares of the steps; the last is all
    keep: float = 1 / 3  # the share of a rung's trials that goes on to the next
    search_seeds: list[int] = field(default_factory=lambda: [101, 102, 103])  # none of those that are tested
    finalists: int | None = 2  # trials, the best by the first seed, that get the other seeds; None: all
    choose_by: ChooseBy = ChooseBy.loss  # a measure on the validation set; why: trials.py
    head_lr: float | None = None  # a new task head's, for all methods; None: that of a linear probe, which is searched
    search: list[str] = field(default_factory=lambda: ["forgetting.enabled=false"])  # more overrides of its runs
    # the runs that are tested
    first_seed: int = 1
    seeds: int = 5
    steps: int = 250
    points: int = 12  # how often the validation set is scored along the training
    budget: int | None = None  # trainable parameters of every method that has a size
    shared: list[str] = field(default_factory=list)  # overrides of every run, the search's too
    # what is made of them
    margin: Any = None  # the largest difference that does not matter, in the metric's unit: a number, or one by task
    frontier: bool = False  # whether quality is held against forgetting, at all rates and along the training
    frontier_by: ChooseBy = ChooseBy.metric  # what quality is there; the loss is finer, and no metric's floor hides it
    kl_margin: float | None = None  # the largest difference in KL, nats a token, that does not matter
    level: float = 0.95  # a share of full's last score: steps and seconds to it are counted
    expected_sd: Any = None  # a score's standard deviation over seeds, from earlier studies: a number, or one by task
    alpha: float = ALPHA
    resamples: int = RESAMPLES  # what a bootstrap across tasks draws
    plugins: list[str] = field(default_factory=list)  # modules, or files, of one's own that add methods, tasks, …
    sources: Sources = Sources.rerun  # what is done about runs that other versions of the sources made
    slots: int = 1  # runs at a time
    timing_steps: int = 20  # where runs shared the machine, each arm takes so many alone, for time and memory; 0: none
    out: str = "runs"  # the folder of the runs
    name: str = MISSING
    results: str = MISSING  # the folder of what is written about them, from the checkout's root

    @property
    def varied(self) -> dict[str, Any]:
        """The axes with the rate, which is one of them unless `axes` says null of it."""
        given = {RATE: {"factor": FACTOR}} | (self.axes or {})
        return {name: each for name, each in given.items() if each is not None}

    @property
    def test_seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def terms(self) -> Terms:
        """What is the same for the search of every method."""
        finalists = self.cap if self.finalists is None else self.finalists
        seeds, rungs = tuple(self.search_seeds), tuple(self.halving)
        return Terms(self.trials, self.cap, seeds, rungs, self.keep, finalists, self.choose_by)


def of_task(value: Any, task: str) -> float | None:
    """The task's number of a key that has one for all tasks, or one for each."""
    return value.get(task) if isinstance(value, Mapping) else value


def check(config: CompareConfig) -> None:
    """Raises ValueError for values that make no sense, naming the key."""
    least = {"trials": 1, "seeds": 1, "steps": 1, "slots": 1, "resamples": 100, "points": 0, "timing_steps": 0}
    for name, lowest in least.items():
        if getattr(config, name) < lowest:
            raise ValueError(f"{name}={getattr(config, name)}: must be at least {lowest}")
    check_search(config)
    for name, most in {"alpha": 0.5, "level": 1}.items():
        if not 0 < getattr(config, name) < most:
            raise ValueError(f"{name}={getattr(config, name)}: must be above 0 and below {most}")
    for name in ("tasks", "methods"):
        if not getattr(config, name) or len(set(getattr(config, name))) < len(getattr(config, name)):
            raise ValueError(f"{name}={getattr(config, name)}: name at least one, and each one once")
    if twice := sorted({*config.methods} & {*config.baselines} - {NONE}):
        raise ValueError(f"methods, baselines: {', '.join(twice)} is in both; leave it out of one")
    if {*config.methods} == {NONE}:
        raise ValueError(f"methods=[{NONE}]: name a method that trains something; {NONE} is a baseline")
    for name in ("margin", "expected_sd"):
        given = getattr(config, name)
        if isinstance(given, Mapping) and (strange := sorted({*given} - {*config.tasks}) or not given):
            raise ValueError(f"{name}={dict(given)}: {strange} is none of the tasks {', '.join(config.tasks)}")
        for task in config.tasks:
            number = of_task(given, task)
            if number is not None and not positive(number):
                raise ValueError(f"{name}={number!r}: a number above 0, or one by task, {{{task}: 0.02}}")
    if config.frontier and not config.points:
        raise ValueError("frontier=true, points=0: the frontier has points along the training; say how many, points=12")
    if config.kl_margin is not None and not positive(config.kl_margin):
        raise ValueError(f"kl_margin={config.kl_margin}: must be above 0, or null for no margin")
    for override in (*config.shared, *config.search):
        key, _, value = override.lstrip("+").partition("=")
        if key in OURS or (value.startswith("{") and any(ours.startswith(f"{key}.") for ours in OURS)):
            raise ValueError(f"{override}: the comparison sets this key itself, by a key of its own; see --help")
    if all(any(override.startswith(f"seeds.{name}=") for override in config.shared) for name in STREAMS):
        raise ValueError("shared: every stream of chance is held fixed, so the seeds would be one; leave one to vary")


def positive(number: Any) -> bool:
    """Whether it is a finite number above 0."""
    return isinstance(number, (int, float)) and not isinstance(number, bool) and 0 < number < inf


def check_search(config: CompareConfig) -> None:
    """The same of the keys of the search."""
    if config.cap < config.trials:
        raise ValueError(f"cap={config.cap}: must be at least trials={config.trials}, which every method has")
    if config.finalists is not None and config.finalists < 1:
        raise ValueError(f"finalists={config.finalists}: must be at least 1, or null for every trial")
    rungs = config.halving
    if not rungs or rungs[-1] != 1 or rungs[0] <= 0 or rungs != sorted(set(rungs)):
        raise ValueError(f"halving={rungs}: shares of the steps that rise to 1.0, the last rung, of full length")
    if not 0 < config.keep < 1:
        raise ValueError(f"keep={config.keep}: a share of a rung's trials, above 0 and below 1")
    seeds = config.search_seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"search_seeds={seeds}: name at least one, and each one once")
    if tested := sorted(set(seeds) & set(config.test_seeds)):
        raise ValueError(f"search_seeds={seeds}: must be none of the seeds that are tested, and {tested[0]} is one")
    if config.head_lr is not None and not config.head_lr > 0:
        raise ValueError(f"head_lr={config.head_lr}: must be above 0")
    if not isinstance(config.axes, (Mapping, type(None))):
        raise ValueError(
            f"axes={config.axes}: must be a mapping, {{optim.warmup_steps: [0,20], optim.lr: {{factor: 2}}}}"
        )
    for name, given in config.varied.items():
        check_axis(name, given)
        if name in set(OURS) - {RATE}:
            raise ValueError(f"axes.{name}: the comparison sets this key itself, by a key of its own; see --help")


def plain(config: CompareConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True))


def how(config: CompareConfig) -> str:
    """The protocol in words, with its numbers."""
    by = "lowest loss" if config.choose_by is ChooseBy.loss else "best main metric, of two equal ones the lower loss,"
    axes = ", ".join(config.varied) or "nothing"
    seeds, n = config.test_seeds, len(config.search_seeds)
    tested = f"each of the seeds {seeds[0]} to {seeds[-1]}" if config.seeds > 1 else f"seed {seeds[0]}"
    rungs = " and ".join(f"{share:g}" for share in config.halving[:-1])
    halving = f" Trials began at {rungs} of the steps, and the best went on." if rungs else ""
    others = "all of them" if config.finalists is None else f"the best {config.finalists}"
    few = " Fewer than three seeds choose poorly." if n < 3 else ""
    budget = "" if config.budget is None else f" Sizes were solved for {config.budget:,} trainable parameters."
    at_once = f" {config.slots} runs at a time, which slow one another down." if config.slots > 1 else ""
    shared = f" Every run: {' '.join(config.shared)}." if config.shared else ""
    plugins = f" Plugins: {', '.join(config.plugins)}." if config.plugins else ""
    return (
        f"Made by `python -m experiments.compare`. Every method tried {config.trials} settings of {axes}, and went on, "
        f"to {config.cap} at most, until one was tried on both sides of its best.{halving} Of {n} search seeds, the "
        f"first ran every setting and the others {others}; the one with the {by} on the validation set, in the mean, "
        f"was chosen.{few} Then it ran for {config.steps} steps with {tested}, and these runs alone saw the test set."
        f"{budget}{shared}{plugins}{at_once}"
    )


def register() -> None:
    ConfigStore.instance().store(name="compare_schema", node=CompareConfig)
