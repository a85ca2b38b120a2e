"""What is learned: a task gives examples in three parts and scores what a model says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["generate", "classify", "rate", "choose", "text", "respond"]


@dataclass(frozen=True)
class Traits:
    """What the examples of a kind of task are like, whoever learns them."""

    prompted: bool = True  # there is a prompt, and an answer to it
    labelled: bool = False  # the answer is one of a closed set, which training shows
    choices: bool = False  # each example brings what its answer is chosen from
    number: bool = False  # the answer is a number
    one_answer: bool = False  # a second answer to the same prompt contradicts the first

    @property
    def free_text(self) -> bool:
        """Whether the answer is a text that may be worded in many ways."""
        return self.prompted and not (self.labelled or self.choices or self.number)


TRAITS: dict[str, Traits] = {
    "generate": Traits(),
    "classify": Traits(labelled=True, one_answer=True),
    "rate": Traits(number=True),
    "choose": Traits(choices=True, one_answer=True),
    "text": Traits(prompted=False),
    "respond": Traits(),  # an answer is learned and its likelihood measured; none is written
}


class TaskError(ValueError):
    """A task that is unknown, or data that cannot be used as it is."""


class TooFew(TaskError):
    """More examples of a part are asked of a task than it can give: `available`."""

    def __init__(self, message: str, part: str = "", available: int = 0) -> None:
        super().__init__(message)
        self.part, self.available = part, available


@dataclass(frozen=True)
class Example:
    """One prompt with its gold answer.

    A prompt is chat turns or plain text; of the kind "text" there is no prompt, and `text` is what is learned.
    """

    messages: tuple[dict[str, Any], ...] = ()  # the chat turns up to the user's last one; (): `text` is the prompt
    completion: str = ""  # the gold answer, for classification the label
    group: str = ""  # a template or an entity: no group stands in two parts of a split
    text: str = ""
    text_pair: str | None = None
    references: tuple[str, ...] = ()  # every accepted answer where there are several, the completion first
    choices: tuple[str, ...] = ()  # what a multiple choice offers; the completion is one of them
    continues: bool = False  # the answer goes on where the text ends, without a line's end between
    part: str = ""  # a language, a category …: quality is also reported by it
    context: dict[str, Any] = field(default_factory=dict)  # what else a chat template is told: tools, documents
    place: str = ""  # "file:line" of a record out of a file

    @property
    def prompt_text(self) -> str:
        """The whole text of a prompt that is no chat: both texts, a line each."""
        return self.text if self.text_pair is None else f"{self.text}\n{self.text_pair}"

    @property
    def accepted(self) -> tuple[str, ...]:
        return self.references or (self.completion,)


@dataclass(frozen=True)
class Scores:
    """What a set of predictions is worth."""

    each: list[float]  # the main metric's number of every example
    means: dict[str, float]  # every metric, the main one first; those of a whole set, as macro-F1, stand only here


def mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def of_each(name: str, each: Iterable[float], **others: float) -> Scores:
    """Scores whose main metric is the mean of `each`."""
    numbers = [float(number) for number in each]
    return Scores(numbers, {name: mean(numbers), **others})


Scorer = Callable[[Sequence[Example], Sequence[str]], Scores]
# Whether an answer that begins with this text scores nothing in any metric, whatever follows.
Hopeless = Callable[[str], bool]


@dataclass(frozen=True)
class TaskData:
    """Three parts, and how predictions are scored.

    kind: what the examples are like, see TRAITS; how they are learned and answered, experiments/objectives says.
    """

    name: str
    kind: Kind
    train: list[Example]
    val: list[Example]
    test: list[Example]
    labels: tuple[str, ...]  # a classification's classes, sorted
    sha256: str  # the hash of the contents of all three parts
    sources: dict[str, str]  # package or file -> version or sha256
    metric: str  # the main one: the mean of a number an example, higher is better
    scorer: Scorer
    hopeless: Hopeless | None = None  # None: the metric may find something in every text
    apart: list[Example] = field(default_factory=list)  # answered and reported by part, and no part of the score
    ceiling: float | None = 1.0  # the most that the main metric can be; None: it has no bound that is reached
    pool: int | None = None  # examples that train was drawn from; its own number: no choice; None: it was not drawn

    @property
    def test_sha256(self) -> str:
        """The hash of validation and test alone, which draws of other training examples leave as they are."""
        return content_sha256(self.val, self.test)

    def score(self, examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
        """The scores of `examples`, whose predictions stand in the same order."""
        if len(predictions) != len(examples) or not examples:
            raise TaskError(f"{len(predictions)} predictions for {len(examples)} examples: give one for each, of some")
        return self.scorer(examples, predictions)

    def by_part(self, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, dict[str, float]]:
        """The means of each part that examples name; {} where none does."""
        means = {}
        for part in sorted({example.part for example in examples} - {""}):
            chosen = [i for i, example in enumerate(examples) if example.part == part]
            means[part] = self.score([examples[i] for i in chosen], [predictions[i] for i in chosen]).means
        return means


def content_sha256(*parts: Sequence[Example]) -> str:
    """A hash of what is learned: where a record stands, and fields of newer forms that are empty, leave it alone."""
    canonical = json.dumps([[_contents(example) for example in part] for part in parts], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


LATER = ("references", "choices", "continues", "part", "context")  # fields that older hashes know nothing of


def _contents(example: Example) -> dict[str, Any]:
    fields = asdict(example)
    del fields["place"]
    return {name: value for name, value in fields.items() if value or name not in LATER}
