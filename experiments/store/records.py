"""The rows of the tables: what stands in result files and beside them, and what is wrong with these files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from experiments.store.files import ReportError, beside, lines, read
from experiments.store.lines import Prediction, Step
from experiments.store.result import Complete, Result
from experiments.store.schema import columns_of, flat, value

Record = dict[str, Any]
Numbered = tuple[int, Result]
LINES: dict[str, type] = {"metrics": Step, "predictions": Prediction}  # a line of the file beside a result, by table


@dataclass(frozen=True)
class Problem:
    """A file that is not in the tables as it should be."""

    file: str
    kind: str
    message: str


def read_all(files: Iterable[Path], problems: list[Problem]) -> Iterator[Numbered]:
    """The results that can be read, numbered from 1; the others become problems."""
    for number, path in enumerate(files, 1):
        try:
            result = read(path)
            check_size(path, flat(result))
            yield number, result
        except ReportError as error:
            problems.append(Problem(str(path), "unreadable", str(error)))


def rows_of(run: int, result: Result) -> dict[str, list[Record]]:
    """By table, the rows of what stands in the result file itself."""
    tables: dict[str, list[Record]] = {"runs": [{"run": run, "file": str(result.file), **flat(result)}]}
    if isinstance(result, Complete):
        others = result.forgetting.tasks if result.forgetting else {}
        tables["quality"] = [{"run": run, **row} for row in qualities(result)]
        tables["phases"] = [
            {"run": run, "phase": phase, "seconds": seconds} for phase, seconds in result.seconds.phases().items()
        ]
        tables["forgetting"] = [{"run": run, "task": task, **row_of(other)} for task, other in others.items()]
    return tables


def row_of(part: Any) -> Record:
    """The columns of a part of a result."""
    return {column.name: value(part, column.path) for column in columns_of(type(part))}


def qualities(result: Complete) -> Iterator[Record]:
    """Every metric, over all examples and over each part of them."""
    by_split = {result.split: result.quality, "validation": result.validation}
    wholes = [(split, "", metrics) for split, metrics in by_split.items()]
    parts = [(result.split, part, each) for part, each in result.quality_by_part.items()]
    for split, part, metrics in [*wholes, *parts]:
        for metric, mean in metrics.items():
            yield {"split": split, "part": part, "metric": metric, "value": mean}


def read_lines(results: Iterable[Numbered], name: str, problems: list[Problem]) -> Iterator[Record]:
    """The rows of the file of this name beside each result; a line that is none costs the whole file."""
    for run, result in results:
        assert result.file is not None
        file = beside(result.file, f"{name}.jsonl")
        try:
            yield from list(checked(run, file, LINES[name])) if file.is_file() else ()
        except ReportError as error:
            problems.append(Problem(str(file), "unreadable", str(error)))


def checked(run: int, file: Path, shape: type) -> Iterator[Record]:
    """The file's records as rows, what the shape does not know under `more`."""
    names = [column.name for column in columns_of(shape)]
    for number, record in enumerate(lines(file)):
        try:
            msgspec.convert(record, shape)
        except msgspec.ValidationError as error:
            raise ReportError(f"{file}:{number + 1}: {error}; run again") from error
        check_size(file, record)
        more = {name: value for name, value in record.items() if name not in names}
        yield {"run": run, "example": number, **{name: record.get(name) for name in names}, "more": more or None}


def check_size(file: Path, values: Mapping[str, Any]) -> None:
    """Raise ReportError for a whole number of more than the 64 bits that a table holds."""
    for name, each in values.items():
        if isinstance(each, int) and not -(2**63) <= each < 2**63:
            raise ReportError(f"{file}: key '{name}' is {each}, more than 64 bits hold; run again")


def doubled(results: Sequence[Numbered]) -> Iterator[Problem]:
    """The runs whose configuration another one has too."""
    first: dict[str, Path | None] = {}
    for _, result in results:
        if (earlier := first.setdefault(result.key, result.file)) != result.file:
            message = f"{result.file}: the same configuration as {earlier}; both are in the tables"
            yield Problem(str(result.file), "doubled", message)


def unfinished(places: Iterable[Path]) -> Iterator[Problem]:
    """The runs that have a configuration and no result yet."""
    for place in places:
        for file in sorted(place.rglob("config.yaml")):
            if not file.with_name("result.json").exists() and file.parent.name != ".hydra":
                message = (
                    f"{file.parent}: no result yet; if it is not running, the command that began it goes on with it"
                )
                yield Problem(str(file.parent), "unfinished", message)
