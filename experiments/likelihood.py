"""Log-likelihoods: of given answers after a prompt, and of whole texts.

The answers of a prompt share its cache: the prompt is read once, however many answers there are.
Legend: B prompts, T tokens of the longest, N pairs of a prompt and an answer, L tokens of the longest answer, V
vocabulary.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.batches import IGNORED, Encoder, Row, collate, padded
from experiments.loss import token_losses

TOKENS = 1024  # of a forward whose logits are kept: 200 MB in fp32 on a vocabulary of 49,152
CACHED = 1 << 14  # tokens of the copies of a cache: 400 MB for SmolLM2


@torch.no_grad()
def likeliest(model: nn.Module, encoder: Encoder, rows: Sequence[Row], device: torch.device) -> list[str]:
    """The option of each row with the highest log-likelihood / size."""
    found = log_likelihoods(model, rows, encoder.pad, device)
    best = [max(range(len(row.options)), key=lambda i: of[i] / row.options[i].size) for row, of in zip(rows, found)]
    return [row.options[i].text for row, i in zip(rows, best)]


@torch.no_grad()
def log_likelihoods(model: nn.Module, rows: Sequence[Row], pad: int, device: torch.device) -> list[list[float]]:
    """log p(option | prompt) in nats, for every option of every row."""
    mask = padded([[1] * len(row.prompt) for row in rows], 0, device, left=True)  # (B, T)
    inputs = {"input_ids": padded([row.prompt for row in rows], pad, device, left=True), "attention_mask": mask}
    head = model.get_output_embeddings()  # type: ignore[operator]
    with head.register_forward_pre_hook(last):
        out = model(**inputs, **positions(model, mask, mask.shape[1]), use_cache=True)
    first = out.logits[:, -1].float().log_softmax(-1)  # (B, V)
    found = [[first[b, option.ids[0]].item() for option in row.options] for b, row in enumerate(rows)]
    pairs = [(b, i) for b, row in enumerate(rows) for i, option in enumerate(row.options) if len(option.ids) > 1]
    pairs.sort(key=lambda pair: len(rows[pair[0]].options[pair[1]].ids))
    for part in packed([len(rows[b].options[i].ids) for b, i in pairs], max(1, CACHED // mask.shape[1])):
        chosen = [pairs[k] for k in part]
        ids = [rows[b].options[i].ids for b, i in chosen]
        of = torch.tensor([b for b, _ in chosen], device=device)
        cache = copy.deepcopy(out.past_key_values)
        cache.batch_select_indices(of)
        seen = torch.cat([mask[of], padded([[1] * (len(one) - 1) for one in ids], 0, device)], 1)  # (N, T + L)
        fed = padded([one[:-1] for one in ids], pad, device)
        logits = model(
            input_ids=fed,
            attention_mask=seen,
            past_key_values=cache,
            use_cache=True,
            **positions(model, seen, fed.shape[1]),
        ).logits
        wanted = padded([one[1:] for one in ids], IGNORED, device)
        losses = F.cross_entropy(logits.float().transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none")
        for (b, i), loss in zip(chosen, losses.sum(1).tolist()):
            found[b][i] -= loss
    return found


@torch.no_grad()
def read(model: nn.Module, encoder: Encoder, rows: Sequence[Row], device: torch.device) -> list[str]:
    """Of each row's response '[nll_sum, n_tokens, n_bytes]': in nats, of all its tokens, and their text's bytes."""
    found = []
    for part in packed([row.n_tokens for row in rows]):
        chosen = [rows[i] for i in part]
        losses = token_losses(model, collate(chosen, encoder.pad, device))
        counts = [len(row.response) for row in chosen]
        for row, own in zip(chosen, losses.split(counts)):
            text = encoder.tokenizer.decode(row.response, skip_special_tokens=False)
            found.append(json.dumps([own.sum(dtype=torch.float64).item(), len(own), len(text.encode())]))
    return found


def last(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The head's input at the last position alone, as one block."""
    return (args[0][:, -1:].contiguous(), *args[1:])


def positions(model: nn.Module, mask: Tensor, n: int) -> dict[str, Tensor]:
    """The positions of the last n tokens, counted from each row's first real one, where the model takes positions.

    As in generation: padding on the left must not move a row.
    """
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return {}
    return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, -n:]}


def packed(lengths: Sequence[int], most: int = TOKENS) -> Iterator[list[int]]:
    """Neighbours together, `most` of them at most and within TOKENS when padded to the longest; at least one."""
    part: list[int] = []
    longest = 0
    for i, length in enumerate(lengths):
        longest = max(longest, length)
        if part and (len(part) == most or longest * (len(part) + 1) > TOKENS):
            yield part
            part, longest = [], length
        part.append(i)
    if part:
        yield part
