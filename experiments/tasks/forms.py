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

A record of turns may have "tools", "documents" and "chat_template_kwargs", which the chat template is told with all
that its turns have: tool_calls, reasoning_content, name, … A turn of "weight" 0 is not learned. Other fields of a
record are left alone, but for those that a task names as the group and the part.
"""

from __future__ import annotations

from collections.abc import Collection
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

CONTEXT = ("tools", "documents", "chat_template_kwargs")  # fields beside the turns that a chat template is told
# Fields of a turn that change what it says: a template that does not show one would teach something else.
MEANING = (
    *("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking", "name", "refusal"),
    *("tools", "documents", "images", "audio", "videos"),
)
CALLS = ("tool_calls", "function_call")
# Fields of a record that say what it is or how it is learned, and that no form reads, with what to do about them.
WEIGHT = "leave records of weight 0 out, and repeat those that are to weigh more"
REFUSED = {
    **dict.fromkeys(("system", "system_prompt", "history"), "write it as a turn of its own: 'messages'"),
    **dict.fromkeys(("functions", "function_call"), "give functions as 'tools', and calls as 'tool_calls' of a turn"),
    **dict.fromkeys(("image", "images", "video", "videos", "audio"), "only texts are learned; take the record out"),
}
# What is read beside turns alone.
OF_TURNS = dict.fromkeys((*CONTEXT, "tool_calls"), "give 'messages', which a chat template is told with it")
# Other names of fields, by which a record of none of the forms can be told what to rename.
USUAL = {
    **dict.fromkeys(("question", "query", "source"), "prompt"),
    **dict.fromkeys(("response", "target", "solution"), "completion"),
    **dict.fromkeys(("conversations", "conversation", "dialog", "dialogue", "chat"), "messages"),
    **dict.fromkeys(("sentence", "review", "document", "content"), "text"),
    **dict.fromkeys(("class", "category", "sentiment", "intent"), "label"),
}


@dataclass(frozen=True)
class Named:
    """Fields, beside those of the form, that are read: none of a group stands in two parts; quality is by part."""

    group: str | None = None
    part: str | None = None


def form_of(record: Any, place: str, mapped: Collection[str] = ()) -> str:
    """The form whose fields are all there; of several the one with the most fields that were mapped, and then with the
    most fields. Raises TaskError."""
    if not isinstance(record, dict):
        raise TaskError(f"{place}: a record is a JSON object, not {type(record).__name__}")
    turns = {"prompt"} if {"messages", "chosen", "rejected"} <= record.keys() else set()  # these are the prompt
    whole = [form for form, fields in FORMS.items() if turns.union(record).issuperset(fields)]
    if whole:
        form = max(whole, key=lambda form: (sum(f in mapped for f in FORMS[form]), len(FORMS[form])))
        return "text/number" if form == "text/label" and isinstance(record["label"], float) else form
    form = max(FORMS, key=lambda form: sum(f in record for f in FORMS[form]) / len(FORMS[form]))
    missing = [f for f in FORMS[form] if f not in record]
    if 2 * len(missing) > len(FORMS[form]) or renamed(record):
        raise TaskError(
            f"{place}: no known record form in the fields {', '.join(map(repr, record)) or '(none)'}{renamed(record)}; "
            f"there are: {', '.join(FORMS)}"
        )
    raise TaskError(f"{place}: field {missing[0]!r} is missing for a {form} record")


def renamed(record: dict[str, Any]) -> str:
    """What to call fields of other names; "" where that would make no form."""
    names = {field: USUAL[field] for field in record if field in USUAL and USUAL[field] not in record}
    if "answer" in record and "choices" not in record:
        names["answer"] = "completion"
    others = {names.get(field, field) for field in record}
    if not names or not any(others.issuperset(fields) for fields in FORMS.values()):
        return ""
    return f": call {', '.join(f'{own!r} {usual!r}' for own, usual in names.items())}"


def example_of(record: dict[str, Any], form: str, place: str, named: Named | None = None) -> Example:
    """The example of a record of that form. Raises TaskError naming place and field."""
    named = named or Named()
    for field, hint in refused(form, record).items():
        if field not in (named.group, named.part) and record.get(field) not in (None, "", [], {}):
            raise TaskError(f"{place}: field {field!r} is not read in {form} records; {hint}")
    if record.get("weight") not in (None, 1):
        raise TaskError(f"{place}: field 'weight', {record['weight']!r}: a record has none; {WEIGHT}")
    example = READERS[form](record, place)
    group = named_of(record, named.group, place, "task.group")
    return replace(example, group=group, part=named_of(record, named.part, place, "task.part"), place=place)


def refused(form: str, record: dict[str, Any]) -> dict[str, str]:
    """The fields that a record of that form must not have, and what to do about each; of a text to sort or to read any
    other field may say anything."""
    if form in ("text/label", "text/number", "plain text"):
        return {}
    return REFUSED if record.get("messages") is not None and form in ("messages", "preference") else REFUSED | OF_TURNS


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
        return Example(turns_of(record, place, least=1), chosen, choices=choices, context=context_of(record, place))
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
    *earlier, last = turns
    if last["role"] != "assistant":
        raise TaskError(f"{place}: the last turn of 'messages' must be the assistant's, not {last['role']!r}")
    if odd := [field for field in last if field in MEANING]:
        raise TaskError(
            f"{place}: {odd[0]!r} of the last turn cannot be learned, only its content is: write it into the content "
            "as the model is to write it, or end the record at another turn"
        )
    if last.get("weight", 1) == 0:
        raise TaskError(f"{place}: the last turn has weight 0, so nothing is to be learned; end it at another turn")
    return Example(tuple(earlier), last["content"], context=context_of(record, place))


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


def turns_of(record: dict[str, Any], place: str, least: int) -> tuple[dict[str, Any], ...]:
    """The turns with all fields that have a value; one that calls a tool may say nothing."""
    turns = record["messages"]
    if not isinstance(turns, list) or len(turns) < least or not all(isinstance(t, dict) for t in turns):
        raise TaskError(f"{place}: field 'messages' must be a list of {least} turns or more")
    read = []
    for number, given in enumerate(turns, 1):
        turn = {name: value for name, value in given.items() if value not in (None, "", [], {})}
        calls = any(field in turn for field in CALLS)
        for field in ("role", "content"):
            if field not in given and not (calls and field == "content"):
                raise TaskError(f"{place}: a turn of 'messages' has no {field!r}")
            if not (calls and given.get(field) in (None, "")):
                text_of(given, field, place)
        if (weight := turn.get("weight", 1)) not in (0, 1):
            raise TaskError(f"{place}: 'weight' of turn {number} must be 0 or 1, not {weight!r}")
        read.append({"role": turn["role"], "content": turn.pop("content", ""), **turn})
    return tuple(read)


def context_of(record: dict[str, Any], place: str) -> dict[str, Any]:
    """What a chat template is told beside the turns."""
    context = {field: record[field] for field in CONTEXT if record.get(field)}
    for field, value in context.items():
        objects = isinstance(value, list) and all(isinstance(each, dict) for each in value)
        if not (isinstance(value, dict) if field == "chat_template_kwargs" else objects):
            what = "an object" if field == "chat_template_kwargs" else "a list of objects"
            raise TaskError(f"{place}: field {field!r} must be {what}")
    return context


def named_of(record: dict[str, Any], field: str | None, place: str, setting: str) -> str:
    if field is None:
        return ""
    value = record.get(field)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise TaskError(f"{place}: {setting}={field} needs a text or a whole number in every record, not {value!r}")
    try:
        str(value).encode()
    except UnicodeEncodeError:
        raise TaskError(f"{place}: {setting}={field}: half of a character stands in {value!a}; mend the text") from None
    return str(value)
