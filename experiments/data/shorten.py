"""Ever shorter versions of an example whose prompt is too long: it loses turns, then sentences, then words."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from experiments.tasks.base import Example

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])(?![。！？」』”])\s*|\n+")
WORD_END = re.compile(r"\s+")


@dataclass(frozen=True)
class Cut:
    """What a prompt lost to optim.max_length: whole turns, whole sentences of what is left, and the tokens of both."""

    turns: int = 0
    sentences: int = 0
    tokens: int = 0


class Version(NamedTuple):
    """A shorter example, made when it is asked for: a long text has as many as it has words. before: what it is cut
    from, without the characters up to `start` of the text at the place; None: it is that itself."""

    before: Callable[[], Example]
    turns: int
    sentences: int = 0
    place: int | str | None = None
    start: int = 0

    def made(self) -> Example:
        example = self.before()
        if self.place is None:
            return example
        rest = text_at(example, self.place)[self.start :]
        if isinstance(self.place, str):
            return replace(example, **{self.place: rest})
        turns = list(example.messages)
        turns[self.place] = {**turns[self.place], "content": rest}
        return replace(example, messages=tuple(turns))


def shortened(example: Example) -> list[Version]:
    """Ever shorter versions of an example's prompt: fewer turns, then fewer sentences, then fewer words."""
    versions: list[Version] = []
    n_turns = 0
    if example.messages:
        n_system = next((i for i, turn in enumerate(example.messages) if turn["role"] != "system"), 0)
        system, others = example.messages[:n_system], example.messages[n_system:]
        # A template may insist that the user begins.
        for start in (i for i in range(1, len(others)) if others[i]["role"] == "user"):
            example, n_turns = replace(example, messages=(*system, *others[start:])), start
            versions.append(Version(partial(replace, example), n_turns))
    shortest = Version(partial(replace, example), n_turns)
    for place in places(example):
        before, n_before = shortest.made, shortest.sentences
        versions += [
            Version(before, n_turns, n_before + n, place, start) for start, n in endings(text_at(example, place))
        ]
        shortest = versions[-1] if versions and versions[-1].place == place else shortest
    return versions


def longest_within(versions: Sequence[Version], fits: Callable[[Example], bool]) -> Version | None:
    """The first version that fits, where all after it do; None where not even the last one does.

    It is looked for from the shortest, in steps that double, so that what is read is a few times what fits, however
    long the text is.
    """
    n, step = len(versions), 1
    while step <= n and fits(versions[n - step].made()):
        step *= 2
    least, most = max(0, n - step + 1), n - step // 2  # the first that fits lies from `least` to `most`
    first = bisect_left(range(least, most), True, key=lambda i: fits(versions[i].made())) + least
    return versions[first] if first < n else None


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


def endings(text: str) -> list[tuple[int, int]]:
    """Where the text begins without its first sentences, and how many these are; then without the last one's words."""
    length = len(text.rstrip())
    starts = [match.end() for match in SENTENCE_END.finditer(text) if match.end() < length]
    last = starts[-1] if starts else 0
    words = [match.end() for match in WORD_END.finditer(text, last) if last < match.end() < length]
    return [(start, n) for n, start in enumerate(starts, 1)] + [(start, len(starts)) for start in words]
