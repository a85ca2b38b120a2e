"""What the data gate reports: kinds of faults, where they are, and whether a run may go on."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, TextIO

from experiments.config.schema import Check

SHOWN = 5  # errors in the message of DataError

# What is looked for: its severity, and what to do about it.
KINDS: dict[str, tuple[Literal["error", "warning"], str]] = {
    "broken_line": ("error", "mend the line, or take it out"),
    "not_utf8": ("error", "save the file as UTF-8"),
    "empty": ("error", "fill the text in, or take the record out"),
    "lone_surrogate": ("error", "half of a character in \\ud8xx: decode the source as UTF-16 and write it again"),
    "leak": ("error", "take the record out of one part: its answer was trained on"),
    "group_leak": ("error", "split by group: all records of a group belong in one part"),
    "conflicting_answers": ("error", "decide for one answer, or give all of them as references"),
    "unknown_label": ("error", "training never sees it: add examples of it, or take the record out"),
    "answer_not_a_choice": ("error", "the answer has to be one of the choices, word for word, and only one"),
    "exact_duplicate": ("warning", "keep one of them, unless it is to weigh more"),
    "near_duplicate": ("warning", "keep one of them, unless both are wanted"),
    "near_leak": ("warning", "look whether the test asks for more than what was trained on"),
    "mojibake": ("warning", "UTF-8 that was read as another encoding: ftfy repairs it"),
    "replacement_character": ("warning", "U+FFFD stands for lost text: read the source again in its own encoding"),
    "control_character": ("warning", "take it out"),
    "carriage_return": ("warning", "write \\n for \\r\\n"),
    "normal_form": ("warning", "write all texts in NFC: other forms of a letter are other tokens"),
    "missing_label": ("warning", "nothing tests it: raise n_test, or split by label"),
    "repeated_choice": ("warning", "give distinct choices: guessing is right more often than it seems"),
    "imbalance": ("warning", "read macro-F1 beside accuracy"),
    "field_not_shown": ("error", "take the field out, or take a model whose chat template shows it"),
    "control_word": ("warning", "words of the tokenizer's own in the data are text, and steer nothing"),
    "one_class": ("warning", "every answer is the same, so that a score of 1 says nothing: give other labels too"),
    "small_training": ("warning", "it is far less than what is tested: lower task.n_val and task.n_test, or give more"),
    "does_not_fit": ("error", "raise optim.max_length, or take the record out"),
    "answer_too_long": ("warning", "raise eval.max_new_tokens: no model can give this answer whole"),
    "truncated": ("warning", "raise optim.max_length, or shorten the prompts"),
}


class DataError(ValueError):
    """The data has errors; the message names the first ones and what to do."""


@dataclass(frozen=True)
class Finding:
    kind: str
    severity: Literal["error", "warning"]
    place: str  # "file:line", or "part#index" from 0
    message: str
    other: str | None = None  # the second place, of what stands in two
    excerpt: str = ""

    def __str__(self) -> str:
        where = f"{self.place} and {self.other}" if self.other else self.place
        return f"{where}: {self.message}" + (f"; {self.excerpt}" if self.excerpt else "")


@dataclass
class Findings:
    """lengths: part → measure → quantile → value; labels: part → label → examples."""

    name: str
    kind: str
    sizes: dict[str, int]
    found: list[Finding] = field(default_factory=list)
    looked_for: tuple[str, ...] = ()
    lengths: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Findings of every kind that was looked for, zeros included."""
        counted = Counter(finding.kind for finding in self.found)
        return {kind: counted[kind] for kind in KINDS if kind in self.looked_for or kind in counted}

    def of(self, severity: str) -> list[Finding]:
        return [finding for finding in self.found if finding.severity == severity]

    def enforce(self, how: Check, file: TextIO | None = None) -> None:
        """Print a line for every kind found; raise DataError for errors where `how` says so."""
        out = file or sys.stderr
        for kind, count in self.counts().items():
            if count:
                first = next(finding for finding in self.found if finding.kind == kind)
                print(f"data: {first.severity}: {kind} ({count}), first {first}", file=out)
        errors = self.of("error")
        if errors and how is Check.error:
            more = [f"… and {len(errors) - SHOWN} more"] if len(errors) > SHOWN else []
            lines = [f"  {error.kind}: {error}; {KINDS[error.kind][1]}" for error in errors[:SHOWN]]
            raise DataError(
                "\n".join([f"the data of task={self.name} has {len(errors)} errors:", *lines, *more])
                + "\n`python -m experiments.data check task=…` lists all; data.check=warn runs in spite of them"
            )


def excerpt(text: str, head: int = 60, tail: int = 30) -> str:
    """The beginning of a text and, of a long one, its end: what differs often stands there."""
    flat = " ".join(text.split())
    short = flat if len(flat) <= head + tail + 3 else f"{flat[:head]} … {flat[-tail:]}"
    return repr(short)
