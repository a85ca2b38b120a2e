"""Answers that end where they can score nothing any more, as the rambling of a model that was not trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from experiments.tasks.base import Hopeless

EVERY = 4  # tokens between two looks: decoding 50 rows takes 1 ms, and on a GPU each look waits for it


class StopHopeless(StoppingCriteria):
    """Ends each row whose text so far is hopeless. The other rows' numbers stay as they are: no row leaves the batch.

    start: where the answers begin in the ids (B, T).
    """

    def __init__(self, hopeless: Hopeless, tokenizer: Any, start: int) -> None:
        self.hopeless, self.tokenizer, self.start = hopeless, tokenizer, start
        self.cut: set[int] = set()

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        own = input_ids[:, self.start :]
        if own.shape[1] % EVERY == 0:
            ended = (own == self.tokenizer.eos_token_id).any(1).tolist()
            texts = self.tokenizer.batch_decode(own, skip_special_tokens=True)
            self.cut |= {i for i, text in enumerate(texts) if not ended[i] and self.hopeless(text)}
        return torch.tensor([i in self.cut for i in range(len(own))], device=own.device)

    def marked(self, texts: Sequence[str]) -> list[str]:
        """The texts with "…" where one was cut: whatever follows, it scores the same."""
        return [f"{text.rstrip()} …" if i in self.cut else text for i, text in enumerate(texts)]
