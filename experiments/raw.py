"""Files of records read to the end whatever is wrong with them: every line that cannot be used is a finding."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.metrics import exact_match
from experiments.quality import PARTS, Finding, excerpt
from experiments.tasks import Example, Kind, TaskData, TaskError
from experiments.tasks.jsonl import example_of, form_of

OTHER_NAMES = {"valid": "val", "validation": "val", "dev": "val", "eval": "val"}  # of parts


@dataclass
class Records:
    """What could be read of a data set, and what could not."""

    name: str
    parts: dict[str, list[Example]] = field(default_factory=lambda: {part: [] for part in PARTS})
    sources: dict[str, str] = field(default_factory=dict)
    form: str = ""
    first: str = ""  # where it was met
    broken: list[Finding] = field(default_factory=list)

    def read(self, path: Path, part: str) -> None:
        """Add a file's records to a part. Raises TaskError where the file cannot be read or is empty."""
        try:
            contents = path.read_bytes()
        except OSError as error:
            raise TaskError(f"{path}: cannot be read: {error.strerror}") from None
        if not contents.strip():
            raise TaskError(f"{path}: the file is empty")
        self.sources[str(path)] = hashlib.sha256(contents).hexdigest()
        for number, line in enumerate(contents.rstrip().split(b"\n"), 1):
            place = f"{path}:{number}"
            try:
                record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                form = form_of(record, place)
                example = example_of(record, form, place)
            except UnicodeDecodeError as error:
                self.reject("not_utf8", place, f"not UTF-8 at byte {error.start} of the line", line)
            except TaskError as error:
                message = str(error).removeprefix(f"{place}: ")
                self.reject("empty" if message.endswith("is empty") else "broken_line", place, message, line)
            except (ValueError, RecursionError) as error:
                self.reject("broken_line", place, f"not a JSON value: {error}", line)
            else:
                self.form, self.first = self.form or form, self.first or place
                if form != self.form:
                    message = f"a {form} record among {self.form} records"
                    self.broken.append(Finding("broken_line", "error", place, message, self.first))
                else:
                    self.parts[part].append(example)

    def reject(self, kind: str, place: str, message: str, line: bytes) -> None:
        text = line.decode("utf-8", errors="backslashreplace")
        self.broken.append(Finding(kind, "error", place, message, None, excerpt(text)))

    def data(self) -> TaskData:
        """The records that could be read, as a task."""
        kind = kind_of(self.form, [example for part in self.parts.values() for example in part])
        labels = tuple(sorted({e.completion for e in self.parts["train"]})) if kind == "classify" else ()
        return TaskData(
            self.name, kind, **self.parts, labels=labels, sha256="", sources=self.sources,
            metric="exact_match", scorer=exact_match,
        )  # fmt: skip


def kind_of(form: str, examples: Sequence[Example]) -> Kind:
    if form == "text/label":
        return "classify"
    if any(example.choices for example in examples):
        return "choose"
    return "text" if examples and not any(example.completion for example in examples) else "generate"


def name_and_part(path: Path) -> tuple[str, str]:
    """What a file is called but for its part, and its part: "a/b.test.jsonl" → ("a/b", "test"); without one, train."""
    words = re.split(r"([._-])", path.name.removesuffix(".jsonl"))
    for i in range(len(words) - 1, -1, -2):  # the separators stand between
        part = OTHER_NAMES.get(words[i], words[i])
        if part in PARTS:
            rest = "".join(words[: max(i - 1, 0)] + words[i + 1 if i else i + 2 :])
            return str(path.with_name(rest) if rest else path.parent), part
    return str(path.with_suffix("")), "train"
