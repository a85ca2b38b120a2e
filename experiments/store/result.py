"""Result files of runs, checked and flattened into rows: what tables, statistics, plots and the index are made from.

A file of this format is a run's result.json, or the small copy of one that `essentials` makes for the repository.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints

from experiments import ROOT

FORMAT = 2
HEAD = ("method", "model", "task", "seed", "lr", "steps", "batch_size", "key", "environment", "config")  # always there
NOT_IN_FILE = ("failure", "failure_kind", "file")
# The fields whose key in the file is not their own name.
KEYS = {
    "train_loss": "loss.train_last",
    "trainable": "parameters.trainable",
    "added": "parameters.added",
    "total": "parameters.total",
    "share": "parameters.share",
    "delta_bytes": "bytes.delta",
    "full_copy_bytes": "bytes.full_copy",
    "peak_bytes": "memory.peak_bytes",
    "training_peak_bytes": "memory.training_peak_bytes",
    "increase_bytes": "memory.training_increase_bytes",
    "switch_s": "cost.switch_s",
    "unmerged_tokens_per_s": "cost.generate_tokens_per_s.unmerged",
    "merged_tokens_per_s": "cost.generate_tokens_per_s.merged",
    "perplexity_before": "forgetting.text_perplexity.before",
    "perplexity_after": "forgetting.text_perplexity.after",
    "kl_per_token": "forgetting.kl_per_token",
    "feature_drift": "forgetting.feature_drift",
    "other_tasks": "forgetting.tasks",
    "device_peak_bytes": "memory.device_peak_bytes",
}
TRAINING = ("forward", "backward", "optimizer")  # the phases that are training itself
FOLDERS = re.compile(r"""(?<![\w.~/…:])/(?:[^\s/:'"]+/)+""")  # of an absolute path inside a text


class ReportError(ValueError):
    """A result file that cannot be shown; the message names the file and the key."""


@dataclass(frozen=True)
class Row:
    """One run. Where `failure` is None it is complete and every number was measured, None meaning does not apply."""

    method: str
    model: str
    task: str
    seed: int
    lr: float | None  # None for the untrained model
    steps: int
    batch_size: int
    failure: str | None = None
    failure_kind: str | None = None  # error, nan, oom or killed
    key: str = ""  # the hash of the configuration
    metric: str = ""  # the task's main one; higher is better
    quality: dict[str, float] = field(default_factory=dict)  # by metric, of the examples of `split`
    quality_by_part: dict[str, dict[str, float]] = field(default_factory=dict)  # by part, then by metric
    scores: tuple[float, ...] = ()  # main metric of every such example, in their order
    validation: dict[str, float] = field(default_factory=dict)  # by metric, and the loss
    train_loss: float | None = None
    n_test: int = 0
    trainable: int = 0
    added: int = 0  # trainable ones that the base model does not have
    total: int = 0
    share: float = 0.0
    delta_bytes: int = 0
    full_copy_bytes: int = 0
    peak_bytes: int = 0
    training_peak_bytes: int = 0
    increase_bytes: int = 0
    device_peak_bytes: int | None = None  # on an accelerator alone
    seconds: dict[str, float] = field(default_factory=dict)  # by phase; they sum to `total`, which is among them
    tokens_per_s: float = 0.0  # in training
    step_s: float = 0.0  # median
    flops: dict[str, float | None] = field(default_factory=dict)  # train, per_token
    switch_s: float | None = None
    unmerged_tokens_per_s: float | None = None
    merged_tokens_per_s: float | None = None
    forgetting: dict[str, Any] | None = None
    perplexity_before: float | None = None  # of general text
    perplexity_after: float | None = None
    kl_per_token: float | None = None  # nats, on text the base wrote
    feature_drift: float | None = None  # of an encoder, which has no perplexity
    other_tasks: dict[str, dict[str, Any]] | None = None  # before, after, metric by task
    data: dict[str, Any] = field(default_factory=dict)
    base: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None  # where it was read; `beside` finds the run's other files

    @property
    def score(self) -> float:
        """The result in the task's main metric."""
        return self.quality[self.metric]

    @property
    def split(self) -> str:
        """The examples that quality and scores are of: "test"; "validation" of a search for learning rates."""
        return "validation" if self.config.get("eval", {}).get("part") == "val" else "test"

    @property
    def untrained(self) -> bool:
        """Whether this is the model as it was, method `none`."""
        return self.failure is None and self.trainable == 0

    @property
    def train_s(self) -> float:
        """Seconds of training itself: forward, backward and optimizer."""
        return sum(self.seconds.get(phase, 0.0) for phase in TRAINING)

    @property
    def total_s(self) -> float:
        """The run's wall clock."""
        return self.seconds["total"]


HINTS = get_type_hints(Row)


def read(path: Path) -> dict[str, Any]:
    """The result file at `path` as it is, checked for being one of this format."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ReportError(f"{path}: not a readable result file ({error}); delete it and run again") from error
    found = result.get("format") if isinstance(result, dict) else None
    if found != FORMAT:
        raise ReportError(
            f"{path}: key 'format' is {found!r}, not {FORMAT}: another version made this file; "
            "delete it and run again, or read it with the version that made it"
        )
    if result.get("status") not in ("complete", "failed"):
        raise ReportError(f"{path}: key 'status' is {result.get('status')!r}, not 'complete' or 'failed'")
    return result


def row(path: Path) -> Row:
    """The result file at `path` as a row; a key that is missing or of the wrong type is an error that names it."""
    result = read(path)
    names = list(HEAD)
    if result["status"] == "complete":
        names = [item.name for item in fields(Row) if item.name not in NOT_IN_FILE]
        if "device_peak_bytes" not in (result.get("memory") or {}):  # a run on the CPU has none
            names.remove("device_peak_bytes")
    found: dict[str, Any] = {name: value(path, result, name) for name in names}
    found["file"] = path
    if result["status"] == "failed":
        found["failure"] = result.get("error") or "failed without a message"
        return Row(**found, failure_kind=value(path, result, "failure_kind"))
    if found["metric"] not in found["quality"]:
        raise ReportError(f"{path}: key 'quality' has no {found['metric']!r}, which key 'metric' names; run again")
    if "total" not in found["seconds"]:
        raise ReportError(f"{path}: key 'seconds.total' is missing; delete the file and run again")
    return Row(**found)


def value(path: Path, result: dict[str, Any], name: str) -> Any:
    """The value of the row's field out of the result, of the field's type; under a null lie nulls alone."""
    key, hint = KEYS.get(name, name), HINTS[name]
    inner: Any = result
    for part in key.split("."):
        if inner is None:
            break
        if not isinstance(inner, dict) or part not in inner:
            raise ReportError(f"{path}: key '{key}' is missing; delete the file and run again")
        inner = inner[part]
    if not fits(inner, hint):
        wanted = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
        raise ReportError(f"{path}: key '{key}' is {inner!r:.60}, not of type {wanted}; delete the file and run again")
    return tuple(cast(list, inner)) if get_origin(hint) is tuple else inner


def fits(found: Any, hint: Any) -> bool:
    """Whether a value out of JSON is of this type; a whole number is a float too, a bool is neither."""
    if hint is Any:
        return True
    if isinstance(hint, UnionType):
        return any(fits(found, each) for each in get_args(hint))
    if get_origin(hint) is dict:
        return isinstance(found, dict) and all(fits(each, get_args(hint)[1]) for each in found.values())
    if get_origin(hint) is tuple:
        return isinstance(found, list) and all(fits(each, get_args(hint)[0]) for each in found)
    if hint is NoneType:
        return found is None
    return isinstance(found, (int, float) if hint is float else hint) and not isinstance(found, bool)


def beside(path: Path, name: str) -> Path:
    """The run's file of this name: next to its result.json, or for a small x.result.json the file x.<name>."""
    return path.with_name(path.name.removesuffix("result.json") + name)


def lines(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl or predictions.jsonl; a line that is none is an error that names it."""
    records = []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path}: cannot be read ({error}); run again") from error
    # Not splitlines: a prediction may hold other signs that Unicode calls line ends.
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ReportError(f"{path}:{number}: not a JSON record ({error}); run again") from error
        if not isinstance(record, dict):
            raise ReportError(f"{path}:{number}: {type(record).__name__}, not a JSON record; run again")
        records.append(record)
    return records


def find(places: Iterable[Path]) -> list[Path]:
    """Every file whose name ends in result.json in or under the folders, in the order of their names.

    A place may be such a file itself.
    """
    places = list(places)
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise ReportError(f"{place}: no such folder; give the folder of a run or one that holds runs")
        found += sorted(place.rglob("*result.json")) if place.is_dir() else [place]
    if not found:
        raise ReportError(f"no result.json under {', '.join(map(str, places))}")
    return list(dict.fromkeys(found))


def essentials(result: dict[str, Any]) -> dict[str, Any]:
    """The result as a small file for the repository, which `row` reads all the same: without this machine's paths.

    A path in the checkout starts at `.`; of another, no more than the name is kept. Whole scores become integers.
    """
    small = {name: portable(each) for name, each in result.items()}
    small["config"] = {name: each for name, each in small["config"].items() if name not in ("out", "log_every")}
    if "scores" in small:
        small["scores"] = [int(each) if each == int(each) else each for each in small["scores"]]
    return small


def portable(found: Any) -> Any:
    """The value with every path in its strings shortened."""
    if isinstance(found, str):
        found = found.replace(str(ROOT), ".")
        if found.startswith("/") and ":" not in found:  # a path and nothing else, which may have spaces
            return f"…/{Path(found).name}"
        return FOLDERS.sub("…/", found)
    if isinstance(found, dict):
        return {portable(name): portable(each) for name, each in found.items()}
    return [portable(each) for each in found] if isinstance(found, list) else found
