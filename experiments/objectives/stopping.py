"""Answers that are ended by their text: where it says so, or where they can score nothing any more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

EVERY = 4  # tokens between two looks: decoding 50 rows takes 1 ms, and on a GPU each look waits for it


class StopWhere(StoppingCriteria):
    """Ends each row whose text so far meets a condition. The other rows' numbers stay as they are: no row leaves the
    batch.

    start: where the answers begin in the ids (B, T). ends: the tokens after which a row has ended by itself.
    """

    def __init__(self, met: Callable[[str], bool], tokenizer: Any, start: int, ends: Collection[int]) -> None:
        self.met, self.tokenizer, self.start, self.ends = met, tokenizer, start, frozenset(ends)
        self.cut: set[int] = set()

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        own = input_ids[:, self.start :]
        if own.shape[1] % EVERY == 0:
            rows = own.tolist()
            texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
            ended = [not self.ends.isdisjoint(row) for row in rows]
            self.cut |= {i for i, text in enumerate(texts) if not ended[i] and self.met(text)}
        return torch.tensor([i in self.cut for i in range(len(own))], device=own.device)

    def marked(self, texts: Sequence[str]) -> list[str]:
        """The texts with "…" where one was cut: whatever follows, it scores the same."""
        return [f"{text.rstrip()} …" if i in self.cut else text for i, text in enumerate(texts)]
