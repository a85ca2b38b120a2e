"""The data gate: what is wrong with the examples of a task, found before a run is spent on them.

    findings = check(data, encoder)
    findings.enforce(Check.error)

Errors make the numbers of a run wrong (an answer seen in training, two labels for one text) and stop it; warnings may
be meant. Texts are compared as NFC with white space collapsed; near duplicates by experiments/similar.py. A finding
names its place: file and line where the example has one, else part#index, from 0.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TextIO
from unicodedata import normalize

import numpy as np

from experiments.batches import Encoder
from experiments.config import Check
from experiments.encodings import faults
from experiments.similar import near_duplicates as closest
from experiments.tasks import Example, TaskData

PARTS = ("train", "val", "test")
IMBALANCE = 10  # times as many examples of the most frequent label as of the rarest
QUANTILES = {"min": 0.0, "p05": 0.05, "median": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
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
    "answer_not_a_choice": ("error", "the answer has to be one of the choices, word for word, and these distinct"),
    "exact_duplicate": ("warning", "keep one of them, unless it is to weigh more"),
    "near_duplicate": ("warning", "keep one of them, unless both are wanted"),
    "near_leak": ("warning", "look whether the test asks for more than what was trained on"),
    "mojibake": ("warning", "UTF-8 that was read as another encoding: ftfy repairs it"),
    "replacement_character": ("warning", "U+FFFD stands for lost text: read the source again in its own encoding"),
    "control_character": ("warning", "take it out"),
    "carriage_return": ("warning", "write \\n for \\r\\n"),
    "normal_form": ("warning", "write all texts in NFC: other forms of a letter are other tokens"),
    "missing_label": ("warning", "nothing tests it: raise n_test, or split by label"),
    "imbalance": ("warning", "read macro-F1 beside accuracy"),
    "does_not_fit": ("error", "raise optim.max_length, or take the record out"),
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


def check(data: TaskData, encoder: Encoder | None = None, near_duplicates: bool = True) -> Findings:
    """Everything that KINDS lists, for the three parts of a task.

    encoder: the run's; it adds the lengths in tokens, and finds what its max_length cuts or cannot hold.
    """
    entries = [Entry(p, i, e, data.kind) for p in PARTS for i, e in enumerate(getattr(data, p))]
    sizes = {part: len(getattr(data, part)) for part in PARTS}
    findings = Findings(data.name, data.kind, sizes)
    findings.found += [finding for entry in entries for finding in own_faults(entry)]
    findings.found += repeated(entries, several_answers=any(entry.example.references for entry in entries))
    findings.found += shared_groups(entries)
    if near_duplicates:
        findings.found += near(entries)
    if data.kind == "classify":
        findings.labels = {p: dict(Counter(e.completion for e in getattr(data, p)).most_common()) for p in PARTS}
        findings.found += label_faults(entries, findings.labels)
    findings.lengths = lengths(entries)
    if encoder is not None:
        counted, cut = tokens(entries, encoder)
        findings.found += cut
        for part, numbers in counted.items():
            findings.lengths[part]["tokens"] = quantiles(numbers)
    left_out = {
        "broken_line": True,  # of files, and so the command's
        "not_utf8": True,
        "near_duplicate": not near_duplicates,
        "near_leak": not near_duplicates,
        "truncated": encoder is None,
        "does_not_fit": encoder is None,
        "answer_not_a_choice": data.kind != "choose",
    } | dict.fromkeys(("unknown_label", "missing_label", "imbalance"), data.kind != "classify")
    findings.looked_for = tuple(kind for kind in KINDS if not left_out.get(kind))
    return findings


@dataclass(frozen=True)
class Entry:
    """An example with its part and index, and its texts as they are compared."""

    part: str
    index: int
    example: Example
    kind: str

    @property
    def place(self) -> str:
        return self.example.place or f"{self.part}#{self.index}"

    @cached_property
    def question(self) -> tuple[str, ...]:
        e = self.example
        turns = [text for turn in e.messages for text in (turn["role"], turn["content"])]
        return tuple(map(plain, (*turns, e.text, *([] if e.text_pair is None else [e.text_pair]), *sorted(e.choices))))

    @cached_property
    def answer(self) -> str:
        return plain(self.example.completion)

    @property
    def texts(self) -> list[str]:
        """All that is written in the example, as it is."""
        e = self.example
        pair = [] if e.text_pair is None else [e.text_pair]
        return [*(turn["content"] for turn in e.messages), e.text, *pair, *e.choices, e.completion, *e.references]

    @property
    def last_turn(self) -> str:
        e = self.example
        return e.messages[-1]["content"] if e.messages else e.text

    def finding(self, kind: str, message: str, other: Entry | None = None, severity: Any = None) -> Finding:
        second = other.place if other else None
        return Finding(kind, severity or KINDS[kind][0], self.place, message, second, excerpt(self.last_turn))


def plain(text: str) -> str:
    return " ".join(text.split()) if text.isascii() else " ".join(normalize("NFC", text).split())


def excerpt(text: str, head: int = 60, tail: int = 30) -> str:
    """The beginning of a text and, of a long one, its end: what differs often stands there."""
    flat = " ".join(text.split())
    short = flat if len(flat) <= head + tail + 3 else f"{flat[:head]} … {flat[-tail:]}"
    return repr(short)


def apart(a: str, b: str, before: int = 40, after: int = 50) -> tuple[str, str]:
    """Excerpts of two texts from where they begin to differ."""
    flat = [" ".join(text.split()) for text in (a, b)]
    same = next((i for i, (x, y) in enumerate(zip(*flat)) if x != y), min(map(len, flat)))
    start, end = max(0, same - before), same + after
    here, there = [("… " if start else "") + text[start:end] + (" …" if text[end:] else "") for text in flat]
    return repr(here), repr(there)


def own_faults(entry: Entry) -> Iterator[Finding]:
    """What is wrong with one example in itself."""
    e = entry.example
    asked = [turn["content"] for turn in e.messages] or [e.text]
    if not all(text.strip() for text in asked):
        yield entry.finding("empty", "the prompt is empty" if entry.kind != "text" else "the text is empty")
    if entry.kind != "text" and not e.completion.strip():
        yield entry.finding("empty", "the answer is empty")
    if entry.kind == "choose" and (e.completion not in e.choices or len(set(e.choices)) < len(e.choices)):
        yield entry.finding("answer_not_a_choice", f"answer {e.completion!r}, choices {list(e.choices)}")
    for kind, message in faults(entry.texts).items():
        yield entry.finding(kind, message)


def repeated(entries: Sequence[Entry], several_answers: bool) -> Iterator[Finding]:
    """Leaks, exact duplicates and conflicting answers. several_answers: a prompt may have more than one right one."""
    seen: dict[tuple[str, ...], dict[str, dict[str, Entry]]] = defaultdict(dict)  # question → part → answer → first
    for entry in entries:
        parts = seen[entry.question]
        for part, answers in parts.items():
            if part != entry.part:
                same = entry.answer in answers or entry.kind == "text"
                other = answers.get(entry.answer) or next(iter(answers.values()))
                what = f"stands in {entry.part} and in {part}"
                yield entry.finding("leak", what if same else f"{what}, with another answer", other)
        answers = parts.setdefault(entry.part, {})
        if entry.answer in answers:
            yield entry.finding("exact_duplicate", f"twice in {entry.part}", answers[entry.answer])
        elif answers and not several_answers:
            first = next(iter(answers.values()))
            certain = entry.kind in ("classify", "choose")  # a text to write may have more than one good answer
            message = f"one prompt, two answers: {excerpt(first.answer)} and {excerpt(entry.answer)}"
            yield entry.finding("conflicting_answers", message, first, "error" if certain else "warning")
        answers.setdefault(entry.answer, entry)


def shared_groups(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Groups in two parts, once each."""
    first: dict[str, dict[str, Entry]] = defaultdict(dict)
    for entry in entries:
        if not (group := entry.example.group):
            continue
        known = first[group]
        if known and entry.part not in known:
            other = next(iter(known.values()))
            yield entry.finding("group_leak", f"group {group!r} stands in {other.part} and in {entry.part}", other)
        known.setdefault(entry.part, entry)


def near(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Near duplicates: of the prompt, and where text is to be written of the answer too. Repeated prompts count once
    for a part and answer: `repeated` reports them."""
    known: set[tuple[str, ...]] = set()
    fresh: list[Entry] = []
    for entry in entries:
        own = (*entry.question, entry.answer)
        if own not in known:
            known.add(own)
            fresh.append(entry)
    written = [("\n".join(e.question), e.answer) if e.kind == "generate" else ("\n".join(e.question),) for e in fresh]
    for pair in closest(written, [entry.part for entry in fresh]):
        entry, other = fresh[pair.index], fresh[pair.other]
        if entry.question == other.question:
            continue  # a leak or a conflict
        here, there = apart(entry.last_turn, other.last_turn)
        message = f"{pair.likeness:.2f} alike: {there}"
        if entry.kind in ("classify", "choose") and entry.answer != other.answer:
            message += f" (answered {other.answer!r}; here {entry.answer!r})"
        found = entry.finding("near_duplicate" if entry.part == other.part else "near_leak", message, other)
        yield replace(found, excerpt=here)


def label_faults(entries: Sequence[Entry], labels: dict[str, dict[str, int]]) -> Iterator[Finding]:
    train = labels["train"]
    for entry in entries:
        if train and entry.part != "train" and entry.example.completion not in train:
            yield entry.finding("unknown_label", f"label {entry.example.completion!r} does not occur in train")
    untested = [label for label in train if label not in labels["test"]]
    if untested and labels["test"]:
        names = ", ".join(untested[:SHOWN]) + (f" and {len(untested) - SHOWN} more" if len(untested) > SHOWN else "")
        yield Finding(
            "missing_label", "warning", "test", f"{len(untested)} of {len(train)} labels do not occur: {names}"
        )
    if train and max(train.values()) >= IMBALANCE * min(train.values()):
        most, least = max(train, key=train.__getitem__), min(train, key=train.__getitem__)
        message = f"{train[most]} examples of {most!r}, {train[least]} of {least!r}"
        yield Finding("imbalance", "warning", "train", message)


def lengths(entries: Sequence[Entry]) -> dict[str, dict[str, dict[str, float]]]:
    """Characters of the prompts and of the answers."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for part in PARTS:
        of_part = [entry.example for entry in entries if entry.part == part]
        if of_part:
            found[part] = {"prompt characters": quantiles([len(written(e)) for e in of_part])}
            if any(e.completion for e in of_part):
                found[part]["answer characters"] = quantiles([len(e.completion) for e in of_part])
    return found


def written(e: Example) -> str:
    return "\n".join([*(turn["content"] for turn in e.messages), *filter(None, (e.text, e.text_pair))])


def tokens(entries: Sequence[Entry], encoder: Encoder) -> tuple[dict[str, list[int]], list[Finding]]:
    """Tokens of the examples of each part before any cut, and the examples that are cut or do not fit at all."""
    counted: dict[str, list[int]] = defaultdict(list)
    found = []
    for entry in entries:
        if encoder.head and entry.example.completion not in encoder.labels:
            continue  # an unknown_label
        try:
            row = encoder.row(entry.example)
        except ValueError as error:
            found.append(entry.finding("does_not_fit", str(error).removeprefix(f"{entry.example.place}: ")))
            continue
        counted[entry.part].append(row.n_tokens + row.n_cut)
        if row.n_cut:
            found.append(entry.finding("truncated", f"{row.n_cut} of {row.n_tokens + row.n_cut} tokens are cut off"))
    return counted, found


def quantiles(numbers: Sequence[int]) -> dict[str, float]:
    values = np.quantile(numbers, list(QUANTILES.values()))
    return {"mean": float(np.mean(numbers)), **dict(zip(QUANTILES, map(float, values)))}
