"""Rows of public datasets whose answer is written, or a chat's last turn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from experiments.tasks.base import Example, TaskError
from experiments.tasks.forms import turns_of
from experiments.tasks.public.rows import Row

QUESTION = "Question: {}\nAnswer:"
CALCULATOR = re.compile(r"<<[^<>]*>>")  # GSM8K's marks of what a calculator is to compute
SLOT = re.compile(r"\s*([^,\[\]]+)\[([^\]]*)\]\s*(?:,|$)")


def one_line(text: str) -> str:
    return " ".join(text.split())


def gsm8k(row: Row) -> Example:
    """{"question", "answer"}; the answer ends in "#### 18". The group is the question, which MetaMathQA rephrases."""
    question, answer = row.text("question"), CALCULATOR.sub("", row.text("answer"))
    if "####" not in answer:
        raise TaskError(f"{row.place}: column 'answer' has no #### before the number")
    return Example(completion=answer, text=QUESTION.format(question), group=one_line(question), place=row.place)


def metamath(row: Row) -> Example:
    """{"query", "response", "type", "original_question"}; the response ends in "The answer is: 18"."""
    original = row.text("original_question") if "original_question" in row.values else row.text("query")
    query, group, kind = row.text("query"), one_line(original), row.text("type")
    return Example(
        completion=row.text("response"), text=QUESTION.format(query), group=group, part=kind, place=row.place
    )


def scitldr(row: Row) -> Example:
    """{"source", "target"}: sentences of an abstract, and one or more summaries of a sentence."""
    source, targets = row.texts("source"), row.texts("target")
    text = f"Abstract: {' '.join(source)}\nSummary in one sentence:"
    references = tuple(dict.fromkeys(targets)) if len(targets) > 1 else ()
    group = str(row.values.get("paper_id") or "")
    return Example(completion=targets[0], text=text, references=references, group=group, place=row.place)


def e2e(row: Row) -> Example:
    """{"meaning_representation", "human_reference"}: name[The Eagle], food[French] becomes name : The Eagle | …"""
    meaning = row.text("meaning_representation")
    slots = SLOT.findall(meaning)
    if not slots or SLOT.sub("", meaning).strip():
        raise TaskError(f"{row.place}: column 'meaning_representation' is no list of slot[value]: {meaning!r}")
    text = " | ".join(f"{slot.strip()} : {value.strip()}" for slot, value in slots)
    return Example(completion=row.text("human_reference"), text=text, group=text, place=row.place)


def with_references(examples: Sequence[Example]) -> list[Example]:
    """One example of each prompt, with the answers of all as its references."""
    by_text: dict[str, list[Example]] = {}
    for example in examples:
        by_text.setdefault(example.text, []).append(example)
    return [
        replace(same[0], references=tuple(dict.fromkeys(one.completion for one in same)) if len(same) > 1 else ())
        for same in by_text.values()
    ]


def tulu(row: Row) -> Example:
    """{"messages", "source"}: a chat, of which the assistant's last turn is learned."""
    turns = turns_of({"messages": row.get("messages")}, row.place, least=2)
    if turns[-1]["role"] != "assistant":
        raise TaskError(f"{row.place}: the last turn of 'messages' must be the assistant's, not {turns[-1]['role']!r}")
    return Example(turns[:-1], turns[-1]["content"], part=str(row.values.get("source") or ""), place=row.place)
