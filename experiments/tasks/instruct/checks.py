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
MOST_BESIDES = 4  # words beside a number that is asked for
PLACES = {"first": 0, "second": 1, "third": 2, "fourth": 3}


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text)


def bare(text: str) -> str:
    """Without white space, quotes and one full stop around it."""
    return text.strip().strip("\"'`“”").removesuffix(".").strip()


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


def number_in(text: str) -> str:
    """The first number that is written in digits."""
    return re.findall(r"\d+", text)[0]


def stretch(slots: Slots) -> range:
    return range(int(slots["start"]), int(slots["end"]) + 1)


def without(slots: Slots) -> list[str]:
    return [word for word in items(slots) if word != slots["word"]]


def is_quoted(slots: Slots, said: str) -> bool:
    return said.strip().translate(str.maketrans("“”", '""')) == f'"{slots["sentence"]}"'


def is_last_word(slots: Slots, said: str) -> bool:
    return words_of(said.lower()) == [words_of(slots["sentence"])[-1]]


def is_the_number(slots: Slots, said: str) -> bool:
    """It is told, and not by saying the whole sentence again."""
    return re.findall(r"\d+", said) == [number_in(slots["sentence"])] and len(words_of(said)) <= MOST_BESIDES


def counts_up(slots: Slots, said: str) -> bool:
    return re.findall(r"\d+", said) == list(map(str, stretch(slots)))


def is_json(slots: Slots, said: str) -> bool:
    try:
        return json.loads(said) == items(slots)
    except (ValueError, RecursionError):
        return False


def is_bullets(slots: Slots, said: str) -> bool:
    return [line.strip() for line in said.strip().splitlines()] == [f"- {word}" for word in items(slots)]


def is_spelled(slots: Slots, said: str) -> bool:
    return bare(said).casefold() == spelled(int(slots["number"]), slots["language"]).casefold()


def is_joined(slots: Slots, said: str) -> bool:
    return bare(said).lower() == "-".join(items(slots))


def is_without(slots: Slots, said: str) -> bool:
    return words_of(said.lower()) == without(slots)


def is_repeated(slots: Slots, said: str) -> bool:
    return bare(said).lower() == ", ".join([slots["word"]] * int(slots["n"]))


def is_initials(slots: Slots, said: str) -> bool:
    return bare(said) == "".join(word[0].upper() for word in items(slots))


def is_picked(slots: Slots, said: str) -> bool:
    return words_of(said.lower()) == [items(slots)[PLACES[slots["place"]]]]


def is_replaced(slots: Slots, said: str) -> bool:
    return bare(said) == bare(slots["sentence"].replace(slots["old"], slots["new"]))
