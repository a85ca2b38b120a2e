"""Files of records read to the end whatever is wrong with them: every line that cannot be used is a finding."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from experiments.data.findings import Finding, excerpt
from experiments.data.gate import PARTS
from experiments.tasks.base import TRAITS, Example, TaskData, TaskError, content_sha256
from experiments.tasks.forms import KINDS, Named, example_of, form_of, mixed
from experiments.tasks.json_lines import LineError, contents, lines, value
from experiments.tasks.metrics import exact_match

OTHER_NAMES = {"valid": "val", "validation": "val", "dev": "val", "eval": "val"}  # other names of the parts


@dataclass
class Records:
    """What could be read of a data set, and what could not."""

    name: str
    named: Named = field(default_factory=Named)
    sources: dict[str, str] = field(default_factory=dict)
    good: list[tuple[str, str, Example]] = field(default_factory=list)  # part, form, example
    rejected: list[Finding] = field(default_factory=list)

    def read(self, path: Path, part: str) -> None:
        """Add a file's records to a part. Raises TaskError where the file cannot be read or is empty."""
        raw = contents(path)
        self.sources[str(path)] = hashlib.sha256(raw).hexdigest()
        for place, line in lines(path, raw):
            try:
                record = value(line, place)
                form = form_of(record, place)
                self.good.append((part, form, example_of(record, form, place, self.named)))
            except LineError as error:
                self.reject(error.kind, place, error.reason, line)
            except TaskError as error:
                message = str(error).removeprefix(f"{place}: ")
                self.reject("empty" if message.endswith("is empty") else "broken_line", place, message, line)

    def reject(self, kind: str, place: str, message: str, line: bytes) -> None:
        text = line.decode("utf-8", errors="backslashreplace")
        self.rejected.append(Finding(kind, "error", place, message, None, excerpt(text)))

    @property
    def form(self) -> str:
        """That of most records; "" of none."""
        return max(Counter(form for _, form, _ in self.good).items(), key=lambda item: item[1], default=("", 0))[0]

    @property
    def broken(self) -> list[Finding]:
        """Every record that cannot be used, those of another form than most included."""
        most = self.form
        first = next((example.place for _, form, example in self.good if form == most), None)
        return self.rejected + [
            Finding("broken_line", "error", example.place, mixed(form, most), first)
            for _, form, example in self.good
            if form != most
        ]

    def data(self) -> TaskData:
        """The records that can be used, as a task."""
        most = self.form
        parts = {part: [e for own, form, e in self.good if own == part and form == most] for part in PARTS}
        kind = KINDS.get(most, "generate")
        labels = tuple(sorted({e.completion for e in parts["train"]})) if TRAITS[kind].labelled else ()
        return TaskData(
            self.name, kind, *(parts[part] for part in PARTS), labels=labels,
            sha256=content_sha256(*parts.values()), sources=self.sources,
            metric="exact_match", scorer=exact_match,
        )  # fmt: skip


def name_and_part(path: Path) -> tuple[str, str]:
    """What a file is called but for its part, and its part: "a/b.test.jsonl" → ("a/b", "test"); without one, train."""
    words = re.split(r"([._-])", path.name.removesuffix(".jsonl"))
    for i in range(len(words) - 1, -1, -2):  # the separators stand between
        part = OTHER_NAMES.get(words[i], words[i])
        if part in PARTS:
            rest = "".join(words[: max(i - 1, 0)] + words[i + 1 if i else i + 2 :])
            return str(path.with_name(rest) if rest else path.parent), part
    return str(path.with_suffix("")), "train"
