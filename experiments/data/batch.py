"""From encoded rows to padded batches. Training pads on the right, generation on the left.

Legend: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.data.encode import Encoded

IGNORED = -100  # the label of positions without a loss


@dataclass(frozen=True)
class Batch:
    """Padded rows. labels: (B, T) token ids or IGNORED; of a task head (B,) classes or numbers."""

    inputs: dict[str, Tensor]  # keyword arguments of the model
    labels: Tensor

    @property
    def n_tokens(self) -> int:
        """Real tokens, padding left out; of an encoder-decoder those of both."""
        return sum(int(mask.sum()) for name, mask in self.inputs.items() if name.endswith("attention_mask"))


def inputs_of(rows: Sequence[Encoded], pad: int, device: torch.device) -> dict[str, Tensor]:
    """What the model is called with: prompts and responses, padded on the right."""
    ids = [row.prompt + row.response for row in rows]
    inputs = {
        "input_ids": padded(ids, pad, device),
        "attention_mask": padded([[1] * len(row) for row in ids], 0, device),
    }
    segments = [row.segments for row in rows if row.segments is not None]
    if segments:
        inputs["token_type_ids"] = padded(segments, 0, device)
    return inputs


def token_labels(row: Encoded) -> list[int]:
    """The id of each place that is learned, the response and earlier turns, and IGNORED elsewhere."""
    labels = [IGNORED] * len(row.prompt) + row.response
    for places in row.learned:
        labels[places.start : places.stop] = row.prompt[places.start : places.stop]
    return labels


def by_length(rows: Sequence[Encoded], pass_tokens: int = 256) -> list[list[Encoded]]:
    """The rows in groups of like length, cut so that Σ (rows · longest + pass_tokens) over the groups is least.

    pass_tokens: how many tokens a forward and backward of its own is held to cost; of SmolLM2 on one core, one that
    takes 0.25 s beside 4 ms a token, it is 64. More keeps an ordinary batch, whose lengths are near, whole.
    """
    rows = sorted(rows, key=lambda row: row.n_tokens)
    least, cuts = [0], [0]  # the cost of the first i rows, and where their last group begins
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
    chosen: list[int] = []
    position = step * batch_size
    while len(chosen) < batch_size:
        epoch, start = divmod(position + len(chosen), n_examples)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(n_examples, generator=generator).tolist()
        chosen += order[start : start + batch_size - len(chosen)]
    return chosen
