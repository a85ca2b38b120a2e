"""What a model is probed with: corpora of plain text, and other tasks' examples, each by an entry of the configuration.

A corpus is `prose`, passages of five novels and treatises whose authors died over 70 years ago, which the package
brings; `general`, the test part of that task; a jsonl file of {"text"}; or a task of texts, such as
"hub task.path=a/b task.test=test". Another task is a task, or a jsonl file, all of whose records are then its test.
"""

from __future__ import annotations

from pathlib import Path

from experiments.config.compose import task_config
from experiments.config.tasks import JsonlConfig
from experiments.data.sources import file_of
from experiments.tasks import general, jsonl, load_task
from experiments.tasks.base import Example, TaskData, TaskError


def texts(entry: str, n: int) -> list[Example]:
    """The first n texts of a corpus. Raises TaskError naming file and line, or the entry."""
    if (path := file_of(entry)) is not None:
        return texts_of(path)[:n]
    if entry == "general":  # its default test part is larger than most probes need, and drawn whole
        return general.split(0, 0, n)["test"]
    task = task_config(entry)
    data = load_task(task, seed=task.seed)
    if data.kind != "text":
        raise TaskError(
            f"forgetting.texts={entry}: its examples are of the kind {data.kind!r}, not texts; score it by "
            f"forgetting.tasks=['{entry}']"
        )
    return data.test[:n]


def texts_of(path: Path) -> list[Example]:
    """The texts of a file with a record {"text"} a line. Raises TaskError naming file and line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TaskError(f"forgetting.texts={path}: cannot be read: {error}") from None
    examples = []
    for place, record in jsonl.parsed(path, raw):
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            raise TaskError(f"{place}: a text to probe with is a record with the field 'text', a text")
        examples.append(Example(text=record["text"], place=place))
    return examples


def other_task(entry: str) -> TaskData:
    """A task to be scored before and after."""
    if (path := file_of(entry)) is not None:
        form, examples = jsonl.records(path)
        parts = {"train": examples, "val": [], "test": examples}  # the labels of a classification are the train part's
        config = JsonlConfig(name="jsonl", train=str(path))
        return jsonl.assembled("jsonl", form, parts, config, {str(path): jsonl.file_sha256(str(path))})
    task = task_config(entry)
    return load_task(task, seed=task.seed)


def chance(examples: list[Example]) -> float | None:
    """The score of a guess among the choices of each example; None where there are none to guess among."""
    if not examples or not all(example.choices for example in examples):
        return None
    return sum(1 / len(example.choices) for example in examples) / len(examples)
