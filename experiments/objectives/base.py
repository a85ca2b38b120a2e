"""The contract of an objective: what is learned from an example, and how a model's answer is had.

Legend: B rows, T tokens, M labelled positions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from experiments.config.family import Family
from experiments.config.schema import LossOn
from experiments.data.batch import Batch, inputs_of
from experiments.data.encode import Encoded, Encoder, placed
from experiments.data.reader import Reader
from experiments.data.shorten import Cut
from experiments.tasks.base import TRAITS, Example, Hopeless, TaskData, TaskError
from experiments.tasks.forms import MEANING


class Objective(ABC):
    """What is learned from examples, and what counts as an answer.

    encoder: the reader's. labels: the classes of a classification. loss_on: of a chat, whether the last turn of the
    assistant is learned or all of them. hopeless: an answer that is generated ends where it says so, and "…" stands
    for the rest.

    kinds: kinds of task (TaskData.kind) whose objective this is unless `objective=` names another. family: the models
    that it is for. writes: whether an answer is generated token by token.
    """

    kinds: ClassVar[tuple[str, ...]] = ()
    family: ClassVar[Family] = Family.decoder
    writes: ClassVar[bool] = False

    def __init__(
        self,
        encoder: Encoder,
        labels: Sequence[str] = (),
        loss_on: LossOn = LossOn.last,
        hopeless: Hopeless | None = None,
    ) -> None:
        self.encoder, self.labels, self.loss_on, self.hopeless = encoder, tuple(labels), loss_on, hopeless

    def on(self, encoder: Encoder) -> Self:
        """The same objective with another encoder."""
        return type(self)(encoder, self.labels, self.loss_on, self.hopeless)

    def rows(self, examples: Sequence[Example]) -> list[Encoded]:
        """The examples encoded, one row each. Raises ValueError for one that does not fit, naming it."""
        return [self.encode(example) for example in examples]

    @abstractmethod
    def encode(self, example: Example) -> Encoded:
        """The row of one example. Raises ValueError for one that does not fit, naming it."""

    @abstractmethod
    def collate(self, rows: Sequence[Encoded], device: torch.device) -> Batch:
        """A training batch of the rows."""

    @abstractmethod
    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss summed over the batch's units, in fp32, so that parts of a batch add up exactly."""

    @abstractmethod
    def n_units(self, batch: Batch) -> int:
        """How many units the sum runs over: labelled tokens, or rows."""

    @abstractmethod
    def answers(self, reader: Reader, rows: Sequence[Encoded], max_new_tokens: int) -> list[str]:
        """What the model answers to each row. max_new_tokens: the most that is written of one."""

    def scorable(self, example: Example) -> bool:
        """Whether the example can be encoded with its answer; one whose label training never saw has no class."""
        return True

    def faults(self, example: Example) -> Iterator[tuple[str, str, bool]]:
        """What of the example does not reach the model as it stands: kind, message, and whether it means something."""
        return self.encoder.faults(example)

    @classmethod
    def learns(cls, kind: str) -> bool:
        """Whether it can be named for a task of this kind: where an answer is written, any that has answers will do."""
        return not cls.kinds or kind in cls.kinds or (cls.writes and kind in TRAITS and TRAITS[kind].prompted)

    @staticmethod
    def outputs(data: TaskData) -> tuple[str, ...]:
        """What the task head of a model says, an output each; () without one."""
        return ()

    def check_replayed(self, entry: str, kind: str, examples: Sequence[Example], task: str) -> None:  # noqa: B027
        """Raise TaskError where examples of another source cannot be learned beside the task's; by default all can."""


class TaskHead(Objective):
    """What the objectives of models with a task head share: a text is read, and the head says one thing of it."""

    family = Family.encoder

    def encode(self, example: Example) -> Encoded:
        """The text, or the last turn of a chat, with its class or number; one that is too long loses its end."""
        encoder = self.encoder
        text = example.text or example.messages[-1]["content"]
        with placed(example):  # half of a character is refused, as where texts are read in pieces
            words = encoder.control.checked([text, example.text_pair or ""])
        literal = {"split_special_tokens": True} if words else {}
        whole = encoder.tokenizer(text, example.text_pair, **literal)["input_ids"]
        room = encoder.max_length - len(encoder.front)
        if room < len(encoder.tokenizer("", None if example.text_pair is None else "")["input_ids"]) + 1:
            raise ValueError(
                f"{example.place or 'an example'}: optim.max_length={encoder.max_length} leaves no room for a text; "
                "raise it"
            )
        encoded = encoder.tokenizer(text, example.text_pair, truncation=True, max_length=room, **literal)
        segments = encoded.get("token_type_ids")
        return Encoded(
            [*encoder.front, *encoded["input_ids"]],
            segments=None if segments is None else [0] * len(encoder.front) + segments,
            label=self.label(example),
            cut=Cut(tokens=len(whole) - len(encoded["input_ids"])),
        )

    def faults(self, example: Example) -> Iterator[tuple[str, str, bool]]:
        """Of a chat the last turn alone is read, and no template writes it."""
        read = example.messages[-1:]
        fields = [*example.context, *(name for turn in read for name in turn if name in MEANING)]
        yield from (("field_not_shown", f"an encoder reads no {name!r}", True) for name in fields)
        texts = [example.text, example.text_pair or "", *(turn["content"] for turn in read)]
        if words := self.encoder.control.within(texts):
            yield "control_word", f"taken as text: {', '.join(map(repr, words))}", False

    @abstractmethod
    def label(self, example: Example) -> float:
        """The class, as an int, or the number to be told."""

    def collate(self, rows: Sequence[Encoded], device: torch.device) -> Batch:
        labels = [row.label for row in rows]
        return Batch(inputs_of(rows, self.encoder.pad, device), torch.tensor(labels, device=device))

    def n_units(self, batch: Batch) -> int:
        return len(batch.labels)

    def check_replayed(self, entry: str, kind: str, examples: Sequence[Example], task: str) -> None:
        if self.kinds and kind not in self.kinds:
            raise TaskError(
                f"data.replay_from={entry}: its examples are of the kind {kind!r}, and the model's task head "
                f"learns {self.kinds[0]!r} alone; replay examples of that kind, or take a decoder"
            )

    def head_outputs(self, reader: Reader, rows: Sequence[Encoded]) -> Tensor:
        """The head's outputs for each row, (B, outputs)."""
        return reader.model(**inputs_of(rows, self.encoder.pad, reader.device)).logits
