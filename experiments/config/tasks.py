"""The table of tasks, and the configuration of each as a dataclass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from experiments.config.table import PluginError, Table, first_line


@dataclass
class TaskConfig:
    name: str = MISSING
    seed: int = 0  # draws the data and its split; the run's seed does not


@dataclass
class HaJsonConfig(TaskConfig):
    n_train: int = 2000
    n_val: int = 100
    n_test: int = 200


@dataclass
class HaIntentConfig(TaskConfig):
    n_train: int = 2000
    n_val: int = 100
    n_test: int = 200


@dataclass
class MultilingualConfig(TaskConfig):
    n_train: int = 2400  # these are over all languages, in equal shares
    n_val: int = 120
    n_test: int = 480
    train_languages: list[str] = field(default_factory=lambda: ["en", "de", "es", "fr", "it", "nl"])
    transfer_languages: list[str] = field(default_factory=lambda: ["pt-BR", "sv"])  # languages that only the test has
    n_templates: int = 8  # the most that an intent has in a language


@dataclass
class SqlConfig(TaskConfig):
    n_train: int = 2000
    n_val: int = 100
    n_test: int = 200


@dataclass
class DomainConfig(TaskConfig):
    n_train: int = 800
    n_val: int = 100
    n_test: int = 200
    n_entities: int = 50  # terms that are learned, and as many that are not
    unseen: float = 0.2  # questions for terms that are not, reported apart, as a share of n_test


@dataclass
class SafetyConfig(TaskConfig):
    n_train: int = 500
    n_val: int = 60
    n_test: int = 160


@dataclass
class StyleConfig(TaskConfig):
    n_train: int = 1000
    n_val: int = 80
    n_test: int = 160


@dataclass
class InstructConfig(TaskConfig):
    n_train: int = 2000
    n_val: int = 100
    n_test: int = 200


@dataclass
class FilesConfig(TaskConfig):
    """Of records that lie in files."""

    n_train: int | None = None  # the records of a part; None: all, or what is usual to split off
    n_val: int | None = None
    n_test: int | None = None
    metric: str | None = None  # the main one; None: the usual one of the kind


@dataclass
class RecordsConfig(FilesConfig):
    """Of records that the user brings."""

    schema: str | None = None  # file of a JSON Schema that answers in JSON are held against
    database: str | None = None  # SQLite file that answers in SQL are executed on
    group: str | None = None  # field whose values never stand in two parts of a split
    part: str | None = None  # field by whose values quality is also reported


@dataclass
class JsonlConfig(RecordsConfig):
    train: str = MISSING  # files
    val: str | None = None  # None: a part of train, chosen by hash
    test: str | None = None


@dataclass
class HubConfig(RecordsConfig):
    path: str = MISSING  # a dataset's id on the hub, or its directory
    subset: str | None = None  # which one, where a dataset has several
    revision: str | None = None  # a commit or tag on the hub
    train: str = "train"  # splits
    val: str | None = None
    test: str | None = None
    fields: dict[str, str] = field(default_factory=dict)  # a record form's field: the dataset's column


@dataclass
class PublicConfig(FilesConfig):
    """Of a public dataset."""

    n_val: int | None = 100
    path: str | None = None  # a directory with files of the same columns; None: the hub
    train: str | None = None  # such a file for one part alone
    val: str | None = None  # the same
    test: str | None = None  # the same
    revision: str | None = None  # a commit or tag on the hub; None: the table's own, or the newest
    databases: str | None = None  # the directory of Spider's databases; None: database/ in task.path


@dataclass
class GeneralConfig(TaskConfig):
    n_train: int = 300
    n_val: int = 20
    n_test: int = 64


@dataclass(frozen=True)
class Task:
    """A task's keys, and what loads it: a module with load(config, seed) -> TaskData, or such a function."""

    config: type[TaskConfig]
    load: str | Callable[[Any, int], Any]
    about: str = ""  # what it is, where the docstring of load says that of several


# Datasets of the hub, which are loaded alike; their columns and sources: experiments/tasks/public/table.py.
PUBLIC = {
    "arc_challenge": "ARC's harder science questions, scored by likelihood",
    "arc_easy": "ARC's easier science questions, scored by likelihood",
    "boolq": "a yes or no to a question about a passage",
    "commonsense": "eight sets of commonsense questions together, as in LLM-Adapters",
    "e2e": "E2E NLG: a restaurant's facts -> a sentence",
    "glue_cola": "GLUE CoLA: whether a sentence is acceptable",
    "glue_mnli": "GLUE MNLI: whether a premise entails a hypothesis, matched and mismatched",
    "glue_mrpc": "GLUE MRPC: whether two sentences say the same",
    "glue_qnli": "GLUE QNLI: whether a sentence answers a question",
    "glue_qqp": "GLUE QQP: whether two questions are the same",
    "glue_rte": "GLUE RTE: whether a text entails another",
    "glue_sst2": "GLUE SST-2: whether a sentence of a film review is positive",
    "glue_stsb": "GLUE STS-B: how alike two sentences are, from 0 to 5",
    "glue_wnli": "GLUE WNLI: whether a pronoun was resolved rightly",
    "gsm8k": "GSM8K's word problems, trained on MetaMathQA; the numbers are compared",
    "hellaswag": "HellaSwag: how a scene goes on, scored by likelihood",
    "mmlu": "MMLU: questions of 57 subjects, scored by likelihood",
    "openbookqa": "OpenBookQA: elementary science, scored by likelihood",
    "piqa": "PIQA: which of two ways reaches a goal, scored by likelihood",
    "scitldr": "SciTLDR: a paper's abstract -> a summary of one sentence",
    "siqa": "Social IQa: what people do, feel or want, scored by likelihood",
    "spider": "Spider: a question over one of many databases -> SQL, executed",
    "tulu3": "Tulu 3's mixture of chats: the loss of the assistant's last turn",
    "winogrande": "WinoGrande: which of two fills a gap, scored by likelihood",
}
TASKS: Table[Task] = Table(
    "task",
    {
        "domain": Task(DomainConfig, "experiments.tasks.domain"),
        "general": Task(GeneralConfig, "experiments.tasks.general"),
        "ha_intent": Task(HaIntentConfig, "experiments.tasks.home.ha_intent"),
        "ha_json": Task(HaJsonConfig, "experiments.tasks.home.ha_json"),
        "hub": Task(HubConfig, "experiments.tasks.hub"),
        "instruct": Task(InstructConfig, "experiments.tasks.instruct.task"),
        "jsonl": Task(JsonlConfig, "experiments.tasks.jsonl"),
        "multilingual": Task(MultilingualConfig, "experiments.tasks.home.multilingual"),
        "safety": Task(SafetyConfig, "experiments.tasks.safety.task"),
        "sql": Task(SqlConfig, "experiments.tasks.sql.task"),
        "style": Task(StyleConfig, "experiments.tasks.style"),
        **{name: Task(PublicConfig, "experiments.tasks.public.task", about) for name, about in PUBLIC.items()},
    },
    about=lambda task: task.about or first_line(task.load),
)
Load = TypeVar("Load", bound=Callable[..., Any])


def task(name: str, config: type[TaskConfig]) -> Callable[[Load], Load]:
    """Add a task to the table, as a decorator of its load(config, seed). config: a dataclass of its keys."""
    if not (isinstance(config, type) and issubclass(config, TaskConfig) and is_dataclass(config)):
        raise PluginError(f"task {name!r}: {config!r} is no dataclass made from TaskConfig, which its keys need")

    def add(load: Load) -> Load:
        TASKS.add(name, Task(config, load))
        return load

    return add


def store_tasks() -> None:
    """Let Hydra know the group of tasks."""
    for name, each in TASKS.items():
        store_once(name, each.config, "task", name=name)


def store_once(entry: str, config: type, group: str | None = None, **values: Any) -> None:
    """Store a dataclass where Hydra looks for it, unless it lies there: to store all takes as long as to compose."""
    repo = ConfigStore.instance().repo
    stored = (repo if group is None else repo.get(group, {})).get(f"{entry}.yaml")
    if stored is None or OmegaConf.get_type(stored.node) is not config:
        ConfigStore.instance().store(group=group, name=entry, node=config(**values) if values else config)
