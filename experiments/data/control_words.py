"""Control words, the texts of a tokenizer's special tokens, where they stand in the data: there they are text.

Each is broken after its first character, so that no tokenizer, fast or slow, takes it for the token; all other text
becomes the tokens that it always becomes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from experiments.data.text_faults import SURROGATE

Span = tuple[int, int]


class Refused(ValueError):
    """What a template or a tokenizer has against the texts of a record."""


@dataclass(frozen=True)
class ControlWords:
    """The control words of a tokenizer. more: tokens that its chat template writes, called special or not."""

    tokenizer: Any
    more: tuple[str, ...] = ()

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches any of them, the longest first; one of a single character cannot be broken, and is left out."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {}).values()
        special = {str(token) for token in added if token.special} | {*self.more}
        words = sorted((word for word in special if len(word) > 1), key=lambda word: (-len(word), word))
        return re.compile("|".join(map(re.escape, words)) or "(?!)")

    def within(self, texts: Iterable[str]) -> list[str]:
        """Those that stand in the texts, each once."""
        return list(dict.fromkeys(word for text in texts for word in self.pattern.findall(text)))

    def checked(self, texts: Sequence[str]) -> list[str]:
        """Those that stand in texts which are read as they are. Raises Refused, as `read` does."""
        for text in texts:
            whole(text)
        return self.within(texts)

    def ids(self, text: str, first: bool = True) -> list[int]:
        """The ids of a text of the data, without special tokens in it or around it. first: nothing stands before it."""
        return self.broken(text, [match.start() + 1 for match in self.pattern.finditer(text)], first=first)[0]

    def broken(
        self, text: str, places: Sequence[int], spans: bool = False, first: bool = True
    ) -> tuple[list[int], list[Span]]:
        """The ids of a text that is broken at these places and, where they are asked for, the span of each token."""
        ids: list[int] = []
        where: list[Span] = []
        for start, stop in zip([0, *places], [*places, len(text)]):
            read = self.following if start or not first else self.read
            more, of_more = read(text[start:stop], spans)
            ids += more
            where += [(start + a, start + b) for a, b in of_more]
        return ids, where

    def following(self, text: str, spans: bool) -> tuple[list[int], list[Span]]:
        """What a text becomes that is not the first: some tokenizers put a space before that. So it is read after a
        line's end, which is taken off again."""
        line_end, _ = self.read("\n", False)
        ids, where = self.read(f"\n{text}", spans)
        if ids[: len(line_end)] != line_end:
            return self.read(text, spans)
        return ids[len(line_end) :], [(max(0, a - 1), b - 1) for a, b in where[len(line_end) :]]

    def read(self, text: str, spans: bool) -> tuple[list[int], list[Span]]:
        """What the tokenizer itself makes of a text. Raises Refused for half a character, which no tokenizer takes."""
        whole(text)
        how = {"return_offsets_mapping": True} if spans else {}
        read = self.tokenizer(text, add_special_tokens=False, **how)
        return list(read["input_ids"]), [tuple(span) for span in read.get("offset_mapping", ())]


def whole(text: str) -> None:
    """Raise Refused where the text has half of a character."""
    if not text.isascii() and (half := SURROGATE.search(text)):
        raise Refused(f"half of a character, U+{ord(half[0]):04X}, which no tokenizer reads")
