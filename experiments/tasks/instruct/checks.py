"""The checks of the task instruct: whether an answer keeps the constraint that the prompt's slots spell out.

A check sees the slots and what was answered, and nothing else: so an answer that keeps the constraint counts even
where it is not the gold one. Where the letters' case or a full stop is not the point, they do not count.
"""

from __future__ import annotations

import json
import re
from functools import cache

from unicode_rbnf import FormatPurpose, RbnfEngine

Slots = dict[str, str]

LANGUAGES = {"English": "en", "German": "de", "Spanish": "es", "French": "fr"}
PLACES = {"first": 0, "second": 1, "third": 2, "fourth": 3}


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text)


def bare(text: str) -> str:
    """Without white space, quotes and one full stop around it."""
    return text.strip().strip("\"'`“”").removesuffix(".").strip()


def is_sentence(text: str) -> bool:
    """One sentence, of at least four words."""
    return re.fullmatch(r"[A-Z][^.!?\n]*[.!]", text.strip()) is not None and len(words_of(text)) >= 4


engine = cache(RbnfEngine.for_language)  # reads the language's rules from a file


def spelled(number: int, language: str) -> str:
    """The number in words; the soft hyphens of long German ones are left out."""
    return engine(LANGUAGES[language]).format_number(number, FormatPurpose.CARDINAL).text.replace("\u00ad", "")


def items(slots: Slots) -> list[str]:
    return slots["words"].split(", ")


def is_upper(slots: Slots, said: str) -> bool:
    return bare(said) == bare(slots["sentence"].upper())


def is_reversed(slots: Slots, said: str) -> bool:
    return words_of(said.lower()) == items(slots)[::-1]


def is_sorted(slots: Slots, said: str) -> bool:
    return words_of(said.lower()) == sorted(items(slots))


def is_number_of(right: int, said: str) -> bool:
    return re.findall(r"\d+", said) == [str(right)]


def counts_words(slots: Slots, said: str) -> bool:
    return is_number_of(len(words_of(slots["sentence"])), said)


def counts_letters(slots: Slots, said: str) -> bool:
    return is_number_of(len(slots["word"]), said)


def is_json(slots: Slots, said: str) -> bool:
    try:
        return json.loads(said) == items(slots)
    except (ValueError, RecursionError):
        return False


def is_bullets(slots: Slots, said: str) -> bool:
    return [line.strip() for line in said.strip().splitlines()] == [f"- {word}" for word in items(slots)]


def is_spelled(slots: Slots, said: str) -> bool:
    return bare(said).casefold() == spelled(int(slots["number"]), slots["language"]).casefold()


def includes(slots: Slots, said: str) -> bool:
    return is_sentence(said) and slots["word"] in words_of(said.lower())


def has_length(slots: Slots, said: str) -> bool:
    return includes(slots, said) and len(words_of(said)) == int(slots["n"])


def is_repeated(slots: Slots, said: str) -> bool:
    return bare(said).lower() == ", ".join([slots["word"]] * int(slots["n"]))


def is_initials(slots: Slots, said: str) -> bool:
    return bare(said) == "".join(word[0].upper() for word in items(slots))


def is_picked(slots: Slots, said: str) -> bool:
    return words_of(said.lower()) == [items(slots)[PLACES[slots["place"]]]]


def has_ends(slots: Slots, said: str) -> bool:
    found = words_of(said)
    return is_sentence(said) and found[0] == slots["first"] and found[-1] == slots["last"]


def is_replaced(slots: Slots, said: str) -> bool:
    return bare(said) == bare(slots["sentence"].replace(slots["old"], slots["new"]))
