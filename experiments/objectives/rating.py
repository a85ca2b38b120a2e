"""Rating: a number, told by a task head of one output, or written by a language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from experiments.data.batch import Batch
from experiments.data.encode import Encoded
from experiments.data.reader import Reader
from experiments.objectives.base import TaskHead
from experiments.objectives.responses import Responses
from experiments.tasks.base import Example, TaskData


class Rating(TaskHead):
    """Σ (head(text) − number)² over rows."""

    kinds = ("rate",)

    @staticmethod
    def outputs(data: TaskData) -> tuple[str, ...]:
        return ("number",)

    def label(self, example: Example) -> float:
        return float(example.completion)

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        return F.mse_loss(model(**batch.inputs).logits[:, 0].float(), batch.labels, reduction="sum")

    def answers(self, reader: Reader, rows: Sequence[Encoded], max_new_tokens: int) -> list[str]:
        return [f"{number:.6g}" for number in self.head_outputs(reader, rows)[:, 0].tolist()]


class WrittenNumber(Responses):
    """The number's text is learned as a response, and written."""

    kinds = ("rate",)
