"""The rows of public datasets: from the hub by id, or from local files of the same columns.

A local directory is looked through for the split's file, also under the dataset's and the subset's name, as the hub's
own downloads lie: gsm8k/main/test.jsonl, main/test-00000-of-00001.parquet, test.json, or what save_to_disk wrote.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.tasks.base import TaskError
from experiments.tasks.hub import library, version_of
from experiments.tasks.jsonl import file_sha256, parsed

ENDINGS = ("jsonl", "json", "parquet", "csv", "tsv")
SAME_SPLIT = {"validation": ("validation", "dev", "val", "valid"), "dev": ("dev", "validation")}
CONVERTED = "refs/convert/parquet"  # the hub's own copy, in files, of a dataset that is published as a script


@dataclass(frozen=True)
class Source:
    """One split of a dataset on the hub."""

    hub: str
    split: str
    subset: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        return "/".join(filter(None, (self.hub, self.subset))) + f"[{self.split}]"


@dataclass(frozen=True)
class Row:
    """A row with its place. What it has not, or not as it should be, is an error that names place and column."""

    values: dict[str, Any]
    place: str

    def get(self, column: str) -> Any:
        if column not in self.values:
            raise TaskError(f"{self.place}: no column {column!r}; there are: {', '.join(map(str, self.values))}")
        return self.values[column]

    def text(self, column: str) -> str:
        value = self.get(column)
        if not isinstance(value, str) or not value.strip():
            raise TaskError(f"{self.place}: column {column!r} must be a text that is not empty, not {value!r}")
        return value.strip()

    def texts(self, column: str) -> list[str]:
        """A list of texts; in a CSV file it is one in JSON."""
        value = self.get(column)
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except ValueError:
                raise TaskError(f"{self.place}: column {column!r} is no list in JSON: {value[:40]!r}") from None
        if not isinstance(value, (list, tuple)) or not value or not all(isinstance(one, str) for one in value):
            raise TaskError(f"{self.place}: column {column!r} must be a list of texts, not {value!r}")
        return [one.strip() for one in value]

    def one_of(self, column: str, names: Sequence[str], first: int = 0) -> str:
        """A class: by its name, or by its number, the first being `first`."""
        value = self.get(column)
        if isinstance(value, bool):
            value = int(value)
        if str(value) in names:
            return str(value)
        whole = (isinstance(value, float) and value.is_integer()) or str(value).lstrip("-").isdigit()
        if whole and 0 <= int(value) - first < len(names):
            return names[int(value) - first]
        hint = "; take a split that has its answers" if value in (-1, "-1", "", None) else ""
        numbers = f"{first} to {first + len(names) - 1}"
        raise TaskError(f"{self.place}: column {column!r} must be {numbers} or of {list(names)}, not {value!r}{hint}")


class NoFile(TaskError):
    """A directory has no file of a split."""


def rows_of(source: Source, path: str | None, most: int | None, seed: int) -> tuple[str, str, list[Row]]:
    """Where a source's rows come from, the version of it, and the rows; of more than `most`, so many by chance.

    path: a directory, or a file; None: the hub. Raises NoFile where a directory has none of this split.
    """
    if path is None:
        datasets = library()
        rows = _loaded(
            lambda: datasets.load_dataset(source.hub, source.subset, split=source.split, **_pin(source)), source
        )
        return (
            source.name,
            f"{version_of(rows, source.revision)}, datasets {datasets.__version__}",
            _listed(rows, source.name, most, seed),
        )
    where = Path(path)
    if where.is_file():
        return str(where), file_sha256(str(where)), _some(list(_read(where)), most, seed)
    if not where.is_dir():
        raise TaskError(
            f"task.path={path}: there is no such directory; leave it out to take {source.name} from the hub"
        )
    for folder in _folders(where, source):
        if (folder / "dataset_dict.json").is_file():
            rows = _loaded(lambda folder=folder: library().load_from_disk(str(folder))[source.split], source)
            return f"{folder}[{source.split}]", "saved to disk", _listed(rows, f"{folder}[{source.split}]", most, seed)
        if files := _files(folder, source.split):
            rows = [row for file in files for row in _read(file)]
            return str(files[0]), "/".join(file_sha256(str(file)) for file in files), _some(rows, most, seed)
    looked = "/".join(filter(None, (source.hub.rpartition("/")[2], source.subset, f"{source.split}.jsonl")))
    raise NoFile(
        f"task.path={path}: no file of {source.name} in it; it may be {looked}, or the same without a folder, and end "
        f"in {', '.join('.' + ending for ending in ENDINGS)}"
    )


def _pin(source: Source) -> dict[str, str]:
    return {"revision": source.revision} if source.revision else {}


def _loaded(load: Any, source: Source) -> Any:
    try:
        return load()
    except Exception as error:
        raise TaskError(
            f"{source.name}: cannot be loaded: {type(error).__name__}: {error}; without a network give local files of "
            "the same columns by task.path="
        ) from error


def _listed(rows: Any, where: str, most: int | None, seed: int) -> list[Row]:
    if most is not None and len(rows) > most:
        rows = rows.select(sorted(random.Random(f"rows {seed}").sample(range(len(rows)), most)))
    return [Row(dict(row), f"{where}:{i}") for i, row in enumerate(rows)]


def _some(rows: list[Row], most: int | None, seed: int) -> list[Row]:
    if most is None or len(rows) <= most:
        return rows
    return [rows[i] for i in sorted(random.Random(f"rows {seed}").sample(range(len(rows)), most))]


def _folders(where: Path, source: Source) -> list[Path]:
    name, subset = source.hub.rpartition("/")[2], source.subset
    inside = [Path(name, subset), Path(name), Path(subset), Path()] if subset else [Path(name), Path()]
    return [where / one for one in inside if (where / one).is_dir()]


def _files(folder: Path, split: str) -> list[Path]:
    for own in SAME_SPLIT.get(split, (split,)):
        for pattern in (f"{own}.", f"{own}-*.", f"{own}/*.", f"data/{own}-*."):
            for ending in ENDINGS:
                if files := sorted(folder.glob(pattern + ending)):
                    return files
    return []


def _read(file: Path) -> Iterator[Row]:
    """The rows of a file, by its ending."""
    ending = file.suffix.lstrip(".")
    if ending not in ENDINGS:
        raise TaskError(f"{file}: files end in {', '.join('.' + one for one in ENDINGS)}")
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise TaskError(f"{file}: cannot be read: {error.strerror}") from None
    if not raw.strip():
        raise TaskError(f"{file}: the file is empty")
    if ending in ("csv", "tsv"):
        lines = raw.decode("utf-8-sig").splitlines(keepends=True)
        reader = csv.DictReader(lines, delimiter="," if ending == "csv" else "\t")
        values = ((f"{file}:{reader.line_num}", row) for row in reader)
    elif ending == "parquet":
        values = ((f"{file}#{i}", row) for i, row in enumerate(_parquet(file)))
    elif ending == "json" and raw.lstrip()[:1] == b"[":
        try:
            values = ((f"{file}#{i}", row) for i, row in enumerate(json.loads(raw)))
        except ValueError as error:
            raise TaskError(f"{file}: not a JSON value: {error}") from None
    else:
        values = iter(parsed(file, raw))
    for place, row in values:
        if not isinstance(row, dict):
            raise TaskError(f"{place}: a row is a JSON object, not {type(row).__name__}")
        yield Row(row, place)


def _parquet(file: Path) -> list[dict[str, Any]]:
    library()  # pyarrow comes with it
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        return read_table(file).to_pylist()
    except ArrowException as error:
        raise TaskError(f"{file}: no Parquet file: {str(error).splitlines()[0]}") from None
