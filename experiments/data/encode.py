"""From examples to token rows, and from rows to padded batches.

Training pads on the right and labels the response alone, its end-of-turn token included; generation pads on the left.
Legend: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from experiments.tasks.base import Example, Kind

IGNORED = -100  # the label of positions without a loss


@dataclass(frozen=True)
class Option:
    """An answer to choose; the one with the highest log-likelihood / size is taken."""

    text: str
    ids: list[int]
    size: int = 1


@dataclass(frozen=True)
class Row:
    """One encoded example: ids of the prompt and, after them, of the response; of a head a class or number."""

    prompt: list[int]
    response: list[int] = field(default_factory=list)
    segments: list[int] | None = None  # BERT's token types of the prompt
    label: float | None = None  # a class, as an int, or the number to be told
    options: tuple[Option, ...] = ()  # what the answer is chosen from; none: it is generated
    n_cut: int = 0  # tokens that max_length left out

    @property
    def n_tokens(self) -> int:
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True)
class Encoder:
    """Turns examples into rows.

    labels: the classes. front: reserved ids of a trained prompt, put before every row. head: the model classifies, or
    tells a number, by a head; without one it scores the labels' texts, or writes the number.
    """

    tokenizer: Any
    max_length: int
    labels: tuple[str, ...] = ()
    front: tuple[int, ...] = ()
    kind: Kind = "generate"
    head: bool = False

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        """Raises ValueError for an example that does not fit, naming it."""
        return [self.row(example) for example in examples]

    def row(self, example: Example) -> Row:
        if self.head:
            return self.classified(example)
        if self.kind == "text":
            return self.read(example)
        return self.answered(example)

    def answered(self, example: Example) -> Row:
        """A prompt and its response with the end of turn. A prompt that is too long loses its beginning."""
        response = [*self.ids(example.completion), self.end]
        options = self.options(example)
        longest = max(len(response), *(len(option.ids) for option in options), 0)
        room = self.max_length - len(self.front) - longest
        if room < 1:
            raise ValueError(
                f"{example.place or 'an example'}: its completion has {longest} tokens, which leaves no room for "
                f"a prompt in optim.max_length={self.max_length}; raise it or drop the example"
            )
        prompt = self.prompt(example)
        n_cut = max(0, len(prompt) - room)
        return Row([*self.front, *prompt[n_cut:]], response, options=options, n_cut=n_cut)

    def options(self, example: Example) -> tuple[Option, ...]:
        """A label counts whole, its end included; choices, of any length, by the byte and without an end."""
        if self.kind == "classify":
            return self.label_options
        return tuple(Option(text, self.ids(text), len(text.encode())) for text in example.choices)

    @cached_property
    def label_options(self) -> tuple[Option, ...]:
        return tuple(Option(label, [*self.ids(label), self.end]) for label in self.labels)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @property
    def end(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise ValueError(
                "the tokenizer has no eos_token, so no response could end; set one in the model's directory"
            )
        return self.tokenizer.eos_token_id

    def prompt(self, example: Example) -> list[int]:
        """The ids a response is asked for after: chat turns by the template, plain text up to a line's end."""
        if example.messages:
            return self.tokenizer.apply_chat_template(
                list(example.messages), add_generation_prompt=True, return_dict=True
            )["input_ids"]
        text = example.text if example.text_pair is None else f"{example.text}\n{example.text_pair}"
        return self.tokenizer(text if text[-1:].isspace() else text + "\n")["input_ids"]

    def read(self, example: Example) -> Row:
        """Plain text: each token is learned that another comes before. A text that is too long loses its end."""
        ids = [*self.front, *self.tokenizer(example.text)["input_ids"]]
        start = max(1, len(self.front))
        if len(ids) <= start:
            raise ValueError(f"{example.place or 'an example'}: a text of one token, so none to predict; drop it")
        return Row(ids[:start], ids[start : self.max_length], n_cut=max(0, len(ids) - self.max_length))

    def classified(self, example: Example) -> Row:
        room = self.max_length - len(self.front)
        text = example.text or example.messages[-1]["content"]
        whole = self.tokenizer(text, example.text_pair)["input_ids"]
        encoded = self.tokenizer(text, example.text_pair, truncation=True, max_length=room)
        segments = encoded.get("token_type_ids")
        return Row(
            [*self.front, *encoded["input_ids"]],
            segments=None if segments is None else [0] * len(self.front) + segments,
            label=float(example.completion) if self.kind == "rate" else self.labels.index(example.completion),
            n_cut=len(whole) - len(encoded["input_ids"]),
        )

    @property
    def pad(self) -> int:
        tokenizer = self.tokenizer
        return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


@dataclass(frozen=True)
class Batch:
    """Padded rows. labels: (B, T) token ids or IGNORED for generation; of a head (B,) classes or numbers."""

    inputs: dict[str, Tensor]  # keyword arguments of the model
    labels: Tensor

    @property
    def n_tokens(self) -> int:
        """Real tokens, padding left out."""
        return int(self.inputs["attention_mask"].sum())

    @property
    def n_labelled(self) -> int:
        return len(self.labels) if self.labels.dim() == 1 else int((self.labels != IGNORED).sum())


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
    told = [row.label for row in rows if row.label is not None]
    if told:
        return Batch(inputs, torch.tensor(told, device=device))
    labels = [[IGNORED] * len(row.prompt) + row.response for row in rows]
    return Batch(inputs, padded(labels, IGNORED, device))


def by_length(rows: Sequence[Row], pass_tokens: int = 256) -> list[list[Row]]:
    """The rows in groups of like length, cut so that Σ (rows · longest + pass_tokens) over the groups is least.

    pass_tokens: how many tokens a forward and backward of its own is held to cost; of SmolLM2 on one core, one that
    takes 0.25 s beside 4 ms a token, it is 64. More keeps an ordinary batch, whose lengths are near, whole.
    """
    rows = sorted(rows, key=lambda row: row.n_tokens)
    least, cuts = [0], [0]  # of the first i rows: their cost, and where their last group begins
    for i, longest in enumerate((row.n_tokens for row in rows), 1):
        costs = [least[j] + (i - j) * longest + pass_tokens for j in range(i)]
        least.append(min(costs))
        cuts.append(costs.index(least[-1]))
    groups, stop = [], len(rows)
    while stop:
        groups.append(rows[cuts[stop] : stop])
        stop = cuts[stop]
    return groups


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
