"""Text that a model writes: up to its end of turn, or of a set length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from experiments.data.batch import padded
from experiments.data.encode import Encoded
from experiments.data.reader import Reader
from experiments.objectives.hopeless import StopHopeless
from experiments.tasks.base import Hopeless


def generated(
    reader: Reader, rows: Sequence[Encoded], max_new_tokens: int, hopeless: Hopeless | None = None
) -> list[str]:
    """Greedy continuations of the rows' prompts, up to the end-of-turn token, or to where they are hopeless."""
    tokenizer = reader.encoder.tokenizer
    stop = StopHopeless(hopeless, tokenizer, max(len(row.prompt) for row in rows)) if hopeless else None
    ids = continued(
        reader,
        [row.prompt for row in rows],
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        stopping_criteria=stop and [stop],
    )
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return stop.marked(texts) if stop else texts


def written(reader: Reader, prompts: Sequence[list[int]], n_tokens: int, **how: Any) -> Tensor:
    """Exactly so many new tokens after each prompt, (B, n_tokens); greedy, unless `how` says otherwise."""
    reader.model.eval()
    return continued(reader, prompts, min_new_tokens=n_tokens, max_new_tokens=n_tokens, **how)


@torch.no_grad()
def continued(reader: Reader, prompts: Sequence[list[int]], **how: Any) -> Tensor:
    """The ids that follow each prompt, (B, new tokens), as transformers' generate with these arguments finds them."""
    model: Any = reader.model
    ids = padded(prompts, reader.encoder.pad, reader.device, left=True)
    with model.get_output_embeddings().register_forward_pre_hook(contiguous):
        out = model.generate(
            input_ids=ids,
            attention_mask=padded([[1] * len(p) for p in prompts], 0, reader.device, left=True),
            pad_token_id=reader.encoder.pad,
            **{"do_sample": False, "use_cache": True, **how},
        )
    return out[:, ids.shape[1] :]


def contiguous(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The head's input as one block. After the prompts it is a strided slice, each row's last position, for which
    matmul copies the head once a row on CPU: 2.8 GB and half the time of 50 rows on a vocabulary of 49,152."""
    return (args[0].contiguous(), *args[1:])
