"""Text of a set length, which the speed of generation and the probes of forgetting want."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from experiments.data.encode import Encoder, padded
from experiments.evaluation.answers import contiguous


@torch.no_grad()
def write(
    model: nn.Module, encoder: Encoder, prompts: Sequence[list[int]], device: torch.device, n_tokens: int, **how: Any
) -> Tensor:
    """Exactly so many new tokens after each prompt, (B, n_tokens); greedy, unless `how` says otherwise."""
    model.eval()
    ids = padded(prompts, encoder.pad, device, left=True)
    with model.get_output_embeddings().register_forward_pre_hook(contiguous):  # type: ignore[operator]
        out = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=padded([[1] * len(p) for p in prompts], 0, device, left=True),
            min_new_tokens=n_tokens,
            max_new_tokens=n_tokens,
            pad_token_id=encoder.pad,
            **{"do_sample": False, "use_cache": True, **how},
        )
    return out[:, ids.shape[1] :]
