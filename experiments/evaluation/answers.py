"""What a model is worth on a set of examples: its loss, and its answers, whatever the kind of task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from experiments.config.schema import EvalConfig
from experiments.data.encode import Encoder, Row, collate, padded
from experiments.evaluation.likelihood import likeliest, read
from experiments.support.progress import progress
from experiments.training.loss import loss_sum


@torch.no_grad()
def mean_loss(model: nn.Module, rows: Sequence[Row], pad: int, batch_size: int, device: torch.device) -> float:
    """Cross-entropy a labelled token (a row, for classification); squared error a row where a head tells numbers."""
    model.eval()
    batches = [collate([rows[i] for i in part], pad, device) for part in parts(rows, batch_size)]
    return sum(loss_sum(model, b).item() for b in batches) / sum(b.n_labelled for b in batches)


@torch.no_grad()
def answers(
    model: nn.Module, encoder: Encoder, rows: Sequence[Row], config: EvalConfig, device: torch.device, log_every: int
) -> list[str]:
    """What the model answers to each row: generated text, the likeliest option, or how likely the text itself is."""
    model.eval()
    found = [""] * len(rows)
    done = 0
    with progress("evaluate", len(rows), max(log_every, config.batch_size * 4)) as show:
        for part in parts(rows, config.batch_size):
            chosen = [rows[i] for i in part]
            if encoder.head:
                texts = heard(model, encoder, chosen, device)
            elif encoder.kind == "text":
                texts = read(model, encoder, chosen, device)
            elif encoder.kind in ("classify", "choose"):
                texts = likeliest(model, encoder, chosen, device)
            else:
                texts = generated(model, encoder, chosen, config.max_new_tokens, device)
            for i, text in zip(part, texts, strict=True):
                found[i] = text
            done += len(part)
            show(done, "")
    return found


def parts(rows: Sequence[Row], size: int) -> Iterator[list[int]]:
    """Indices in batches, shortest prompts first, so that a batch holds little padding."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].prompt), i))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def generated(
    model: nn.Module, encoder: Encoder, rows: Sequence[Row], max_new_tokens: int, device: torch.device
) -> list[str]:
    """Greedy continuations up to the end-of-turn token."""
    tokenizer: Any = encoder.tokenizer
    head = model.get_output_embeddings()  # type: ignore[operator]
    prompts = [row.prompt for row in rows]
    ids = padded(prompts, encoder.pad, device, left=True)
    with head.register_forward_pre_hook(contiguous):
        out = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=padded([[1] * len(p) for p in prompts], 0, device, left=True),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=encoder.pad,
        )
    return tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)


def contiguous(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The head's input as one block. After the prompts it is a strided slice, each row's last position, for which
    matmul copies the head once a row on CPU: 2.8 GB and half the time of 50 rows on a vocabulary of 49,152."""
    return (args[0].contiguous(), *args[1:])


def heard(model: nn.Module, encoder: Encoder, rows: Sequence[Row], device: torch.device) -> list[str]:
    """What the head says: a class, or a number."""
    logits = model(**collate(rows, encoder.pad, device).inputs).logits
    if encoder.kind == "rate":
        return [f"{number:.6g}" for number in logits[:, 0].tolist()]
    return [encoder.labels[i] for i in logits.argmax(-1).tolist()]
