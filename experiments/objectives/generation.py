"""Text that a model writes: up to its end of turn, or of a set length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from experiments.config.family import Family
from experiments.data.batch import padded
from experiments.data.encode import Encoded
from experiments.data.reader import Reader
from experiments.objectives.stopping import StopWhere
from experiments.tasks.base import Hopeless

TOKENS = ("bos_token_id", "eos_token_id")  # what is kept of a checkpoint's configuration


def generated(
    reader: Reader, rows: Sequence[Encoded], max_new_tokens: int, hopeless: Hopeless | None = None
) -> list[str]:
    """Greedy continuations of the rows' prompts, up to what ends an answer, or to where they are hopeless.

    An answer ends with what the rows' own end with, with the tokenizer's eos, and with any eos of the checkpoint.
    """
    tokenizer, endings = reader.encoder.tokenizer, {row.ending for row in rows if row.ending is not None}
    ends = {*eos_ids(reader.model), *(id for one in endings for id in one.tokens)}
    ends |= {tokenizer.eos_token_id} - {None}
    closings = sorted({one.text.strip() for one in endings} - {""})
    start = 1 if reader.family is Family.encoder_decoder else max(len(row.prompt) for row in rows)
    stop = StopWhere(hopeless, tokenizer, start, ends) if hopeless else None
    said = StopWhere(lambda text: any(one in text for one in closings), tokenizer, start, ends) if closings else None
    ids = continued(
        reader,
        [row.prompt for row in rows],
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends) or None,
        stopping_criteria=[each for each in (stop, said) if each] or None,
    )
    own = [row[: next((i for i, id in enumerate(row) if id in ends), len(row))] for row in ids.tolist()]
    texts = tokenizer.batch_decode(own, skip_special_tokens=True)
    texts = [min((text.partition(one)[0] for one in closings), key=len, default=text) for text in texts]
    return stop.marked(texts) if stop else texts


def written(reader: Reader, prompts: Sequence[list[int]], n_tokens: int, **how: Any) -> Tensor:
    """Exactly so many new tokens after each prompt, (B, n_tokens); greedy, unless `how` says otherwise."""
    reader.model.eval()
    return continued(reader, prompts, min_new_tokens=n_tokens, max_new_tokens=n_tokens, **how)


@torch.no_grad()
def continued(reader: Reader, prompts: Sequence[list[int]], **how: Any) -> Tensor:
    """The ids that follow each prompt, (B, new tokens), as transformers' generate with these arguments finds them."""
    model: Any = reader.model
    left = reader.family is Family.decoder
    how |= {} if left else {"decoder_start_token_id": reader.encoder.start}
    ids = padded(prompts, reader.encoder.pad, reader.device, left)
    with model.get_output_embeddings().register_forward_pre_hook(contiguous), own_generation(model):
        out = model.generate(
            input_ids=ids,
            attention_mask=padded([[1] * len(p) for p in prompts], 0, reader.device, left),
            pad_token_id=reader.encoder.pad,
            **{"do_sample": False, "use_cache": True, **how},
        )
    return out[:, ids.shape[1] if left else 1 :]


@contextmanager
def own_generation(model: Any) -> Iterator[None]:
    """Inside, nothing of the checkpoint's way to generate holds: its penalties, beams, forced and suppressed tokens,
    its temperature; only which of its tokens open and end a text."""
    kept = model.generation_config
    model.generation_config = GenerationConfig(**{name: getattr(kept, name) for name in TOKENS})
    try:
        yield
    finally:
        model.generation_config = kept


def eos_ids(model: Any) -> tuple[int, ...]:
    """The tokens that end a text, as the checkpoint says."""
    given = model.generation_config.eos_token_id
    return () if given is None else (given,) if isinstance(given, int) else tuple(given)


def contiguous(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The head's input as one block. After the prompts it is a strided slice, each row's last position, for which
    matmul copies the head once a row on CPU: 2.8 GB and half the time of 50 rows on a vocabulary of 49,152."""
    return (args[0].contiguous(), *args[1:])
