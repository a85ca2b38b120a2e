"""Sentences said to a home, with their intent and slots, drawn from home-assistant-intents in any of its languages.

A template is one sentence line of the package; a line that stands in two blocks of an intent is one template.
Every template is sampled alike, by random walks over its parsed expression. The intent and slots are what hassil's
`recognize` finds in the sentence, and a sentence is kept only if that is what was put in: the same intent,
and exactly the drawn slots together with the fixed ones of the template's block. Templates that never come
through drop out (most are shadowed: in "cancel the 5 seconds timer" 5 seconds is found to be a name).

The names of a home's rooms and things lie in homes/<language>.yaml.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from hassil import Intents, recognize
from hassil.expression import (
    Alternative,
    Expression,
    Group,
    ListReference,
    Permutation,
    RuleReference,
    Sentence,
)
from hassil.expression import TextChunk as Text
from hassil.intents import IntentData, RangeSlotList, SlotList, TextSlotList, WildcardSlotList
from hassil.numbers import get_rbnf_engine
from home_assistant_intents import get_intents

from experiments.tasks.base import TaskError

HOMES = Path(__file__).with_name("homes")
PACKAGES = ("home-assistant-intents", "hassil", "unicode-rbnf")
MISSES = 25  # walks in a row without a new sentence that end a template
IN_WORDS = 0.25  # share of the whole numbers that are spelled out
NO_AREA = "the speaker's own area"  # stands for what the sentence leaves out


@dataclass(frozen=True)
class Said:
    """A sentence and what it means."""

    text: str
    intent: str
    slots: dict[str, Any]
    template: str


@dataclass(frozen=True)
class Template:
    intent: str
    text: str
    blocks: tuple[tuple[IntentData, Sentence], ...]

    @property
    def id(self) -> str:
        return f"{self.intent}: {self.text}"


def sources() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def file_of(language: str) -> Path:
    return HOMES / f"{language}.yaml"


def languages() -> list[str]:
    """Those that there is a home for."""
    return sorted(file.stem for file in HOMES.glob("*.yaml"))


@dataclass(frozen=True)
class Home:
    """The package's intents in one language, with the lists of one home.

    phrases: what is said where a template takes any words.
    """

    language: str
    intents: Intents
    lists: dict[str, SlotList]
    phrases: dict[str, list[str]]

    @staticmethod
    def of(language: str) -> Home:
        if language not in languages():
            raise TaskError(f"no home for the language {language!r}; there are: {', '.join(languages())}")
        contents = get_intents(language)
        if contents is None:
            raise TaskError(f"home-assistant-intents has no sentences in {language!r}: install another version of it")
        own = yaml.safe_load(file_of(language).read_text(encoding="utf-8"))
        names = [(name, name, {"domain": kind}) for kind, all_names in own["names"].items() for name in all_names]
        return Home(
            language,
            Intents.from_dict(contents),
            {
                "area": TextSlotList.from_strings(own["areas"], name="area"),
                "floor": TextSlotList.from_strings(own["floors"], name="floor"),
                "name": TextSlotList.from_tuples(names, name="name"),
            },
            own["phrases"],
        )

    def templates(self) -> list[Template]:
        found: dict[tuple[str, str], list[tuple[IntentData, Sentence]]] = defaultdict(list)
        for intent in self.intents.intents.values():
            for block in intent.data:
                for sentence in block.sentences:
                    found[intent.name, str(sentence.text)].append((block, sentence))
        return [Template(intent, text, tuple(blocks)) for (intent, text), blocks in sorted(found.items(), key=_first)]

    def understand(self, sentence: str) -> tuple[str, dict[str, Any]] | None:
        """The intent and slots of a sentence.

        Templates that need to know where the speaker is are tried too; the area that they take from there is
        not in the sentence, and is left out.
        """
        context = {"area": NO_AREA}
        found = recognize(sentence, self.intents, slot_lists=self.lists, intent_context=context, language=self.language)
        if found is None:
            return None
        slots = {name: _plain(entity.value) for name, entity in found.entities.items() if entity.value != NO_AREA}
        return found.intent.name, slots


@dataclass
class Walk:
    """One random walk over a template: the words are returned, the slots collected."""

    home: Home
    block: IntentData
    rng: random.Random
    slots: dict[str, Any] = field(default_factory=dict)
    consistent: bool = True  # False: a slot was filled twice, with different values

    def words(self, part: Expression) -> str:
        if isinstance(part, Text):
            return part.original_text
        if isinstance(part, Alternative):  # an optional has the empty text among its items
            return self.words(self.rng.choice(part.items))
        if isinstance(part, Permutation):
            return "".join(map(self.words, self.rng.sample(part.items, len(part.items))))
        if isinstance(part, Group):
            return "".join(map(self.words, part.items))
        if isinstance(part, RuleReference):
            rules = {**self.home.intents.expansion_rules, **self.block.expansion_rules}
            if part.rule_name not in rules:
                raise TaskError(f"home-assistant-intents: there is no expansion rule <{part.rule_name}>")
            return self.words(rules[part.rule_name].expression)
        if isinstance(part, ListReference):
            spoken, value = self._value(part.list_name)
            self.consistent &= self.slots.setdefault(part.slot_name, value) == value
            return spoken
        raise TaskError(f"hassil: no rule for sampling a {type(part).__name__}")

    def _value(self, name: str) -> tuple[str, Any]:
        """A random value of a list: as it is said, and as it is understood."""
        values = {**self.home.intents.slot_lists, **self.home.lists, **self.block.slot_lists}.get(name)
        if isinstance(values, TextSlotList):
            allowed = values.values
            domains = self.block.requires_context.get("domain")
            if name == "name" and domains is not None:
                allowed = [value for value in allowed if (value.context or {})["domain"] in domains]
            if allowed:
                value = self.rng.choice(allowed)
                return self.words(value.text_in), value.value_out
        if isinstance(values, RangeSlotList):
            return self._number(values)
        if isinstance(values, WildcardSlotList) and name in self.home.phrases:
            phrase = self.rng.choice(self.home.phrases[name])
            return phrase, phrase
        raise TaskError(
            f"the list {{{name}}} has no values for {self.block.requires_context}: "
            f"add some to {file_of(self.home.language)}"
        )

    def _number(self, values: RangeSlotList) -> tuple[str, Any]:
        number = self.rng.choice(list(values.get_numbers()))
        spoken = str(number)
        if number == int(number) and values.words and (not values.digits or self.rng.random() < IN_WORDS):
            said = set(get_rbnf_engine(self.home.language).format_number(number).text_by_ruleset.values())
            spoken = self.rng.choice(sorted(said))
        return spoken, _plain(number * (values.multiplier or 1))


def expansions(home: Home, template: Template, seed: int) -> Iterator[Said]:
    """Distinct sentences of a template that come through the round trip, in an order drawn from the seed."""
    rng = random.Random(f"{seed} {template.id}")
    seen: set[str] = set()
    misses = 0
    while misses < MISSES:
        block, sentence = rng.choice(template.blocks)
        walk = Walk(home, block, rng)
        said = " ".join(walk.words(sentence.expression).split())
        put_in = (template.intent, {**block.slots, **walk.slots})
        if said in seen or not walk.consistent or home.understand(said) != put_in:
            misses += 1
            continue
        misses = 0
        seen.add(said)
        yield Said(said, *put_in, template.id)


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _first(item: tuple[tuple[str, str], Any]) -> tuple[str, str]:
    return item[0]
