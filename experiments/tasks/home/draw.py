"""Sentences of a home in three parts, split by template.

No template and no sentence stands in two parts. Intents with fewer than three templates are in train alone.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, groupby
from pathlib import Path

from experiments.tasks.base import TooFew
from experiments.tasks.generated import kept
from experiments.tasks.home import sentences
from experiments.tasks.home.sentences import Home, Said, Template, expansions, file_of, sources

TEST_SHARE, VAL_SHARE = 0.2, 0.1  # shares of an intent's templates
Parts = tuple[list[Said], list[Said], list[Said]]


@dataclass(frozen=True)
class Draw:
    """What is drawn: numbers of sentences; of the intents in `only`, and of each `most` templates (None: all)."""

    language: str
    n_train: int
    n_val: int
    n_test: int
    seed: int
    only: tuple[str, ...] | None = None
    most: int | None = None


def drawn(draw: Draw) -> Parts:
    """`generate`, kept in the cache for as long as the packages, the code and the home stay the same."""
    files = (Path(__file__), Path(sentences.__file__), file_of(draw.language))
    code = [file.read_bytes() for file in files]
    key = hashlib.sha256(repr((sources(), code, draw)).encode()).hexdigest()[:16]

    def parts() -> list[list[dict[str, object]]]:
        return [[asdict(said) for said in part] for part in generate(Home.of(draw.language), draw)]

    stored = kept(f"ha-{draw.language}-{key}", parts)
    train, val, test = ([Said(**row) for row in part] for part in stored)
    return train, val, test


def generate(home: Home, draw: Draw) -> Parts:
    """Train, val and test. The split of the templates depends on the seed alone, not on the sizes."""
    alive: dict[str, list[Iterator[Said]]] = defaultdict(list)
    for template in chosen(home.templates(), draw):
        sentences = expansions(home, template, draw.seed)
        first = next(sentences, None)
        if first is not None:
            alive[template.intent].append(chain([first], sentences))
    rng = random.Random(draw.seed)
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
    filled_test = _fill("test", test, draw.n_test, taken, rng)
    filled_val = _fill("val", val, draw.n_val, taken, rng)
    return _fill("train", train, draw.n_train, taken, rng), filled_val, filled_test


def chosen(templates: list[Template], draw: Draw) -> list[Template]:
    """The templates to draw from, in their order."""
    found = []
    for intent, group in groupby(templates, key=lambda template: template.intent):
        own = list(group)
        if draw.only is not None and intent not in draw.only:
            continue
        if draw.most is not None and len(own) > draw.most:
            kept = random.Random(f"{draw.seed} {intent}").sample(range(len(own)), draw.most)
            own = [own[i] for i in sorted(kept)]
        found += own
    return found


def _fill(name: str, templates: list[Iterator[Said]], count: int, taken: set[str], rng: random.Random) -> list[Said]:
    """`count` sentences, one of each template in turn, none of them in `taken`; shuffled."""
    queue = deque(rng.sample(templates, len(templates)))
    part: list[Said] = []
    while len(part) < count:
        if not queue:
            message = f"task.n_{name}={count}: the templates give only {len(part)} distinct sentences"
            raise TooFew(message, name, len(part))
        sentences = queue.popleft()
        said = next((one for one in sentences if one.text not in taken), None)
        if said is not None:
            taken.add(said.text)
            part.append(said)
            queue.append(sentences)
    rng.shuffle(part)
    return part
