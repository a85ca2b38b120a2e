"""hub: a dataset of the `datasets` library, from its hub or from a directory, as a task.

Its columns are renamed to the fields of a record form (see `forms`) by task.fields, {form's field: column}; a label
that the dataset keeps as a number is named as its features name it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.tasks.base import TRAITS, TaskData, TaskError
from experiments.tasks.forms import CONTEXT, FORMS, KINDS, Named
from experiments.tasks.jsonl import assembled, examples
from experiments.tasks.split import sized

COMMIT = re.compile(r"@([0-9a-f]{40})(?:/|$)")  # how the library writes where it read a file
FIELDS = tuple(dict.fromkeys(field for fields in FORMS.values() for field in fields))
OTHERS = ("text_pair", "references", "input", *CONTEXT)  # fields that a record of some form may have
INSTALL = "pip install -c constraints.txt -e '.[experiments,hub]'"


def load(config: Any, seed: int = 0) -> TaskData:
    """config: see HubConfig. Raises TaskError naming dataset, split and row."""
    datasets = library()
    splits = {"train": config.train, "val": config.val, "test": config.test}
    named = Named(config.group, config.part)
    if odd := [field for field in config.fields if field not in (*FIELDS, *OTHERS, config.group, config.part)]:
        raise TaskError(
            f"task.fields={{{odd[0]}: …}}: no form has that field; there are: {', '.join((*FIELDS, *OTHERS))}"
        )
    read, forms, sources = {}, {}, {}
    for part, split in splits.items():
        if split is None:
            continue
        rows = split_of(datasets, config, split)
        where = f"{config.path}[{split}]"
        forms[part], read[part] = examples(records(rows, dict(config.fields), where), named, config.fields)
        if not read[part]:
            raise TaskError(f"{where}: the split is empty")
        sources[where] = version_of(rows, config.revision)
    if len(set(forms.values())) > 1:
        raise TaskError(f"the splits have different record forms: {', '.join(sorted(set(forms.values())))}")
    sources["datasets"] = datasets.__version__
    labelled = TRAITS[KINDS.get(forms["train"], "generate")].labelled
    return assembled("hub", forms["train"], sized(read, config, seed, labelled), config, sources)


def library() -> Any:
    try:
        import datasets
    except ImportError:
        raise TaskError(f"task=hub needs the datasets library: {INSTALL}") from None
    return datasets


def split_of(datasets: Any, config: Any, split: str) -> Any:
    """One split, out of a directory that `save_to_disk` wrote, or of whatever load_dataset takes."""
    try:
        if Path(config.path, "dataset_dict.json").is_file():
            return datasets.load_from_disk(config.path)[split]
        return datasets.load_dataset(config.path, config.subset, split=split, revision=config.revision)
    except Exception as error:
        raise TaskError(f"{config.path}[{split}]: cannot be loaded: {type(error).__name__}: {error}") from error


def version_of(rows: Any, revision: str | None) -> str:
    """The commit of the hub that the rows were read at, where the library says it, else what was asked for."""
    files = getattr(getattr(rows, "info", None), "download_checksums", None) or {}
    commits = dict.fromkeys(match[1] for file in files if (match := COMMIT.search(str(file))))
    return ", ".join(commits) or revision or "newest"


def records(rows: Any, fields: dict[str, str], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The place and the record of every row: its columns under the form's names, those without one under their own."""
    missing = [column for column in fields.values() if column not in rows.features]
    if missing:
        raise TaskError(
            f"{where}: task.fields names the column {missing[0]!r}; there are: {', '.join(sorted(rows.features))}"
        )
    mapped = {*fields, *fields.values()}  # a column of a mapped field's name gives way to the mapping
    classes = {column: feature for column, feature in rows.features.items() if hasattr(feature, "int2str")}
    for number, row in enumerate(rows):
        place = f"{where}:{number}"
        record = {}
        for column, value in row.items():
            if column in classes:
                if value is None or value < 0:  # how a test part without answers is published
                    raise TaskError(f"{place}: column {column!r} has no class; take a split that has its labels")
                value = classes[column].int2str(value)
            record[column] = value
        own = {column: value for column, value in record.items() if column not in mapped}
        yield place, {**own, **{field: record[column] for field, column in fields.items()}}
