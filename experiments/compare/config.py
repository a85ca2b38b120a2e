"""What a comparison is asked to do: its configuration, checked, and put into words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from experiments.compare.aggregate import RESAMPLES
from experiments.compare.rates import ChooseBy
from experiments.compare.statistics import ALPHA
from experiments.compare.summary import FULL

OURS = (
    "method",
    "model",
    "task",
    "out",
    "seed",
    "optim.lr",
    "optim.steps",
    "eval.part",
    "plugins",
)  # the keys that the comparison sets itself


@dataclass
class CompareConfig:
    model: str = "smollm2"  # a name of experiments/conf/model
    tasks: list[str] = field(default_factory=lambda: ["ha_json"])
    methods: list[str] = field(default_factory=lambda: ["lora", "adapter", "prefix", "bitfit", "ia3", FULL])
    trials: int = 3  # learning rates a method
    factor: float = 3.0  # the step from one rate to the next
    choose_by: ChooseBy = ChooseBy.loss  # a measure on the validation set; why: rates.py
    search_seed: int = 0
    first_seed: int = 1  # the search's is none of them: a rate that was lucky with its seed does not bring its luck
    seeds: int = 5
    steps: int = 250
    search_steps: int | None = 80  # None: as many as steps
    budget: int | None = None  # trainable parameters of every method that has a size
    plugins: list[str] = field(default_factory=list)  # modules, or files, of one's own that add methods, tasks, …
    shared: list[str] = field(default_factory=list)  # overrides of every run
    search: list[str] = field(default_factory=lambda: ["forgetting.enabled=false"])  # more, of the search's runs
    slots: int = 1  # runs at a time; their times mean most where one runs alone
    alpha: float = ALPHA
    margin: float | None = None  # differences below it are negligible; to be stated before the first run
    resamples: int = RESAMPLES  # what a bootstrap across tasks draws
    out: str = "runs"  # the folder of the runs
    name: str = MISSING
    results: str = MISSING  # the folder of what is written about them, from the checkout's root


def check(config: CompareConfig) -> None:
    """Raises ValueError for values that make no sense, naming the key."""
    least = {"trials": 1, "seeds": 1, "steps": 1, "slots": 1, "resamples": 100}
    for name, lowest in least.items():
        if getattr(config, name) < lowest:
            raise ValueError(f"{name}={getattr(config, name)}: must be at least {lowest}")
    if not config.factor > 1:
        raise ValueError(f"factor={config.factor}: must be above 1, the step from one learning rate to the next")
    if not 0 < config.alpha < 1:
        raise ValueError(f"alpha={config.alpha}: an error rate, above 0 and below 1")
    if config.margin is not None and not config.margin > 0:
        raise ValueError(f"margin={config.margin}: a difference in score that is negligible, above 0, or null for none")
    for name in ("tasks", "methods"):
        if not getattr(config, name) or len(set(getattr(config, name))) < len(getattr(config, name)):
            raise ValueError(f"{name}={getattr(config, name)}: name at least one, and each one once")
    if config.first_seed <= config.search_seed < config.first_seed + config.seeds:
        raise ValueError(f"search_seed={config.search_seed}: must be none of the seeds that are tested")
    for override in (*config.shared, *config.search):
        if override.split("=")[0].lstrip("+") in OURS:
            raise ValueError(f"{override}: the comparison sets this key itself, by a key of its own; see --help")


def plain(config: CompareConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True))


def how(config: CompareConfig) -> str:
    """The protocol in words, with its numbers."""
    by = "lowest loss" if config.choose_by is ChooseBy.loss else "best main metric, of two equal ones the lower loss,"
    last = config.first_seed + config.seeds - 1
    seeds = f"each of the seeds {config.first_seed} to {last}" if config.seeds > 1 else f"seed {config.first_seed}"
    budget = "" if config.budget is None else f" Sizes were solved for {config.budget:,} trainable parameters."
    at_once = f" {config.slots} runs at a time, which slow one another down." if config.slots > 1 else ""
    shared = f" Every run: {' '.join(config.shared)}." if config.shared else ""
    plugins = f" Plugins: {', '.join(config.plugins)}." if config.plugins else ""
    return (
        f"Made by `python -m experiments.compare`. Every method had {config.trials} learning rates, a factor of "
        f"{config.factor:g} apart around its default, each run for {config.search_steps or config.steps} steps with "
        f"seed {config.search_seed}; the one with the {by} on the validation set was chosen; nothing else was "
        f"searched. Then it ran for {config.steps} steps with {seeds}, and these runs alone saw the test set. A rate "
        f"that is best in short runs need not be best in longer ones.{budget}{shared}{plugins}{at_once}"
    )


def register() -> None:
    ConfigStore.instance().store(name="compare_schema", node=CompareConfig)
