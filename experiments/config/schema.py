"""The configuration of one run, as dataclasses; the yaml files in conf/ fill them and Hydra checks every type.

Choices are enums, so that a wrong word is refused with the list of right ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date
from enum import Enum
from typing import Any

from omegaconf import MISSING

from experiments.config.tasks import TaskConfig


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Dtype(Enum):
    bf16 = "bf16"
    fp32 = "fp32"


class Decay(Enum):
    constant = "constant"
    linear = "linear"
    cosine = "cosine"


class Trains(Enum):
    """What a method trains: its deltas, every weight of the model (full fine-tuning), or nothing."""

    deltas = "deltas"
    everything = "everything"
    nothing = "nothing"


class Pooling(Enum):
    """What a task head reads of an encoder: what the model's own class gives it, or the mean over the text's tokens."""

    own = "own"
    mean = "mean"


TODAY = "2026-01-01"  # the date that a chat template is told, whenever it is rendered: one configuration, one result
FILES = {Trains.deltas: "delta.safetensors", Trains.everything: "model.safetensors"}  # the file of what was trained


@dataclass
class ModelConfig:
    name: str = MISSING
    path: str | None = None  # a local directory or a hub id, where model=hf
    dtype: Dtype = Dtype.bf16
    pooling: Pooling = Pooling.own  # what a task head reads of an encoder
    revision: str | None = None  # a commit, tag or branch of a hub id; the commit that it was is in the result
    today: str = TODAY  # the date that a chat template which asks for one is told


@dataclass
class RuleConfig:
    method: str = MISSING  # a class name in dt.METHODS, or of a plugin
    where: str | None = None  # None: the method's usual sites
    hparams: dict[str, Any] = field(default_factory=dict)


@dataclass
class MethodConfig:
    name: str = MISSING
    lr: float = MISSING  # the default of optim.lr
    trains: Trains = Trains.deltas
    rules: list[RuleConfig] = field(default_factory=list)
    module: str | None = None  # a plugin that only defines classes of the rules
    baseline: bool = False  # what the methods have to beat, and no method of fine-tuning itself
    shots: int = 0  # training examples that stand, answered, before each prompt
    predictor: str | None = None  # what answers in the model's place: tfidf
    lr_from: str = ""  # where the default rate comes from, for a comparison's plan; no part of a run's key


@dataclass
class OptimConfig:
    lr: float = MISSING  # the delta's rate, or the base's where all of it is trained
    head_lr: float = 3e-2  # the rate of a new task head, which a method's own says nothing about
    steps: int = 60
    batch_size: int = 8  # examples an optimizer step
    micro_batch: int | None = None  # examples a forward; None: all, on a CPU those of like length; the same gradient
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup_steps: int | None = None  # steps of the rise to lr; None: 20, of a short training a third
    decay: Decay = Decay.linear
    clip: float = 1.0  # largest gradient norm
    max_length: int = 512  # tokens of an example, prompt and completion; longer prompts lose turns or sentences
    gradient_checkpointing: bool = False
    checkpoint_every: int = 50  # steps


class Part(Enum):
    """The examples that a run is scored on. val: a search's, so that nobody has seen the test set's scores by then."""

    test = "test"
    val = "val"


@dataclass
class EvalConfig:
    batch_size: int = 50
    max_new_tokens: int = 48
    points: int = 0  # how often, at log-spaced steps, the validation set is scored while training; 0: never
    point_examples: int = 50  # the first of the validation examples are scored so; 0: their loss alone
    stop_hopeless: bool = False  # end an answer that can score nothing any more: the same scores, shorter texts
    part: Part = Part.test
    spectra: bool = False  # whether singular values of ΔW are taken, which takes minutes at 135 M parameters


class Check(Enum):
    """What a fault in the data does: stop the run, warn, or nothing, since nobody looks."""

    error = "error"
    warn = "warn"
    off = "off"


@dataclass
class DataConfig:
    """The data gate and the replay of other tasks' examples."""

    check: Check = Check.error
    near_duplicates: bool = True
    replay: float = 0.0  # share of the training examples that come from replay_from; 0: none
    replay_from: list[str] = field(default_factory=lambda: ["general"])  # tasks


class LossOn(Enum):
    """Which turns of the assistant a chat teaches: the last one, which is asked for, or all of them."""

    last = "last"
    all = "all"


@dataclass
class ForgettingConfig:
    """Probes of what the model knew before, taken before and after the training."""

    enabled: bool = True
    # Corpora, each reported by itself: `prose`, `general`, jsonl files of {"text"}, tasks of texts. What is replayed is
    # of none of their sources; so the default is not `general`, which is replayed by default.
    texts: list[str] = field(default_factory=lambda: ["prose"])
    text: str | None = None  # what this key was before it was a list: it is refused
    n_text: int = 16  # texts of each corpus whose perplexity is taken
    n_kl: int = 8  # texts the base writes after those of each corpus, on which the tuned model is held against it
    tasks: list[str] = field(default_factory=list)  # other tasks to score, or jsonl files of their examples
    n_examples: int = 50  # test examples of each task
    along: bool = False  # whether the KL is taken at the steps of eval.points too, of a model that writes text


@dataclass
class SeedsConfig:
    """What chance decides, a stream of its own each: the run's `seed`, or a number that holds one of them fixed."""

    init: int | None = None  # the new parameters' first values
    order: int | None = None  # the order of the training examples
    dropout: int | None = None
    data: int | None = None  # which training examples are drawn, and the demonstrations of few_shot


STREAMS = tuple(each.name for each in fields(SeedsConfig))


@dataclass
class Config:
    model: ModelConfig = MISSING
    method: MethodConfig = MISSING
    task: TaskConfig = MISSING
    optim: OptimConfig = MISSING
    eval: EvalConfig = field(default_factory=EvalConfig)
    data: DataConfig = field(default_factory=DataConfig)
    forgetting: ForgettingConfig = field(default_factory=ForgettingConfig)
    plugins: list[str] = field(default_factory=list)  # modules, or files, of one's own that add methods, tasks, …
    objective: str | None = None  # a name in experiments/objectives; None: the one of the task's kind
    loss_on: LossOn = LossOn.last
    start_from: str | None = None  # the file of a delta, or of a whole model, that another run left: train it further
    track: list[str] = field(default_factory=list)  # tensorboard, wandb, mlflow, …: python -m experiments.list tracker
    seed: int = 0
    seeds: SeedsConfig = field(default_factory=SeedsConfig)
    device: Device = Device.auto
    threads: int | None = None  # CPU threads; None: torch's default
    out: str = "runs"  # the folder that holds the run's directory
    log_every: int = 10  # steps, or examples, between progress lines where there is no terminal


def plain(config: Config) -> dict[str, Any]:
    """The configuration as plain values, ready for JSON and yaml; an enum is its name.

    OmegaConf says the same and takes a hundred times as long, which a study of many runs waits for.
    """
    return _plain(config)


def _plain(value: Any, kind: Any = None) -> Any:
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name), each.type) for each in fields(value)}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and str(kind).startswith("float") else value


def check(config: Config) -> None:
    """Raises ValueError for a value of the right type that makes no sense, naming its key."""
    optim = config.optim
    at_least_one = {
        "optim.steps": optim.steps,
        "optim.batch_size": optim.batch_size,
        "optim.micro_batch": 1 if optim.micro_batch is None else optim.micro_batch,
        "optim.checkpoint_every": optim.checkpoint_every,
        "optim.max_length": optim.max_length,
        "eval.batch_size": config.eval.batch_size,
        "eval.max_new_tokens": config.eval.max_new_tokens,
        "log_every": config.log_every,
        "forgetting.n_text": config.forgetting.n_text,
        "forgetting.n_kl": config.forgetting.n_kl,
        "forgetting.n_examples": config.forgetting.n_examples,
        "threads": 1 if config.threads is None else config.threads,
    }
    for name, value in at_least_one.items():
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    if optim.warmup_steps is not None and not 0 <= optim.warmup_steps <= optim.steps:
        raise ValueError(
            f"optim.warmup_steps={optim.warmup_steps}: from 0 to optim.steps={optim.steps}; in more the rate would "
            "never be reached"
        )
    drawn = {f"seeds.{name}": getattr(config.seeds, name) for name in STREAMS}
    for name, value in {"seed": config.seed, "task.seed": config.task.seed, **drawn}.items():
        if value is not None and value < 0:
            raise ValueError(f"{name}={value}: a seed must not be below 0")
    sizes = {f"task.{each}": getattr(config.task, each, None) for each in ("n_train", "n_val", "n_test")}
    for name, value in sizes.items():
        if value is not None and value < 0:
            raise ValueError(f"{name}={value}: must not be below 0")
    try:
        date.fromisoformat(config.model.today)
    except ValueError:
        raise ValueError(f"model.today={config.model.today}: a date such as {TODAY}") from None
    points = {"eval.points": config.eval.points, "eval.point_examples": config.eval.point_examples}
    for name, value in {**points, "method.shots": config.method.shots}.items():
        if value < 0:
            raise ValueError(f"{name}={value}: must not be below 0")
    if config.forgetting.text is not None:
        raise ValueError(
            f"forgetting.text={config.forgetting.text}: several corpora can be probed, so the key is now a list: "
            f"'forgetting.texts=[{config.forgetting.text}]'"
        )
    if config.forgetting.along and not config.eval.points:
        raise ValueError("forgetting.along=true: it is taken at the steps of eval.points; say how many, eval.points=12")
    if config.forgetting.enabled and not config.forgetting.texts:
        raise ValueError("forgetting.texts=[]: name a corpus, such as prose, or say forgetting.enabled=false")
    if not 0 <= config.data.replay < 1:
        raise ValueError(f"data.replay={config.data.replay}: a share of the training examples, from 0 to below 1")
    for name, value in {"optim.lr": optim.lr, "optim.head_lr": optim.head_lr, "optim.clip": optim.clip}.items():
        if not value > 0:
            raise ValueError(f"{name}={value}: must be above 0")
