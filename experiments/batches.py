"""From examples to token rows, and from rows to padded batches.

Training pads on the right and labels the response alone, its end-of-turn token included; generation pads on the left.
Legend: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from experiments.tasks import Example

IGNORED = -100  # the label of positions without a loss


@dataclass(frozen=True)
class Row:
    """One encoded example: ids of the prompt and, after them, of the response; for classification one class."""

    prompt: list[int]
    response: list[int] = field(default_factory=list)
    segments: list[int] | None = None  # BERT's token types of the prompt
    label: int | None = None
    truncated: bool = False  # it lost a part to max_length

    @property
    def n_tokens(self) -> int:
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True)
class Encoder:
    """Turns examples into rows. front: reserved ids of a trained prompt, put before every row."""

    tokenizer: Any
    max_length: int
    labels: tuple[str, ...] = ()  # the classes; none for generation
    front: tuple[int, ...] = ()

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        return [self.classified(e) if self.labels else self.generated(e) for e in examples]

    def generated(self, example: Example) -> Row:
        """Raises ValueError where the response alone fills max_length."""
        end = self.tokenizer.eos_token_id
        if end is None:
            raise ValueError(
                "the tokenizer has no eos_token, so no response could end; set one in the model's directory"
            )
        response = [*self.tokenizer(example.completion, add_special_tokens=False)["input_ids"], end]
        room = self.max_length - len(self.front) - len(response)
        if room < 1:
            raise ValueError(
                f"{example.place or 'an example'}: its completion has {len(response)} tokens, which leaves no room for "
                f"a prompt in optim.max_length={self.max_length}; raise it or drop the example"
            )
        prompt = self.prompt(example)
        return Row([*self.front, *prompt[-room:]], response, truncated=len(prompt) > room)

    def prompt(self, example: Example) -> list[int]:
        """The ids a response is asked for after: chat turns by the template, plain text up to a line's end."""
        if example.messages:
            return self.tokenizer.apply_chat_template(
                list(example.messages), add_generation_prompt=True, return_dict=True
            )["input_ids"]
        text = example.text if example.text[-1:].isspace() else example.text + "\n"
        return self.tokenizer(text)["input_ids"]

    def classified(self, example: Example) -> Row:
        room = self.max_length - len(self.front)
        encoded = self.tokenizer(example.text, example.text_pair, truncation=True, max_length=room)
        full = len(encoded["input_ids"]) == room  # to the limit, or over it
        cut = full and len(self.tokenizer(example.text, example.text_pair)["input_ids"]) > room
        segments = encoded.get("token_type_ids")
        return Row(
            [*self.front, *encoded["input_ids"]],
            segments=None if segments is None else [0] * len(self.front) + segments,
            label=self.labels.index(example.completion),
            truncated=cut,
        )

    @property
    def pad(self) -> int:
        tokenizer = self.tokenizer
        return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


@dataclass(frozen=True)
class Batch:
    """Padded rows. labels: (B, T) token ids or IGNORED for generation, (B,) classes for classification."""

    inputs: dict[str, Tensor]  # keyword arguments of the model
    labels: Tensor

    @property
    def n_tokens(self) -> int:
        """Real tokens, padding left out."""
        return int(self.inputs["attention_mask"].sum())

    @property
    def n_labelled(self) -> int:
        return int((self.labels != IGNORED).sum())


def collate(rows: Sequence[Row], pad: int, device: torch.device) -> Batch:
    """A training batch, padded on the right."""
    ids = [row.prompt + row.response for row in rows]
    inputs = {
        "input_ids": padded(ids, pad, device),
        "attention_mask": padded([[1] * len(row) for row in ids], 0, device),
    }
    segments = [row.segments for row in rows if row.segments is not None]
    if segments:
        inputs["token_type_ids"] = padded(segments, 0, device)
    classes = [row.label for row in rows if row.label is not None]
    if classes:
        return Batch(inputs, torch.tensor(classes, device=device))
    labels = [[IGNORED] * len(row.prompt) + row.response for row in rows]
    return Batch(inputs, padded(labels, IGNORED, device))


def padded(lists: Sequence[Sequence[int]], value: int, device: torch.device, left: bool = False) -> Tensor:
    """(B, T): the lists, filled up with `value` to the longest."""
    longest = max(map(len, lists))
    fills = [[value] * (longest - len(row)) for row in lists]
    full = [[*fill, *row] if left else [*row, *fill] for row, fill in zip(lists, fills)]
    return torch.tensor(full, dtype=torch.long, device=device)


def indices(step: int, batch_size: int, n_examples: int, seed: int) -> list[int]:
    """Which examples make the batch of a step (from 0): a function of its arguments, so any step can be resumed.

    The examples come in epochs, each in an order of its own drawn from the seed.
    """
    found: list[int] = []
    position = step * batch_size
    while len(found) < batch_size:
        epoch, start = divmod(position + len(found), n_examples)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(n_examples, generator=generator).tolist()
        found += order[start : start + batch_size - len(found)]
    return found
