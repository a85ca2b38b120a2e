"""What the tests of training share: a model of a few thousand parameters, rows for it, a tokenizer of characters."""

from __future__ import annotations

import random

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from experiments.config.schema import OptimConfig
from experiments.data.encode import Encoded, Encoder
from experiments.data.reader import Reader
from experiments.objectives.responses import Responses

CPU = torch.device("cpu")
PAD, END = 0, 1
VOCABULARY = 40


def llama(**changes: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": PAD,
        "eos_token_id": END,
        "bos_token_id": None,
    }
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **changes}))


def some_rows(n: int = 7, seed: int = 0) -> list[Encoded]:
    """Rows of uneven prompts and responses."""
    draw = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [draw.randrange(2, VOCABULARY) for _ in range(draw.randint(low, high))]

    return [Encoded(ids(3, 9), [*ids(1, 8), END]) for _ in range(n)]


def optim(**changes: object) -> OptimConfig:
    return OptimConfig(**{"lr": 1e-2, "steps": 6, "batch_size": 4, "checkpoint_every": 2, **changes})  # type: ignore[arg-type]


class Characters:
    """A tokenizer of characters, as far as an Encoder needs one."""

    eos_token_id, pad_token_id = END, PAD

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) for c in text]}

    def batch_decode(self, ids: list[list[int]], skip_special_tokens: bool) -> list[str]:
        return [" ".join(str(i) for i in row if i not in (PAD, END)) for row in ids]


ENCODER = Encoder(Characters(), 64)
RESPONSES = Responses(ENCODER)


def reader(model: torch.nn.Module, front: tuple[int, ...] = ()) -> Reader:
    return Reader(model, Encoder(Characters(), 64, front), CPU)
