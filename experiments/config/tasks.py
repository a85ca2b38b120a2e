"""The configuration of every task, as dataclasses; `config` has the rest of a run's."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class TaskConfig:
    name: str = MISSING
    seed: int = 0  # of the data and its split, apart from the run's seed


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
    transfer_languages: list[str] = field(default_factory=lambda: ["pt-BR", "sv"])  # in the test alone
    n_templates: int = 8  # at most, of an intent in a language


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
    unseen: float = 0.2  # share of the test part that asks for terms that are not


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
class RecordsConfig(TaskConfig):
    """Of records that the user brings."""

    n_train: int | None = None  # the records of a part; None: all, or what is usual to split off
    n_val: int | None = None
    n_test: int | None = None
    metric: str | None = None  # the main one; None: the usual one of the kind
    schema: str | None = None  # file of a JSON Schema that answers in JSON are held against
    database: str | None = None  # SQLite file that answers in SQL are executed on
    group: str | None = None  # field whose values never stand in two parts of a split
    part: str | None = None  # field by whose values quality is also reported


@dataclass
class JsonlConfig(RecordsConfig):
    train: str = MISSING  # files
    val: str | None = None  # without one, a part of train by hash
    test: str | None = None


@dataclass
class HubConfig(RecordsConfig):
    path: str = MISSING  # of a dataset: an id on the hub, or a directory
    subset: str | None = None  # of a dataset that has several
    revision: str | None = None  # a commit or tag on the hub
    train: str = "train"  # splits
    val: str | None = None
    test: str | None = None
    fields: dict[str, str] = field(default_factory=dict)  # a record form's field: the dataset's column


@dataclass
class GeneralConfig(TaskConfig):
    n_train: int = 300
    n_val: int = 20
    n_test: int = 64


TASK_CONFIGS: dict[str, type[TaskConfig]] = {
    "domain": DomainConfig,
    "general": GeneralConfig,
    "ha_intent": HaIntentConfig,
    "ha_json": HaJsonConfig,
    "hub": HubConfig,
    "instruct": InstructConfig,
    "jsonl": JsonlConfig,
    "multilingual": MultilingualConfig,
    "safety": SafetyConfig,
    "sql": SqlConfig,
    "style": StyleConfig,
}
