"""An example as the data gate compares it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unicodedata import normalize

from experiments.data.findings import KINDS, Finding, excerpt
from experiments.tasks.base import TRAITS, Example, Traits


@dataclass(frozen=True)
class Entry:
    """An example with its part and index, and its texts as they are compared."""

    part: str
    index: int
    example: Example
    kind: str

    @property
    def traits(self) -> Traits:
        return TRAITS[self.kind]

    @property
    def place(self) -> str:
        return self.example.place or f"{self.part}#{self.index}"

    @cached_property
    def question(self) -> tuple[str, ...]:
        e = self.example
        turns = [text for turn in e.messages for text in (turn["role"], turn["content"], *more(turn))]
        turns += more(e.context)
        return tuple(map(plain, (*turns, e.text, *([] if e.text_pair is None else [e.text_pair]), *sorted(e.choices))))

    @cached_property
    def answer(self) -> str:
        return plain(self.example.completion)

    def accepts(self, other: Entry) -> bool:
        """Whether the other's answer is among those that this example's references name."""
        return other.answer in map(plain, self.example.references)

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


def more(fields: dict[str, Any]) -> list[str]:
    """What a turn, or a record, says beside its text."""
    others = {name: value for name, value in fields.items() if name not in ("role", "content", "weight")}
    return [json.dumps(others, sort_keys=True)] if others else []


def plain(text: str) -> str:
    return " ".join(text.split()) if text.isascii() else " ".join(normalize("NFC", text).split())
