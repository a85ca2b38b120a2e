"""Classification: by a task head that is new to the model, or by the label's text as a language model's answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch.nn.functional as F
from torch import Tensor, nn

from experiments.data.batch import Batch
from experiments.data.encode import Encoded, Option
from experiments.data.reader import Reader
from experiments.objectives.base import TaskHead
from experiments.objectives.language_modelling import LanguageModelling
from experiments.objectives.likelihood import likeliest_label
from experiments.tasks.base import Example, TaskData, TaskError


class Classification(TaskHead):
    """−Σ log softmax(head(text))[class] over rows; the answer is the likeliest class."""

    kinds = ("classify",)

    @staticmethod
    def outputs(data: TaskData) -> tuple[str, ...]:
        return data.labels

    def label(self, example: Example) -> int:
        return self.labels.index(example.completion)

    def scorable(self, example: Example) -> bool:
        return example.completion in self.labels

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(**batch.inputs).logits.float(), batch.labels, reduction="sum")

    def answers(self, reader: Reader, rows: Sequence[Encoded], max_new_tokens: int) -> list[str]:
        return [self.labels[i] for i in self.head_outputs(reader, rows).argmax(-1).tolist()]

    def check_replayed(self, entry: str, kind: str, examples: Sequence[Example], task: str) -> None:
        super().check_replayed(entry, kind, examples, task)
        if strange := sorted({example.completion for example in examples} - set(self.labels)):
            raise TaskError(
                f"data.replay_from={entry}: label {strange[0]!r} is none of the {len(self.labels)} labels of "
                f"task={task}, which the classification head is made for; map it to one of them, or take a decoder"
            )


class LabelText(LanguageModelling):
    """The label's text is learned as a response; the answer is the label whose text, its end included, is likeliest."""

    kinds = ("classify",)

    def options(self, example: Example) -> tuple[Option, ...]:
        """The labels, each whole with its end, so that none is another's beginning."""
        if (form := bool(example.messages)) not in self.by_form:
            self.by_form[form] = tuple(Option(label, self.encoder.answer(example, label)) for label in self.labels)
        return self.by_form[form]

    @cached_property
    def by_form(self) -> dict[bool, tuple[Option, ...]]:
        """The options of chats and of texts, which end otherwise."""
        return {}

    def answers(self, reader: Reader, rows: Sequence[Encoded], max_new_tokens: int) -> list[str]:
        return likeliest_label(reader, rows[0].options, rows)
