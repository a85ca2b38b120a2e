"""Ever shorter versions of an example whose prompt is too long: it loses turns, then sentences, then words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from experiments.tasks.base import Example

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])(?![。！？」』”])\s*|\n+")
WORD_END = re.compile(r"\s+")


@dataclass(frozen=True)
class Cut:
    """What a prompt lost to optim.max_length: whole turns, whole sentences of what is left, and the tokens of both."""

    turns: int = 0
    sentences: int = 0
    tokens: int = 0


def shortened(example: Example) -> list[tuple[Callable[[], Example], Cut]]:
    """Ever shorter versions of an example's prompt: fewer turns, then fewer sentences, then fewer words.

    A version is made when it is asked for: a long text has as many as it has words.
    """
    versions: list[tuple[Callable[[], Example], Cut]] = []
    n_turns = 0
    if example.messages:
        n_system = next((i for i, turn in enumerate(example.messages) if turn["role"] != "system"), 0)
        system, others = example.messages[:n_system], example.messages[n_system:]
        # A template may insist that the user begins.
        for start in (i for i in range(1, len(others)) if others[i]["role"] == "user"):
            example, n_turns = replace(example, messages=(*system, *others[start:])), start
            versions.append((partial(replace, example), Cut(turns=n_turns)))
    shortest: Callable[[], Example] = partial(replace, example)
    n_sentences = 0
    for place in places(example):
        before, n_before = shortest, n_sentences
        for start, n in endings(text_at(example, place)):
            shortest, n_sentences = partial(without_beginning, before, place, start), n_before + n
            versions.append((shortest, Cut(n_turns, n_sentences)))
    return versions


def places(example: Example) -> list[int | str]:
    """Where a prompt may lose its beginning, in this order: its texts; of a chat the turn that opens it, after the
    system's, and then the last one, before which others may stand, as a tool's answer is."""
    if not example.messages:
        return ["text"] if example.text_pair is None else ["text", "text_pair"]
    last = len(example.messages) - 1
    first = next((i for i, turn in enumerate(example.messages) if turn["role"] != "system"), last)
    return list(dict.fromkeys([first, last]))


def text_at(example: Example, place: int | str) -> str:
    return getattr(example, place) if isinstance(place, str) else example.messages[place]["content"]


def without_beginning(make: Callable[[], Example], place: int | str, start: int) -> Example:
    """The example that is made, without what stands before this character of the text at the place."""
    example = make()
    rest = text_at(example, place)[start:]
    if isinstance(place, str):
        return replace(example, **{place: rest})
    turns = list(example.messages)
    turns[place] = {**turns[place], "content": rest}
    return replace(example, messages=tuple(turns))


def endings(text: str) -> list[tuple[int, int]]:
    """Where the text begins without its first sentences, and how many these are; then without the last one's words."""
    length = len(text.rstrip())
    starts = [match.end() for match in SENTENCE_END.finditer(text) if match.end() < length]
    last = starts[-1] if starts else 0
    words = [match.end() for match in WORD_END.finditer(text, last) if last < match.end() < length]
    return [(start, n) for n, start in enumerate(starts, 1)] + [(start, len(starts)) for start in words]
