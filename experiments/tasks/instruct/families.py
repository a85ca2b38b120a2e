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
from experiments.tasks.instruct.checks import PLACES, Slots, items, number_in, without, words_of

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
ASKING = (
    "Where did you see", "Who owns", "Why do you like", "What is the colour of", "How old is", "When did they sell",
    "Which of us broke", "What lies behind", "How much would you pay for", "Who has painted",
)  # fmt: skip
ENDING = (
    "is not for sale.", "was here all the time.", "belongs to my aunt.", "looks better in the sun.", "fell over again.",
    "has been moved twice.", "can be seen from the hill.", "will be repaired on Monday.",
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
    return {"sentence": about(rng.choice(NOUNS), rng)}


def a_numbered_sentence(rng: random.Random) -> Slots:
    filled = {"number": rng.randint(2, 999), "noun": rng.choice(NOUNS), "adjective": rng.choice(ADJECTIVES)}
    return {"sentence": rng.choice(NUMBERED).format(**filled)}


def one_word(rng: random.Random) -> Slots:
    return {"word": rng.choice(NOUNS)}


def two_words(rng: random.Random) -> Slots:
    first, second = rng.sample(NOUNS, 2)
    return {"first": first, "second": second}


def a_beginning(rng: random.Random) -> Slots:
    return {"adjective": rng.choice(ADJECTIVES), "word": rng.choice(NOUNS)}


def a_letter(rng: random.Random) -> Slots:
    return {"letter": rng.choice("abcdefghklmnoprstvw")}


def about(noun: str, rng: random.Random, other: str | None = None) -> str:
    """A sentence about a thing, and another thing."""
    other = other or rng.choice([one for one in NOUNS if one != noun])
    return rng.choice(ABOUT).format(noun=noun, other=other, adjective=rng.choice(ADJECTIVES))


def words_and_place(rng: random.Random) -> Slots:
    return {"words": ", ".join(rng.sample(NOUNS, 4)), "place": rng.choice(list(PLACES))}


def words_and_one(rng: random.Random) -> Slots:
    words = rng.sample(NOUNS, rng.randint(4, 5))
    return {"words": ", ".join(words), "word": rng.choice(words)}


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
    "copy": Family(
        (
            "Repeat this sentence exactly: {sentence}", "Say after me: {sentence}", "Copy this: {sentence}",
            "Write the same once more, word for word: {sentence}", "Echo what I say next. {sentence}",
        ),
        a_sentence, lambda slots, _: slots["sentence"], check.is_copied,
    ),
    "include": Family(
        (
            "Write one sentence that contains the word {word}.", "Use the word {word} in a sentence.",
            "My word is {word}. / All right. / Make one sentence with it.", "Give a short sentence with {word} in it.",
            "Compose a single sentence in which {word} occurs.",
        ),
        one_word, lambda slots, rng: about(slots["word"], rng), check.includes,
    ),
    "two words": Family(
        (
            "Write one sentence with the words {first} and {second}.", "Use {first} and {second} in one sentence.",
            "I have a {first} and a {second}. / All right. / Make one sentence of both.",
            "Compose a sentence in which both {first} and {second} occur.",
            "Put the words {first} and {second} into a single sentence.",
        ),
        two_words, lambda slots, rng: about(slots["first"], rng, slots["second"]), check.includes_both,
    ),
    "question": Family(
        (
            "Ask a question about the {word}.", "Write one question that has the word {word} in it.",
            "Let us talk about the {word}. / All right. / Ask me one question about it.",
            "Give me a single question about a {word}.", "Make up a question with {word}.",
        ),
        one_word, lambda slots, rng: f"{rng.choice(ASKING)} the {slots['word']}?", check.asks,
    ),
    "complete": Family(
        (
            "Complete this sentence: The {adjective} {word}", "Finish what I begin: The {adjective} {word}",
            "How might this go on, from its first word? The {adjective} {word}",
            "Write a whole sentence that begins with: The {adjective} {word}",
            "Here is the start of a sentence. Give it all: The {adjective} {word}",
        ),
        a_beginning, lambda slots, rng: "The {adjective} {word} ".format(**slots) + rng.choice(ENDING), check.completes,
    ),
    "letter": Family(
        (
            "Give one word that begins with the letter {letter}.", "Name a thing whose name begins with {letter}.",
            "My letter is {letter}. / All right. / Tell me a word that begins with it.",
            "Say a word that starts with {letter}.", "Which word comes to mind with {letter} at its front? One word.",
        ),
        a_letter, lambda slots, rng: rng.choice([noun for noun in NOUNS if noun[0] == slots["letter"]]), check.begins,
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
