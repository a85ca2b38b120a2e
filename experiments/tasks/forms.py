"""The forms of a record, and the example that a record is.

    {"text", "label"}                       classification; with "text_pair", of two texts. Where the label is a number
                                            with a point, as 4.0, that number is what is asked for
    {"prompt", "completion"}                text to write; with "references", all the accepted answers
    {"instruction", "output"}               the same, with an optional "input"
    {"messages"}                            a chat whose last turn is the assistant's
    {"prompt", "chosen", "rejected"}        a preference: `chosen` is learned and to be found likelier; with "messages"
                                            these are the prompt
    {"prompt", "choices", "answer"}         a multiple choice; the answer is the index of a choice, from 0
    {"text"}                                plain text, all of it to be learned

Other fields are left alone, but for those that a task names as the group and the part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from experiments.tasks.base import Example, Kind, TaskError

FORMS = {
    "text/label": ("text", "label"),
    "prompt/completion": ("prompt", "completion"),
    "instruction/output": ("instruction", "output"),
    "preference": ("prompt", "chosen", "rejected"),
    "multiple choice": ("prompt", "choices", "answer"),
    "messages": ("messages",),
    "plain text": ("text",),
}
KINDS: dict[str, Kind] = {
    "text/label": "classify",
    "text/number": "rate",
    "preference": "choose",
    "multiple choice": "choose",
    "plain text": "text",
}  # the others: generate


@dataclass(frozen=True)
class Named:
    """Fields, beside those of the form, that are read: none of a group stands in two parts; quality is by part."""

    group: str | None = None
    part: str | None = None


def form_of(record: Any, place: str) -> str:
    """The form whose fields are all there; of several the one with the most. Raises TaskError."""
    if not isinstance(record, dict):
        raise TaskError(f"{place}: a record is a JSON object, not {type(record).__name__}")
    whole = [form for form, fields in FORMS.items() if all(f in record for f in fields)]
    if whole:
        form = max(whole, key=lambda form: len(FORMS[form]))
        return "text/number" if form == "text/label" and isinstance(record["label"], float) else form
    form = max(FORMS, key=lambda form: sum(f in record for f in FORMS[form]))
    missing = [f for f in FORMS[form] if f not in record]
    if len(missing) == len(FORMS[form]):
        raise TaskError(f"{place}: no known record form; there are: {', '.join(FORMS)}")
    raise TaskError(f"{place}: field {missing[0]!r} is missing for a {form} record")


def example_of(record: dict[str, Any], form: str, place: str, named: Named | None = None) -> Example:
    """The example of a record of that form. Raises TaskError naming place and field."""
    named = named or Named()
    example = READERS[form](record, place)
    group = named_of(record, named.group, place, "task.group")
    return replace(example, group=group, part=named_of(record, named.part, place, "task.part"), place=place)


def labelled(record: dict[str, Any], place: str) -> Example:
    label = record["label"]
    if isinstance(label, bool) or not isinstance(label, (str, int)):
        raise TaskError(f"{place}: field 'label' must be a text or a number, not {type(label).__name__}")
    if not str(label).strip():
        raise TaskError(f"{place}: field 'label' is empty")
    return answered(record, str(label), place)


def rated(record: dict[str, Any], place: str) -> Example:
    if not isfinite(record["label"]):
        raise TaskError(f"{place}: field 'label' must be a finite number, not {record['label']}")
    return answered(record, str(record["label"]), place)


def answered(record: dict[str, Any], answer: str, place: str) -> Example:
    pair = text_of(record, "text_pair", place) if record.get("text_pair") is not None else None
    return Example(completion=answer, text=text_of(record, "text", place), text_pair=pair)


def prompted(record: dict[str, Any], place: str) -> Example:
    completion = text_of(record, "completion", place)
    references = texts_of(record, "references", place) if record.get("references") is not None else ()
    if references:
        references = (completion, *(text for text in references if text != completion))
    return Example(completion=completion, text=text_of(record, "prompt", place), references=references)


def instructed(record: dict[str, Any], place: str) -> Example:
    content = text_of(record, "instruction", place)
    if record.get("input") is not None:
        given = text_of(record, "input", place, empty=True)
        content = f"{content}\n\n{given}" if given.strip() else content
    return Example(({"role": "user", "content": content},), text_of(record, "output", place))


def preferred(record: dict[str, Any], place: str) -> Example:
    chosen, rejected = text_of(record, "chosen", place), text_of(record, "rejected", place)
    if chosen == rejected:
        raise TaskError(f"{place}: 'chosen' and 'rejected' are the same text; drop the record")
    # The order must not tell which is right.
    choices = tuple(sorted((chosen, rejected)))
    if record.get("messages") is not None:
        return Example(turns_of(record, place, least=1), chosen, choices=choices)
    return Example(completion=chosen, text=text_of(record, "prompt", place), choices=choices)


def multiple_choice(record: dict[str, Any], place: str) -> Example:
    choices, answer = texts_of(record, "choices", place), record["answer"]
    if len(choices) < 2:
        raise TaskError(f"{place}: field 'choices' must have two texts or more")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise TaskError(f"{place}: field 'answer' must be the index of a choice, 0 to {len(choices) - 1}: {answer!r}")
    return Example(completion=choices[answer], text=text_of(record, "prompt", place), choices=choices)


def chat(record: dict[str, Any], place: str) -> Example:
    turns = turns_of(record, place, least=2)
    if turns[-1]["role"] != "assistant":
        raise TaskError(f"{place}: the last turn of 'messages' must be the assistant's, not {turns[-1]['role']!r}")
    return Example(turns[:-1], turns[-1]["content"])


def plain(record: dict[str, Any], place: str) -> Example:
    return Example(text=text_of(record, "text", place))


READERS = {
    "text/label": labelled,
    "text/number": rated,
    "prompt/completion": prompted,
    "instruction/output": instructed,
    "preference": preferred,
    "multiple choice": multiple_choice,
    "messages": chat,
    "plain text": plain,
}


def mixed(own: str, form: str) -> str:
    """That a record of the form `own` stands among others of another form."""
    hint = "; where 4 is no class, write it with a point, 4.0" if {own, form} == {"text/label", "text/number"} else ""
    return f"a {own} record among {form} records{hint}"


def text_of(record: dict[str, Any], field: str, place: str, empty: bool = False) -> str:
    value = record[field]
    if not isinstance(value, str):
        raise TaskError(f"{place}: field {field!r} must be a text, not {type(value).__name__}")
    if not value.strip() and not empty:
        raise TaskError(f"{place}: field {field!r} is empty")
    return value


def texts_of(record: dict[str, Any], field: str, place: str) -> tuple[str, ...]:
    values = record[field]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TaskError(f"{place}: field {field!r} must be a list of texts")
    if not all(value.strip() for value in values):
        raise TaskError(f"{place}: a text of {field!r} is empty")
    return tuple(values)


def turns_of(record: dict[str, Any], place: str, least: int) -> tuple[dict[str, str], ...]:
    turns = record["messages"]
    if not isinstance(turns, list) or len(turns) < least or not all(isinstance(t, dict) for t in turns):
        raise TaskError(f"{place}: field 'messages' must be a list of {least} turns or more")
    for turn in turns:
        for field in ("role", "content"):
            if field not in turn:
                raise TaskError(f"{place}: a turn of 'messages' has no {field!r}")
            text_of(turn, field, place)
    return tuple({"role": t["role"], "content": t["content"]} for t in turns)


def named_of(record: dict[str, Any], field: str | None, place: str, setting: str) -> str:
    if field is None:
        return ""
    value = record.get(field)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise TaskError(f"{place}: {setting}={field} needs a text or a whole number in every record, not {value!r}")
    return str(value)
