"""What is learned: a task gives examples in three parts and scores what a model says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["generate", "classify", "rate", "choose", "text"]


class TaskError(ValueError):
    """A task that is unknown, or data that cannot be used as it is."""


@dataclass(frozen=True)
class Example:
    """One prompt with its gold answer.

    A prompt is chat turns or plain text; of the kind "text" there is no prompt, and `text` is what is learned.
    """

    messages: tuple[dict[str, str], ...] = ()  # the chat turns up to the user's last one; (): `text` is the prompt
    completion: str = ""  # the gold answer, for classification the label
    group: str = ""  # a template or an entity: no group stands in two parts of a split
    text: str = ""
    text_pair: str | None = None
    references: tuple[str, ...] = ()  # every accepted answer where there are several, the completion first
    choices: tuple[str, ...] = ()  # of a multiple choice; the completion is one of them
    part: str = ""  # a language, a category …: quality is also reported by it
    place: str = ""  # "file:line" of a record out of a file

    @property
    def accepted(self) -> tuple[str, ...]:
        return self.references or (self.completion,)


@dataclass(frozen=True)
class Scores:
    """What a set of predictions is worth."""

    each: list[float]  # the main metric's number of every example
    means: dict[str, float]  # every metric, the main one first; those of a whole set, as macro-F1, stand only here


Scorer = Callable[[Sequence[Example], Sequence[str]], Scores]


@dataclass(frozen=True)
class TaskData:
    """Three parts, and how predictions are scored.

    kind: "generate": text is generated greedily. "classify": a trained head says one of `labels`, or, of a model
    without one, the likeliest label's text as the prompt's continuation. "rate": a number, by a trained head of one
    output or, of a model without one, as text. "choose": the choice that is likeliest a
    byte. "text": every token is learned and predicted, and a prediction is '[nll_sum, n_tokens, n_bytes]'.
    """

    name: str
    kind: Kind
    train: list[Example]
    val: list[Example]
    test: list[Example]
    labels: tuple[str, ...]  # of a classification, sorted
    sha256: str  # of the contents of all three parts
    sources: dict[str, str]  # package or file -> version or sha256
    metric: str  # the main one: the mean of a number an example, higher is better
    scorer: Scorer

    @property
    def outputs(self) -> tuple[str, ...]:
        """What a head for the task says, an output each; () where a head cannot do the task."""
        return ("number",) if self.kind == "rate" else self.labels

    def score(self, examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
        """The scores of `examples`, whose predictions stand in the same order."""
        if len(predictions) != len(examples) or not examples:
            raise TaskError(f"{len(predictions)} predictions for {len(examples)} examples: give one for each, of some")
        return self.scorer(examples, predictions)

    def by_part(self, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, dict[str, float]]:
        """The means of each part that examples name; {} where none does."""
        found = {}
        for part in sorted({example.part for example in examples} - {""}):
            chosen = [i for i, example in enumerate(examples) if example.part == part]
            found[part] = self.score([examples[i] for i in chosen], [predictions[i] for i in chosen]).means
        return found


def content_sha256(*parts: Sequence[Example]) -> str:
    """A hash of what is learned: where a record stands, and fields of newer forms that are empty, leave it alone."""
    canonical = json.dumps([[_contents(example) for example in part] for part in parts], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _contents(example: Example) -> dict[str, Any]:
    fields = asdict(example)
    del fields["place"]
    return {name: value for name, value in fields.items() if value or name not in ("references", "choices", "part")}
