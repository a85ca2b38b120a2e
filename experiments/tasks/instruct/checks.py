"""The checks of the task instruct: whether an answer keeps the constraint that the prompt's slots spell out.

A check sees the slots and what was answered, and nothing else: so an answer that keeps the constraint counts even
where it is not the gold one. Where the letters' case or a full stop is not the point, they do not count.
"""

from __future__ import annotations

import json
import re

Slots = dict[str, str]

MOST_BESIDES = 4  # words beside a number that is asked for
PLACES = {"first": 0, "second": 1, "third": 2, "fourth": 3}


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text)


def bare(text: str) -> str:
    """Without white space, quotes and one full stop around it."""
    return text.strip().strip("\"'`“”").removesuffix(".").strip()


def items(slots: Slots) -> list[str]:
    return slots["words"].split(", ")


def is_upper(slots: Slots, answer: str) -> bool:
    return bare(answer) == bare(slots["sentence"].upper())


def is_reversed(slots: Slots, answer: str) -> bool:
    return words_of(answer.lower()) == items(slots)[::-1]


def is_sorted(slots: Slots, answer: str) -> bool:
    return words_of(answer.lower()) == sorted(items(slots))


def number_in(text: str) -> str:
    """The first number that is written in digits."""
    return re.findall(r"\d+", text)[0]


def without(slots: Slots) -> list[str]:
    return [word for word in items(slots) if word != slots["word"]]


def is_quoted(slots: Slots, answer: str) -> bool:
    return answer.strip().translate(str.maketrans("“”", '""')) == f'"{slots["sentence"]}"'


def is_last_word(slots: Slots, answer: str) -> bool:
    return words_of(answer.lower()) == [words_of(slots["sentence"])[-1]]


def is_the_number(slots: Slots, answer: str) -> bool:
    """It is told, and not by saying the whole sentence again."""
    return re.findall(r"\d+", answer) == [number_in(slots["sentence"])] and len(words_of(answer)) <= MOST_BESIDES


def is_copied(slots: Slots, answer: str) -> bool:
    return bare(answer) == bare(slots["sentence"])


def is_sentence(text: str, ends: str = ".!") -> bool:
    """One sentence, of at least four words."""
    return re.fullmatch(rf"[A-Z][^.!?\n]*[{ends}]", text.strip()) is not None and len(words_of(text)) >= 4


def includes(slots: Slots, answer: str) -> bool:
    return is_sentence(answer) and slots["word"] in words_of(answer.lower())


def includes_both(slots: Slots, answer: str) -> bool:
    return is_sentence(answer) and {slots["first"], slots["second"]} <= set(words_of(answer.lower()))


def asks(slots: Slots, answer: str) -> bool:
    return is_sentence(answer, "?") and slots["word"] in words_of(answer.lower())


def completes(slots: Slots, answer: str) -> bool:
    return is_sentence(answer) and words_of(answer)[:3] == ["The", slots["adjective"], slots["word"]]


def begins(slots: Slots, answer: str) -> bool:
    """One word of two letters or more."""
    words = words_of(answer.lower())
    return len(words) == 1 and len(words[0]) > 1 and words[0].startswith(slots["letter"])


def is_json(slots: Slots, answer: str) -> bool:
    try:
        return json.loads(answer) == items(slots)
    except (ValueError, RecursionError):
        return False


def is_bullets(slots: Slots, answer: str) -> bool:
    return [line.strip() for line in answer.strip().splitlines()] == [f"- {word}" for word in items(slots)]


def is_joined(slots: Slots, answer: str) -> bool:
    return bare(answer).lower() == "-".join(items(slots))


def is_without(slots: Slots, answer: str) -> bool:
    return words_of(answer.lower()) == without(slots)


def is_repeated(slots: Slots, answer: str) -> bool:
    return bare(answer).lower() == ", ".join([slots["word"]] * int(slots["n"]))


def is_picked(slots: Slots, answer: str) -> bool:
    return words_of(answer.lower()) == [items(slots)[PLACES[slots["place"]]]]


def is_replaced(slots: Slots, answer: str) -> bool:
    return bare(answer) == bare(slots["sentence"].replace(slots["old"], slots["new"]))
