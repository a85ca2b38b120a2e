"""The data gate: what is wrong with the examples of a task, found before a run is spent on them.

    findings = check(data, encoder)
    findings.enforce(Check.error)

Errors make the numbers of a run wrong (an answer seen in training, two labels for one text) and stop it; warnings may
be meant. Texts are compared as NFC with white space collapsed; near_duplicates.py has the near ones. A finding
names its place: file and line where the example has one, else part#index, from 0.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from experiments.data.entry import Entry
from experiments.data.findings import KINDS, SHOWN, Finding, Findings, excerpt
from experiments.data.lengths import Encodes, lengths, quantiles, tokens
from experiments.data.near_duplicates import near_duplicates as closest
from experiments.data.text_faults import faults
from experiments.tasks.base import TRAITS, TaskData
from experiments.tasks.forms import CALLS

PARTS = ("train", "val", "test")
SMALL = 4  # times as many examples to test as to train on
IMBALANCE = 10  # times as many examples of the most frequent label as of the rarest


def check(
    data: TaskData, objective: Encodes | None = None, near_duplicates: bool = True, max_new_tokens: int | None = None
) -> Findings:
    """Everything that KINDS lists, for the three parts of a task.

    objective: the run's; it adds the lengths in tokens, and finds what optim.max_length cuts or cannot hold.
    max_new_tokens: what an answer may be long when it is written.
    """
    traits = TRAITS[data.kind]
    writes = objective is not None and objective.writes
    entries = [Entry(p, i, e, data.kind) for p in PARTS for i, e in enumerate(getattr(data, p))]
    sizes = {part: len(getattr(data, part)) for part in PARTS}
    findings = Findings(data.name, data.kind, sizes)
    findings.found += [finding for entry in entries for finding in own_faults(entry)]
    findings.found += repeated(entries)
    findings.found += shared_groups(entries)
    if near_duplicates:
        findings.found += near(entries)
    if traits.labelled:
        findings.labels = {p: dict(Counter(e.completion for e in getattr(data, p)).most_common()) for p in PARTS}
        findings.found += label_faults(entries, findings.labels)
    if 0 < SMALL * sizes["train"] < sizes["test"]:
        message = f"{sizes['train']} examples to train on, {sizes['test']} to test"
        findings.found.append(Finding("small_training", "warning", "train", message))
    findings.lengths = lengths(entries)
    if traits.number:
        for part in findings.lengths:
            findings.lengths[part]["number"] = quantiles([float(e.completion) for e in getattr(data, part)])
    if objective is not None:
        counted, faulty = tokens(entries, objective, max_new_tokens if writes else None)
        findings.found += faulty
        for part, numbers in counted.items():
            findings.lengths[part]["tokens"] = quantiles(numbers)
    left_out = {
        "broken_line": True,  # only files have these, and the command looks for them
        "not_utf8": True,
        "near_duplicate": not near_duplicates,
        "near_leak": not near_duplicates,
        "truncated": objective is None,
        "field_not_shown": objective is None,
        "control_word": objective is None,
        "does_not_fit": objective is None,
        "answer_too_long": not writes or max_new_tokens is None,
        "answer_not_a_choice": not traits.choices,
        "repeated_choice": not traits.choices,
    } | dict.fromkeys(("unknown_label", "missing_label", "imbalance", "one_class"), not traits.labelled)
    findings.looked_for = tuple(kind for kind in KINDS if not left_out.get(kind))
    return findings


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
    spoken = [turn["content"] for turn in e.messages if not any(call in turn for call in CALLS)]
    if not all(text.strip() for text in (spoken if e.messages else [e.text])):
        yield entry.finding("empty", "the prompt is empty" if entry.traits.prompted else "the text is empty")
    if entry.traits.prompted and not e.completion.strip():
        yield entry.finding("empty", "the answer is empty")
    if entry.traits.choices:
        if e.choices.count(e.completion) != 1:
            yield entry.finding("answer_not_a_choice", f"answer {e.completion!r}, choices {list(e.choices)}")
        elif len(set(e.choices)) < len(e.choices):
            yield entry.finding("repeated_choice", f"choices {list(e.choices)}")
    for kind, message in faults(entry.texts).items():
        yield entry.finding(kind, message)


def repeated(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Leaks, exact duplicates and conflicting answers; two accepted answers to a prompt are no conflict."""
    seen: dict[tuple[str, ...], dict[str, dict[str, Entry]]] = defaultdict(dict)  # question → part → answer → first
    for entry in entries:
        parts = seen[entry.question]
        for part, answers in parts.items():
            if part != entry.part:
                same = entry.answer in answers or not entry.traits.prompted
                other = answers.get(entry.answer) or next(iter(answers.values()))
                what = f"stands in {entry.part} and in {part}"
                yield entry.finding("leak", what if same else f"{what}, with another answer", other)
        answers = parts.setdefault(entry.part, {})
        if entry.answer in answers:
            yield entry.finding("exact_duplicate", f"twice in {entry.part}", answers[entry.answer])
        elif answers and not any(entry.accepts(other) or other.accepts(entry) for other in answers.values()):
            first = next(iter(answers.values()))
            message = f"one prompt, two answers: {excerpt(first.answer)} and {excerpt(entry.answer)}"
            yield entry.finding(
                "conflicting_answers", message, first, "error" if entry.traits.one_answer else "warning"
            )
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
    written = [("\n".join(e.question), e.answer) if e.traits.free_text else ("\n".join(e.question),) for e in fresh]
    for pair in closest(written, [entry.part for entry in fresh]):
        entry, other = fresh[pair.index], fresh[pair.other]
        if entry.question == other.question:
            continue  # a leak or a conflict
        here, there = apart(entry.last_turn, other.last_turn)
        message = f"{pair.likeness:.2f} alike: {there}"
        if entry.traits.one_answer and entry.answer != other.answer:
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
    if len(train) == 1 and sum(train.values()) > 1:
        (label,) = train
        yield Finding("one_class", "warning", "train", f"every example has the label {label!r}")
    if train and max(train.values()) >= IMBALANCE * min(train.values()):
        most, least = max(train, key=train.__getitem__), min(train, key=train.__getitem__)
        message = f"{train[most]} examples of {most!r}, {train[least]} of {least!r}"
        yield Finding("imbalance", "warning", "train", message)
