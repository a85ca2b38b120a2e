"""The table of objectives: which is a task's, which may be named instead, and that each can learn and answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, T5Config, T5ForConditionalGeneration

from experiments.config.family import Family
from experiments.config.identity import key
from experiments.config.schema import LossOn
from experiments.data.encode import Encoder
from experiments.data.reader import Reader
from experiments.objectives import OBJECTIVES, objective, objective_class, replayed_objective
from experiments.objectives.base import Objective
from experiments.objectives.classification import Classification, LabelText
from experiments.objectives.multiple_choice import MultipleChoice
from experiments.objectives.plain_text import PlainText
from experiments.objectives.rating import Rating, WrittenNumber
from experiments.objectives.response_likelihood import ResponseLikelihood
from experiments.objectives.responses import Responses
from experiments.objectives.sequence_to_sequence import (
    AnsweredChoice,
    AnsweredLabel,
    AnsweredNumber,
    AnswerLikelihood,
    Answers,
)
from experiments.tasks.base import TRAITS, Example
from tests.support.runs import config, overrides, own_cache_and_torch_settings, run  # noqa: F401
from tests.support.small import CPU, END, PAD, llama

CHOSEN = [
    ("generate", Family.decoder, Responses),
    ("text", Family.decoder, PlainText),
    ("classify", Family.encoder, Classification),
    ("classify", Family.decoder, LabelText),
    ("rate", Family.encoder, Rating),
    ("rate", Family.decoder, WrittenNumber),
    ("choose", Family.decoder, MultipleChoice),
    ("respond", Family.decoder, ResponseLikelihood),
    ("generate", Family.encoder_decoder, Answers),
    ("classify", Family.encoder_decoder, AnsweredLabel),
    ("rate", Family.encoder_decoder, AnsweredNumber),
    ("choose", Family.encoder_decoder, AnsweredChoice),
    ("respond", Family.encoder_decoder, AnswerLikelihood),
]
EXAMPLES = {
    "generate": [Example(text="add 1", completion="2"), Example(text="add 12", completion="13")],
    "text": [Example(text="once upon"), Example(text="a time")],
    "respond": [Example(text="add 1", completion="2"), Example(text="add 12", completion="13")],
    "classify": [Example(text="warm", completion="hot"), Example(text="ice", completion="cold")],
    "rate": [Example(text="fine", completion="4.0"), Example(text="bad", completion="1.5")],
    "choose": [
        Example(text="red or", completion="blue", choices=("blue", "red")),
        Example(text="b", completion="c", choices=("c", "d")),
    ],
}


class Letters:
    """A tokenizer of the letters of the examples above."""

    eos_token_id, pad_token_id = END, PAD

    def __call__(
        self, text: str = "", pair: str | None = None, text_target: str = "", **_: Any
    ) -> dict[str, list[int]]:
        text = text or text_target
        return {"input_ids": [2 + ord(letter) % 38 for letter in text + (pair or "")]}

    def batch_decode(self, ids: list[list[int]], skip_special_tokens: bool) -> list[str]:
        return ["".join(chr(i) for i in row) for row in ids]

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "x" * len(ids)


def bert(n_outputs: int) -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    return BertForSequenceClassification(BertConfig(**{**sizes, "num_attention_heads": 2, "num_labels": n_outputs}))


def t5() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 40, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(**sizes, dropout_rate=0.0, eos_token_id=END, pad_token_id=PAD))


@pytest.mark.parametrize(("kind", "family", "chosen"), CHOSEN)
def test_every_kind_of_task_has_its_objective(kind: str, family: Family, chosen: type[Objective]) -> None:
    assert objective_class(kind, family) is chosen
    assert set(OBJECTIVES.values()) == {objective for _, _, objective in CHOSEN}
    assert {kind for kind, _, _ in CHOSEN} == set(TRAITS)


@pytest.mark.parametrize(("kind", "family", "chosen"), CHOSEN)
def test_every_objective_learns_and_answers(kind: str, family: Family, chosen: type[Objective]) -> None:
    """Its loss is a sum over units, gives gradients, falls in a few steps; and it answers each row."""
    examples = EXAMPLES[kind]
    labels = ("cold", "hot") if TRAITS[kind].labelled else ()
    objective = chosen(Encoder(Letters(), 32, decoder_start=PAD), labels)
    model = {
        Family.decoder: llama,
        Family.encoder: lambda: bert(len(labels) or 1),
        Family.encoder_decoder: t5,
    }[family]()
    rows = objective.rows(examples)
    batch = objective.collate(rows, CPU)
    alone = [objective.collate([row], CPU) for row in rows]
    assert objective.n_units(batch) == sum(map(objective.n_units, alone)) > 0
    model.eval()
    whole = objective.loss_sum(model, batch)
    assert whole.item() == pytest.approx(sum(objective.loss_sum(model, one).item() for one in alone), rel=1e-4)
    assert whole.item() == pytest.approx(objective.loss_sum(model, batch).item())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        objective.loss_sum(model.train(), batch).backward()
        optimizer.step()
    assert objective.loss_sum(model.eval(), batch).item() < 0.7 * whole.item()
    with torch.no_grad():
        answers = objective.answers(Reader(model, objective.encoder, CPU), rows, 6)
    assert len(answers) == len(rows) and all(isinstance(answer, str) for answer in answers)
    if labels or TRAITS[kind].choices:
        assert answers == [example.completion for example in examples]


def test_another_encoder_is_the_same_objective() -> None:
    one = LabelText(Encoder(Letters(), 32), ("a", "b"))
    other = one.on(Encoder(Letters(), 32, front=(30, 31)))
    assert (type(other), other.labels, other.loss_on) == (LabelText, ("a", "b"), one.loss_on)
    assert other.encode(Example(text="a", completion="b")).prompt[:2] == [30, 31]


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match="an encoder generates no text"):
        objective_class("generate", Family.encoder)
    with pytest.raises(ValueError, match=r"objective=ppo: there is no such objective; there are: .*responses.*rating"):
        objective_class("generate", Family.decoder, "ppo")
    with pytest.raises(ValueError, match="objective=rating needs an encoder with a task head"):
        objective_class("rate", Family.decoder, "rating")
    with pytest.raises(ValueError, match="objective=responses needs a language model"):
        objective_class("classify", Family.encoder, "responses")
    with pytest.raises(ValueError, match="no objective learns a task of the kind 'dance'"):
        objective_class("dance", Family.decoder)


@pytest.mark.parametrize(
    ("kind", "name"), [("generate", "multiple_choice"), ("generate", "label_text"), ("text", "responses")]
)
def test_an_objective_of_another_kind_is_refused(kind: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"objective={name} learns tasks of the kind .* is of the kind '{kind}'"):
        objective_class(kind, Family.decoder, name)
    with pytest.raises(ValueError, match="objective=rating learns tasks of the kind rate"):
        objective_class("classify", Family.encoder, "rating")


def test_what_is_replayed_is_learned_as_the_tasks_chats_are() -> None:
    every = Responses(Encoder(Letters(), 32), loss_on=LossOn.all)
    assert replayed_objective(every, "generate").loss_on is LossOn.all


def test_no_room_for_a_text_is_said() -> None:
    with pytest.raises(ValueError, match=r"optim\.max_length=1 leaves nothing to predict"):
        PlainText(Encoder(Letters(), 1)).encode(EXAMPLES["text"][0])
    with pytest.raises(ValueError, match=r"optim\.max_length=8 leaves no room for a text"):
        Classification(Encoder(Letters(), 8, front=tuple(range(30, 38))), ("cold", "hot")).encode(
            EXAMPLES["classify"][0]
        )


def test_a_name_is_one_objectives() -> None:
    with pytest.raises(ValueError, match="responses"):
        objective("responses")(PlainText)
    assert OBJECTIVES["responses"] is Responses


def test_an_objective_may_be_named_and_is_part_of_the_runs_key(tmp_path) -> None:
    data = tmp_path / "labels.jsonl"
    data.write_text("".join(f'{{"text": "it is {i}", "label": "{"ab"[i % 2]}"}}\n' for i in range(30)))
    given = overrides(tmp_path, "forgetting.enabled=false", file=data)
    plain = config(*given)
    named = config(*given, "objective=responses")
    assert len({key(plain), key(named), key(config(*given, "loss_on=all"))}) == 3
    result = run(named)
    assert result["status"] == "complete"
    assert result["quality"]["accuracy"] == 0.0  # an untrained model writes no label
    assert result["config"]["objective"] == "responses"


def test_what_a_prompt_lost_is_in_the_result(tmp_path) -> None:
    data = tmp_path / "words.jsonl"
    lines = [f'{{"prompt": "This is sentence {i}. And one more.", "completion": "yes {i}"}}\n' for i in range(30)]
    data.write_text("".join(lines))
    result = run(
        config(*overrides(tmp_path, "forgetting.enabled=false", "optim.max_length=30", "data.check=off", file=data))
    )
    assert result["data"]["n_truncated"] == 30
    assert (result["data"]["n_turns_cut"], result["data"]["n_sentences_cut"]) == (0, 30)


def test_a_chats_earlier_answers_can_be_learned(tmp_path) -> None:
    turns = '{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b %d"}'
    data = tmp_path / "chats.jsonl"
    lines = [f'{{"messages": [{turns % i}, {turns % (i + 1)}]}}\n' for i in range(30)]
    data.write_text("".join(lines))
    given = overrides(tmp_path, "forgetting.enabled=false", "data.check=off", file=data)
    last, every = (run(config(*given, f"loss_on={which}")) for which in ("last", "all"))
    assert last["key"] != every["key"]
    assert last["loss"]["train_last"] != every["loss"]["train_last"]


def test_a_reader_knows_whether_its_model_writes() -> None:
    encoder = Encoder(SimpleNamespace(), 8)
    assert Reader(llama(), encoder, CPU).writes and not Reader(bert(2), encoder, CPU).writes
