"""ha_json: a sentence said to a home -> JSON of its intent and slots, from home-assistant-intents (English).

A template is one sentence line of the package; a line that stands in two blocks of an intent is one template.
Every template is sampled alike, by random walks over its parsed expression. The gold answer is what hassil's
`recognize` finds in the sentence, and a sentence is kept only if that is what was put in: the same intent,
and exactly the drawn slots together with the fixed ones of the template's block. Templates that never come
through drop out (most are shadowed: in "cancel the 5 seconds timer" 5 seconds is found to be a name).

No template and no sentence stands in two parts. Intents with fewer than three templates are in train alone.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

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

from experiments.fetch import cached
from experiments.metrics import canonical, json_match
from experiments.tasks import Example, TaskData, TaskError, content_sha256, ha_home

PACKAGES = ("home-assistant-intents", "hassil", "unicode-rbnf")
MISSES = 25  # walks in a row without a new sentence that end a template
IN_WORDS = 0.25  # share of the whole numbers that are spelled out
TEST_SHARE, VAL_SHARE = 0.2, 0.1  # of an intent's templates
NO_AREA = "the speaker's own area"  # stands for what the sentence leaves out


@dataclass(frozen=True)
class Template:
    intent: str
    text: str
    blocks: tuple[tuple[IntentData, Sentence], ...]

    @property
    def id(self) -> str:
        return f"{self.intent}: {self.text}"


@dataclass(frozen=True)
class Home:
    """The package's intents with the lists of one home."""

    intents: Intents
    lists: dict[str, SlotList]

    @staticmethod
    def english() -> Home:
        contents = get_intents("en")
        if contents is None:
            raise TaskError("home-assistant-intents has no English sentences: install another version of it")
        names = [(name, name, {"domain": kind}) for kind, all_names in ha_home.NAMES.items() for name in all_names]
        return Home(
            Intents.from_dict(contents),
            {
                "area": TextSlotList.from_strings(ha_home.AREAS, name="area"),
                "floor": TextSlotList.from_strings(ha_home.FLOORS, name="floor"),
                "name": TextSlotList.from_tuples(names, name="name"),
            },
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
        found = recognize(
            sentence, self.intents, slot_lists=self.lists, intent_context={"area": NO_AREA}, language="en"
        )
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
        if isinstance(values, WildcardSlotList) and name in ha_home.PHRASES:
            phrase = self.rng.choice(ha_home.PHRASES[name])
            return phrase, phrase
        raise TaskError(f"the list {{{name}}} has no values for {self.block.requires_context}: add some to ha_home.py")

    def _number(self, values: RangeSlotList) -> tuple[str, Any]:
        number = self.rng.choice(list(values.get_numbers()))
        spoken = str(number)
        if number == int(number) and values.words and (not values.digits or self.rng.random() < IN_WORDS):
            said = set(get_rbnf_engine("en").format_number(number).text_by_ruleset.values())
            spoken = self.rng.choice(sorted(said))
        return spoken, _plain(number * (values.multiplier or 1))


def expansions(home: Home, template: Template, seed: int) -> Iterator[Example]:
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
        yield Example(messages=({"role": "user", "content": said},), completion=_answer(*put_in), group=template.id)


def load(config: Any, seed: int) -> TaskData:
    n_train, n_val, n_test = config.n_train, config.n_val, config.n_test
    sources = {name: version(name) for name in PACKAGES}
    code = [Path(__file__).read_bytes(), Path(ha_home.__file__).read_bytes()]
    key = hashlib.sha256(repr((sources, code, n_train, n_val, n_test, seed)).encode()).hexdigest()[:16]

    def build(into: Path) -> None:
        parts = generate(n_train, n_val, n_test, seed)
        (into / "parts.json").write_text(json.dumps([[asdict(example) for example in part] for part in parts]))

    stored = json.loads((cached(f"ha_json-{key}", build) / "parts.json").read_text())
    train, val, test = ([_example(row) for row in part] for part in stored)
    digest = content_sha256(train, val, test)
    return TaskData("ha_json", "generate", train, val, test, (), digest, sources, "exact_match", json_match)


def _example(row: dict[str, Any]) -> Example:
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return Example(**fields)


def generate(n_train: int, n_val: int, n_test: int, seed: int) -> tuple[list[Example], list[Example], list[Example]]:
    """Train, val and test. The split of the templates depends on the seed alone, not on the sizes."""
    home = Home.english()
    alive: dict[str, list[Iterator[Example]]] = defaultdict(list)
    for template in home.templates():
        sentences = expansions(home, template, seed)
        first = next(sentences, None)
        if first is not None:
            alive[template.intent].append(chain([first], sentences))
    rng = random.Random(seed)
    train, val, test = [], [], []
    for of_intent in alive.values():
        rng.shuffle(of_intent)
        if len(of_intent) >= 3:
            for part, share in ((test, TEST_SHARE), (val, VAL_SHARE)):
                count = max(1, round(share * len(of_intent)))
                part += of_intent[:count]
                of_intent = of_intent[count:]
        train += of_intent
    taken: set[str] = set()
    drawn_test = _fill("test", test, n_test, taken, rng)
    drawn_val = _fill("val", val, n_val, taken, rng)
    return _fill("train", train, n_train, taken, rng), drawn_val, drawn_test


def _fill(
    name: str, templates: list[Iterator[Example]], count: int, taken: set[str], rng: random.Random
) -> list[Example]:
    """`count` sentences, one of each template in turn, none of them in `taken`; shuffled."""
    queue = deque(rng.sample(templates, len(templates)))
    part: list[Example] = []
    while len(part) < count:
        if not queue:
            raise TaskError(f"task.n_{name}={count}: the templates give only {len(part)} distinct sentences")
        sentences = queue.popleft()
        example = next((one for one in sentences if one.messages[0]["content"] not in taken), None)
        if example is not None:
            taken.add(example.messages[0]["content"])
            part.append(example)
            queue.append(sentences)
    rng.shuffle(part)
    return part


def _answer(intent: str, slots: dict[str, Any]) -> str:
    return canonical({"intent": intent, "slots": slots})


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _first(item: tuple[tuple[str, str], Any]) -> tuple[str, str]:
    return item[0]
