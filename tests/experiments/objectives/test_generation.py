"""Where a written answer ends, and that a checkpoint's own way to generate changes nothing."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from experiments.data.encode import Encoder
from experiments.data.reader import Reader
from experiments.models.tokenizer import CHATML, byte_tokenizer
from experiments.objectives.responses import Responses
from experiments.objectives.sequence_to_sequence import Answers
from experiments.tasks.base import Example

CPU = torch.device("cpu")
ASKED = Example(messages=({"role": "user", "content": "Two and two?"},), completion="4")


def tokenizer(end: str, *words: str) -> Any:
    made = byte_tokenizer()
    made.add_special_tokens({"eos_token": "</s>"})
    made.add_tokens(list(words), special_tokens=True)
    made.chat_template = CHATML.replace("<|im_end|>", end)
    return made


class Says(nn.Module):
    """A head that says one text after another position, whatever it reads: logits 1 at the next token of `ids`."""

    def __init__(self, ids: list[int], start: int, n: int) -> None:
        super().__init__()
        self.ids, self.start, self.n, self.place = ids, start, n, 0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*hidden.shape[:2], self.n)
        self.place = self.place + 1 if hidden.shape[1] == 1 and self.place else 1
        logits[:, -1, self.ids[min(self.place, len(self.ids)) - 1]] = 1.0
        return logits


def model(n: int, **more: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=n, **sizes, pad_token_id=0, **more)).eval()


def answered(made: Any, said: str, stops: Any = None) -> str:
    """What is scored of a model that says this text to a chat."""
    objective, one = Responses(Encoder(made, 200)), cast(Any, model(len(made)))
    one.generation_config.eos_token_id = stops
    row = objective.encode(ASKED)
    one.lm_head = Says(made(said, add_special_tokens=False)["input_ids"], len(row.prompt), len(made))
    (text,) = objective.answers(Reader(one, objective.encoder, CPU), [row], 40)
    return text


@pytest.mark.parametrize(
    ("end", "words", "said", "stops"),
    [
        ("<|im_end|>", (), "4<|im_end|>\nand more", None),
        ("<end_of_turn>", ("<end_of_turn>",), "4<end_of_turn>\nand more", None),
        ("<end_of_turn>", ("<end_of_turn>",), "4</s>and more", None),
        ("<end_of_turn>", ("<end_of_turn>", "<stop>"), "4<stop>and more", 260),
        ("<end_of_turn>", ("<end_of_turn>", "<stop>"), "4<stop>and more", [2, 261]),
        ("<end_of_turn>", (), "4<end_of_turn>\nand more", None),
        (" [/A]", (), "4 [/A]\n[Q] and more", None),
    ],
)
def test_an_answer_ends_where_its_turn_does(end: str, words: tuple[str, ...], said: str, stops: Any) -> None:
    made = tokenizer(end, *words)
    if stops is not None:
        stop = made.convert_tokens_to_ids("<stop>")
        stops = stop if isinstance(stops, int) else [2, stop]
    assert answered(made, said, stops).strip() == "4"


SPOILED = {
    "no_repeat_ngram_size": 1, "repetition_penalty": 5.0, "suppress_tokens": list(range(3, 200)), "num_beams": 3,
    "forced_eos_token_id": 2, "forced_bos_token_id": 9, "temperature": 0.1, "bad_words_ids": [[7], [8]],
    "min_length": 30, "begin_suppress_tokens": [5], "exponential_decay_length_penalty": [1, 5.0], "top_k": 3,
    "sequence_bias": [[[9], 9.0]], "renormalize_logits": True, "max_length": 20, "do_sample": True,
}  # fmt: skip


@pytest.mark.parametrize("setting", SPOILED)
@pytest.mark.parametrize("seq2seq", [False, True])
def test_a_checkpoints_way_to_generate_changes_nothing(setting: str, seq2seq: bool) -> None:
    made = tokenizer("<|im_end|>")
    torch.manual_seed(0)
    if seq2seq:
        sizes: dict[str, Any] = {
            "d_model": 16,
            "d_ff": 16,
            "d_kv": 8,
            "num_layers": 1,
            "num_heads": 2,
            "pad_token_id": 0,
        }
        one: Any = T5ForConditionalGeneration(T5Config(vocab_size=len(made), **sizes)).eval()
        objective: Any = Answers(Encoder(made, 200, decoder_start=0))
    else:
        one, objective = model(len(made)), Responses(Encoder(made, 200))
    rows = [objective.encode(ASKED), objective.encode(Example(text="Once upon", completion="x"))]
    reader = Reader(one, objective.encoder, CPU)
    plain = objective.answers(reader, rows, 12)
    kept = one.generation_config
    setattr(kept, setting, SPOILED[setting])
    assert objective.answers(reader, rows, 12) == plain
    assert one.generation_config is kept and getattr(kept, setting) == SPOILED[setting]
