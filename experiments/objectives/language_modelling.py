"""What the objectives of language models share: tokens are learned, each from those before it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from experiments.config.schema import LossOn
from experiments.data.batch import IGNORED, Batch, inputs_of, padded, token_labels
from experiments.data.encode import Encoded, Option, placed
from experiments.objectives.base import Objective
from experiments.objectives.token_loss import token_loss_sum
from experiments.tasks.base import Example


class LanguageModelling(Objective):
    """−Σ log p(token | what stands before it) over the learned tokens: an answer's, its end of turn included."""

    def encode(self, example: Example) -> Encoded:
        """A prompt and its answer; a prompt that is too long loses its oldest turns or sentences (Encoder.fitted)."""
        with placed(example):
            return self.encoded(example)

    def encoded(self, example: Example) -> Encoded:
        encoder, options = self.encoder, self.options(example)
        response = encoder.answer(example, example.completion)
        longest, what = max([(len(response), "completion"), *((len(o.ids), f"option {o.text!r}") for o in options)])
        room = encoder.max_length - len(encoder.front) - longest
        if room < 1:
            raise ValueError(
                f"{example.place or 'an example'}: its {what} has {longest} tokens, which leaves no room for "
                f"a prompt in optim.max_length={encoder.max_length}; raise it or drop the example"
            )
        fitted, cut = encoder.fitted(example, room)
        spoken = encoder.assistant_turns(fitted) if self.loss_on is LossOn.all else ()
        n_front = len(encoder.front)
        return Encoded(
            [*encoder.front, *encoder.prompt(fitted)],
            response,
            options=options,
            learned=tuple(range(places.start + n_front, places.stop + n_front) for places in spoken),
            cut=cut,
            ending=encoder.ending(example),
        )

    def options(self, example: Example) -> tuple[Option, ...]:
        """What the answer is chosen from; nothing where it is written."""
        return ()

    def collate(self, rows: Sequence[Encoded], device: torch.device) -> Batch:
        labels = padded([token_labels(row) for row in rows], IGNORED, device)
        return Batch(inputs_of(rows, self.encoder.pad, device), labels)

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        return token_loss_sum(model, batch)

    def n_units(self, batch: Batch) -> int:
        return int((batch.labels != IGNORED).sum())
