"""The instructions of the task instruct: in each family the wordings, what fills them, an answer, and its check.

A wording's turns stand between " / ", the user's first.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from experiments.tasks.instruct import checks as check
from experiments.tasks.instruct.checks import LANGUAGES, PLACES, Slots, items, spelled, words_of

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
# Sentences about a thing, of 4 to 10 words.
ABOUT = (
    "The {noun} is old.", "The {noun} looks quite new.", "We saw the {noun} last week.",
    "Nobody knows where the {noun} is now.", "My sister likes to draw the {noun} best.",
    "In the evening the {noun} is quiet and dark.", "They bought the {noun} from a man in the city.",
)  # fmt: skip
FIRST_WORDS = ("Yesterday", "Today", "Sometimes", "Perhaps", "Often", "Finally", "Suddenly", "Usually")


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


def one_word(rng: random.Random) -> Slots:
    return {"word": rng.choice(NOUNS)}


def word_and_times(rng: random.Random) -> Slots:
    return {"word": rng.choice(NOUNS), "n": str(rng.randint(2, 6))}


def word_and_length(rng: random.Random) -> Slots:
    return {"word": rng.choice(NOUNS), "n": str(rng.randint(4, 9))}


def a_sentence(rng: random.Random) -> Slots:
    return {"sentence": rng.choice(ABOUT).format(noun=rng.choice(NOUNS))}


def a_number(rng: random.Random) -> Slots:
    return {"number": str(rng.randint(11, 999)), "language": rng.choice(list(LANGUAGES))}


def words_and_place(rng: random.Random) -> Slots:
    return {"words": ", ".join(rng.sample(NOUNS, 4)), "place": rng.choice(list(PLACES))}


def two_ends(rng: random.Random) -> Slots:
    return {"first": rng.choice(FIRST_WORDS), "last": rng.choice(NOUNS)}


def a_replacement(rng: random.Random) -> Slots:
    old, new = rng.sample(NOUNS, 2)
    return {"old": old, "new": new, "sentence": rng.choice(ABOUT).format(noun=old)}


def sentence_of(slots: Slots, rng: random.Random) -> str:
    """One about the word, of n words where n is given."""
    fitting = [one for one in ABOUT if len(one.split()) == int(slots.get("n", len(one.split())))]
    return rng.choice(fitting).format(noun=slots["word"])


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
    "count words": Family(
        (
            "How many words are in this sentence? {sentence}", "{sentence} / I see. / How many words was that?",
            "Count the words: {sentence}", "Tell me as a number how many words this has: {sentence}",
            "Number of words, please: {sentence}",
        ),
        a_sentence, lambda slots, _: str(len(words_of(slots["sentence"]))), check.counts_words,
    ),
    "count letters": Family(
        (
            "How many letters does the word {word} have?", "Count the letters of {word}.",
            "Take the word {word}. / All right. / How many letters are in it?",
            "Of how many letters is the word {word} made?", "Number of letters in {word}, please.",
        ),
        one_word, lambda slots, _: str(len(slots["word"])), check.counts_letters,
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
    "include": Family(
        (
            "Write one sentence that contains the word {word}.", "Use the word {word} in a sentence.",
            "My word is {word}. / All right. / Make one sentence with it.", "Give a short sentence with {word} in it.",
            "Compose a single sentence in which {word} occurs.",
        ),
        one_word, sentence_of, check.includes,
    ),
    "length": Family(
        (
            "Write a sentence of exactly {n} words with the word {word}.", "Use {word} in a sentence of {n} words.",
            "My word is {word}. / All right. / Make a sentence of {n} words with it.",
            "In exactly {n} words, write a sentence that contains {word}.",
            "Compose a sentence with {word}; it must be {n} words long.",
        ),
        word_and_length, sentence_of, check.has_length,
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
    "both ends": Family(
        (
            "Write a sentence that begins with {first} and ends with {last}.",
            "Start a sentence with {first} and finish it with {last}.",
            "I want a sentence. / How shall it go? / First word {first}, last word {last}.",
            "Make a sentence whose first word is {first} and whose last is {last}.",
            "Compose one sentence from {first} to {last}: those are its first and last words.",
        ),
        two_ends, lambda slots, _: f"{slots['first']} we go to see the {slots['last']}.", check.has_ends,
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
