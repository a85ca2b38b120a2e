"""The instructions of the task instruct: in each family the wordings, what fills them, an answer, and its check.

A wording's turns stand between " / ", the user's first. What is answered is made from the slots, and varies as they
do: no one answer keeps the constraint of many prompts.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from experiments.tasks.instruct import checks as check
from experiments.tasks.instruct.checks import (
    LANGUAGES,
    PLACES,
    Slots,
    items,
    number_in,
    spelled,
    stretch,
    without,
    words_of,
)

NOUNS = (
    "anchor", "apple", "basket", "bell", "bridge", "bucket", "button", "candle", "carpet", "castle", "chair", "cloud",
    "coat", "coin", "corner", "cup", "desk", "door", "drum", "engine", "farm", "feather", "field", "flag", "flower",
    "forest", "garden", "glass", "hammer", "harbour", "hill", "horse", "island", "jacket", "kettle", "key", "kitchen",
    "ladder", "lake", "lamp", "letter", "market", "meadow", "mirror", "moon", "morning", "mountain", "needle", "nest",
    "ocean", "orange", "paper", "pencil", "piano", "picture", "pocket", "river", "road", "roof", "rope", "school",
    "shadow", "ship", "shoe", "silver", "snow", "spoon", "spring", "stone", "storm", "street", "summer", "table",
    "ticket", "tiger", "tower", "train", "tree", "valley", "village", "violin", "wagon", "water", "wheel", "window",
    "winter", "wood", "yard",
)  # fmt: skip
ADJECTIVES = (
    "old", "new", "quiet", "dark", "bright", "heavy", "small", "wide", "narrow", "strange", "empty", "clean", "broken",
    "famous", "cheap", "warm", "cold", "soft", "lovely", "plain",
)  # fmt: skip
# Sentences about two things; no word but {noun} and {other} is one of NOUNS.
ABOUT = (
    "The {noun} near the {other} is {adjective}.", "Last week we saw the {adjective} {noun} behind the {other}.",
    "Nobody knows where the {adjective} {noun} is, nor the {other}.", "My sister drew the {noun} beside the {other}.",
    "In the evening the {noun} looks {adjective}, unlike the {other}.",
    "They sold the {adjective} {noun} for a {other}.",
    "The {noun} was {adjective} until somebody moved the {other}.",
    "Please leave the {noun} next to the {adjective} {other}.",
    "A {adjective} {noun} cannot stand without a {other}.", "He dreamt of the {noun} and of the {adjective} {other}.",
    "She found the {noun} under the {adjective} {other}.",
    "Every {noun} here is {adjective}, says the man with the {other}.",
)  # fmt: skip
NUMBERED = (
    "We counted {number} birds near the {noun}.", "The {noun} cost {number} euros.",
    "About {number} people saw the {noun}.",
    "Page {number} shows the {adjective} {noun}.", "After {number} days the {noun} was {adjective} again.",
    "Bus {number} stops at the {adjective} {noun}.", "There are {number} steps between here and the {noun}.",
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    wordings: tuple[str, ...]
    draw: Callable[[random.Random], Slots]
    answer: Callable[[Slots, random.Random], str]
    met: Callable[[Slots, str], bool]


# What fills the wordings


def some_words(rng: random.Random) -> Slots:
    return {"words": ", ".join(rng.sample(NOUNS, rng.randint(3, 5)))}


def unsorted_words(rng: random.Random) -> Slots:
    """Not in the order that they are to be brought into."""
    slots = some_words(rng)
    return unsorted_words(rng) if items(slots) == sorted(items(slots)) else slots


def word_and_times(rng: random.Random) -> Slots:
    return {"word": rng.choice(NOUNS), "n": str(rng.randint(2, 6))}


def a_sentence(rng: random.Random) -> Slots:
    noun, other = rng.sample(NOUNS, 2)
    return {"sentence": rng.choice(ABOUT).format(noun=noun, other=other, adjective=rng.choice(ADJECTIVES))}


def a_numbered_sentence(rng: random.Random) -> Slots:
    filled = {"number": rng.randint(2, 999), "noun": rng.choice(NOUNS), "adjective": rng.choice(ADJECTIVES)}
    return {"sentence": rng.choice(NUMBERED).format(**filled)}


def a_number(rng: random.Random) -> Slots:
    return {"number": str(rng.randint(11, 999)), "language": rng.choice(list(LANGUAGES))}


def words_and_place(rng: random.Random) -> Slots:
    return {"words": ", ".join(rng.sample(NOUNS, 4)), "place": rng.choice(list(PLACES))}


def words_and_one(rng: random.Random) -> Slots:
    words = rng.sample(NOUNS, rng.randint(4, 5))
    return {"words": ", ".join(words), "word": rng.choice(words)}


def a_stretch(rng: random.Random) -> Slots:
    start = rng.randint(2, 400)
    return {"start": str(start), "end": str(start + rng.randint(3, 6))}


def a_replacement(rng: random.Random) -> Slots:
    old, new, other = rng.sample(NOUNS, 3)
    sentence = rng.choice(ABOUT).format(noun=old, other=other, adjective=rng.choice(ADJECTIVES))
    return {"old": old, "new": new, "sentence": sentence}


FAMILIES = {
    "capitals": Family(
        (
            "Write this in capital letters: {sentence}", "{sentence} / I see. / Say that again, all in upper case.",
            "Turn every letter of this sentence into a capital: {sentence}", "Shout this in upper case: {sentence}",
            "Convert to uppercase: {sentence}",
        ),
        a_sentence, lambda slots, _: slots["sentence"].upper(), check.is_upper,
    ),
    "reverse": Family(
        (
            "Give these words in reverse order: {words}", "{words} / Noted. / Now list them backwards.",
            "Reverse the order of this list: {words}", "Start from the end and list these words: {words}",
            "Turn this list around: {words}",
        ),
        some_words, lambda slots, _: ", ".join(items(slots)[::-1]), check.is_reversed,
    ),
    "sort": Family(
        (
            "Sort these words alphabetically: {words}", "{words} / Noted. / Put them in alphabetical order.",
            "Order this list from A to Z: {words}", "Arrange by alphabet: {words}",
            "List these as a dictionary would order them: {words}",
        ),
        unsorted_words, lambda slots, _: ", ".join(sorted(items(slots))), check.is_sorted,
    ),
    "quote": Family(
        (
            "Put this in double quotes: {sentence}", "{sentence} / I see. / Write that between double quotes.",
            "Set quotation marks around this sentence: {sentence}", "Quote me, with quotation marks: {sentence}",
            "Give this back in \"…\": {sentence}",
        ),
        a_sentence, lambda slots, _: f'"{slots["sentence"]}"', check.is_quoted,
    ),
    "last word": Family(
        (
            "What is the last word of this sentence? {sentence}", "{sentence} / I see. / Say only its last word.",
            "Give the final word alone: {sentence}", "With which word does this end? {sentence}",
            "Answer with one word, the last of this: {sentence}",
        ),
        a_sentence, lambda slots, _: words_of(slots["sentence"])[-1], check.is_last_word,
    ),
    "find number": Family(
        (
            "Which number stands in this sentence? {sentence}", "{sentence} / I see. / Repeat the number alone.",
            "Give only the number: {sentence}", "Read this and name its number: {sentence}",
            "Copy the number out of this: {sentence}",
        ),
        a_numbered_sentence, lambda slots, _: number_in(slots["sentence"]), check.is_the_number,
    ),
    "count up": Family(
        (
            "Count from {start} to {end}, with commas.",
            "Start at {start}. / All right. / Count on to {end}, with commas.",
            "List the whole numbers from {start} up to {end}.", "Write {start} and all that follows, up to {end}.",
            "Give me every number between {start} and {end}, both included.",
        ),
        a_stretch, lambda slots, _: ", ".join(map(str, stretch(slots))), check.counts_up,
    ),
    "json": Family(
        (
            "Write these words as a JSON list: {words}", "{words} / Noted. / Give me that as a JSON array of strings.",
            "Convert to a JSON array: {words}", "Answer with valid JSON, a list of these: {words}",
            "Make a JSON list out of {words}",
        ),
        some_words, lambda slots, _: json.dumps(items(slots)), check.is_json,
    ),
    "bullets": Family(
        (
            "Make a list with a dash before each word: {words}", "{words} / Noted. / Now as lines with a dash.",
            "Write each of these on its own line after \"- \": {words}", "Turn this into dashed lines: {words}",
            "Show these as a list of lines that start with a dash: {words}",
        ),
        some_words, lambda slots, _: "\n".join(f"- {word}" for word in items(slots)), check.is_bullets,
    ),
    "spell number": Family(
        (
            "Write {number} in {language} words.", "What is {number} in words, in {language}?",
            "I have the number {number}. / All right. / Spell it out in {language}.",
            "Say {number} in {language}, without digits.", "Spell the number {number} in {language}.",
        ),
        a_number, lambda slots, _: spelled(int(slots["number"]), slots["language"]), check.is_spelled,
    ),
    "join": Family(
        (
            "Join these words with hyphens: {words}", "{words} / Noted. / Write them as one, with hyphens between.",
            "Put hyphens in place of the commas: {words}", "Make one long word with hyphens of {words}",
            "Connect by hyphens, without spaces: {words}",
        ),
        some_words, lambda slots, _: "-".join(items(slots)), check.is_joined,
    ),
    "drop": Family(
        (
            "Leave {word} out of this list: {words}", "{words} / Noted. / Now the same without {word}.",
            "Write this list again but for {word}: {words}", "Strike {word} from these: {words}",
            "Give me all of these except {word}: {words}",
        ),
        words_and_one, lambda slots, _: ", ".join(without(slots)), check.is_without,
    ),
    "repeat": Family(
        (
            "Repeat the word {word} {n} times, with commas between.", "Say {word} {n} times, separated by commas.",
            "My word is {word}. / All right. / Write it {n} times, with commas.",
            "Write {n} times the word {word}; put a comma between them.", "Give me {word}, {n} times, comma separated.",
        ),
        word_and_times, lambda slots, _: ", ".join([slots["word"]] * int(slots["n"])), check.is_repeated,
    ),
    "initials": Family(
        (
            "Make an acronym of the first letters: {words}", "{words} / Noted. / Which acronym do their initials make?",
            "Join the first letters of these words, in capitals: {words}", "Abbreviate by initials: {words}",
            "Take the initial of each word and write them together in upper case: {words}",
        ),
        some_words, lambda slots, _: "".join(word[0].upper() for word in items(slots)), check.is_initials,
    ),
    "pick": Family(
        (
            "Give only the {place} word: {words}", "{words} / Noted. / Which one was the {place}? Say only that word.",
            "Answer with one word, the {place} of these: {words}", "Pick the {place} item: {words}",
            "From this list, name the {place} and nothing else: {words}",
        ),
        words_and_place, lambda slots, _: items(slots)[PLACES[slots["place"]]], check.is_picked,
    ),
    "replace": Family(
        (
            "Replace {old} with {new}: {sentence}", "{sentence} / I see. / Say it again with {new} in place of {old}.",
            "Rewrite this, but change {old} to {new}: {sentence}", "Put {new} where {old} stands: {sentence}",
            "In the next sentence swap {old} for {new}. {sentence}",
        ),
        a_replacement, lambda slots, _: slots["sentence"].replace(slots["old"], slots["new"]), check.is_replaced,
    ),
}  # fmt: skip
