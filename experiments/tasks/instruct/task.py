"""instruct: an instruction whose constraint a program can check -> an answer that keeps it, in chat format.

In the spirit of IFEval (Zhou et al., 2023), with instructions of our own (instruct_families): short ones that a small
model can learn. A template is a wording; of every family one is in test and one in val, the others in train, and what
fills them is drawn apart for each. Some wordings have an earlier turn that holds what the last one is about. Scores:
whether the constraint is kept; the slots of the check are read from the prompt. Results are also reported by family.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from experiments.config.tasks import InstructConfig
from experiments.tasks.base import Example, Scores, TaskData, TaskError
from experiments.tasks.generated import Parts, asked, deal, distinct, generated, take
from experiments.tasks.instruct import checks, families
from experiments.tasks.instruct.checks import Slots
from experiments.tasks.instruct.families import FAMILIES
from experiments.tasks.metrics import exact_match, mean, of_each

OF_WORDINGS = {"test": 1, "val": 1}  # each family has five; the others are in train
BETWEEN_TURNS = " / "


def load(config: InstructConfig, seed: int) -> TaskData:
    values = (config.n_train, config.n_val, config.n_test, seed)
    made_by = (__file__, families.__file__, checks.__file__)
    return generated("instruct", made_by, [], values, lambda: generate(*values), "constraint_met", score)


def generate(n_train: int, n_val: int, n_test: int, seed: int) -> Parts:
    rng = random.Random(f"instruct {seed}")
    wordings = {name: deal(family.wordings, OF_WORDINGS, rng) for name, family in FAMILIES.items()}

    def part(name: str, count: int) -> list[Example]:
        streams = [instructions(family, wording, seed) for family, dealt in wordings.items() for wording in dealt[name]]
        return take(name, streams, count, set(), rng, lambda _: ())

    test, val = part("test", n_test), part("val", n_val)
    return part("train", n_train), val, test


def instructions(name: str, wording: str, seed: int) -> Iterator[Example]:
    """Distinct instructions of one wording, in an order drawn from the seed."""
    rng = random.Random(f"instruct {seed} {wording}")
    family = FAMILIES[name]

    def draw() -> Example:
        slots = family.draw(rng)
        return Example(turns(wording, slots), family.answer(slots, rng), group=wording, part=name)

    return distinct(draw)


def turns(wording: str, slots: Slots) -> tuple[dict[str, str], ...]:
    contents = [turn.format(**slots) for turn in wording.split(BETWEEN_TURNS)]
    return tuple({"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents))


def slots_of(example: Example) -> Slots:
    """What fills the wording in this prompt. Raises TaskError where the prompt is not of its template."""
    pieces = re.split(r"\{(\w+)\}", example.group.replace(BETWEEN_TURNS, "\n"))  # text, slot, text, slot, …, text
    pattern = "".join(f"(?P<{piece}>.+?)" if i % 2 else re.escape(piece) for i, piece in enumerate(pieces))
    match = re.fullmatch(pattern, asked(example))
    if match is None:
        raise TaskError(f"{asked(example)!r}: not a prompt of the template {example.group!r}")
    return match.groupdict()


def score(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """constraint_met: by the family's check; repeating a turn of the prompt, which may pass one, is no answer.
    exact_match: the gold answer itself."""
    met = (
        answer.strip() not in [turn["content"] for turn in e.messages] and FAMILIES[e.part].met(slots_of(e), answer)
        for e, answer in zip(examples, predictions, strict=True)
    )
    return of_each("constraint_met", met, exact_match=mean(exact_match(examples, predictions).each))
