"""Likelihoods of options and of texts against those computed one by one, without a cache."""

from __future__ import annotations

import json
import random

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import deltatune as dt
from experiments.config.schema import EvalConfig
from experiments.data.encode import Encoded, Encoder, Option
from experiments.data.reader import Reader
from experiments.evaluation.answers import answers
from experiments.objectives import likelihood
from experiments.objectives.likelihood import (
    likeliest_choice,
    likeliest_label,
    log_likelihoods,
    packed,
    text_likelihoods,
)
from experiments.objectives.multiple_choice import MultipleChoice
from tests.support.small import CPU, ENCODER, END, VOCABULARY, Characters, llama, reader, some_rows
from tests.support.tolerance import bound, reduction


def gpt2() -> nn.Module:
    """With learned positions: a row that padding moves is another row."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=64))


def rows_with_options(seed: int = 0) -> list[Encoded]:
    """Rows of uneven prompts, each with one to four uneven options."""
    draw = random.Random(seed)
    made = []
    for row in some_rows(6, seed):
        lengths = [draw.randint(1, 6) for _ in range(draw.randint(1, 4))]
        ids = [[draw.randrange(2, VOCABULARY) for _ in range(n)] for n in lengths]
        made.append(Encoded(row.prompt, options=tuple(Option(str(i), one, len(one)) for i, one in enumerate(ids))))
    return made


def one_by_one(model: nn.Module, row: Encoded) -> list[float]:
    found = []
    for option in row.options:
        logits = model(torch.tensor([row.prompt + option.ids]), use_cache=False).logits[0]
        logp = logits.float().log_softmax(-1)
        start = len(row.prompt) - 1
        found.append(sum(logp[start + k, token].item() for k, token in enumerate(option.ids)))
    return found


def with_delta(rule: dt.Rule) -> nn.Module:
    model = llama()
    dt.inject(model, rule, name="d")
    with torch.no_grad():
        for _, p in dt.parameters(model):
            p.normal_(std=0.5)
    return model


@pytest.mark.parametrize(
    "make",
    [llama, gpt2, lambda: with_delta(dt.LoRA.on(rank=2)), lambda: with_delta(dt.Prefix.on(length=3))],
    ids=["llama", "learned positions", "lora", "prefix"],
)
@pytest.mark.parametrize("tokens", [1024, 7], ids=["together", "in small parts"])
@torch.no_grad()
def test_options_that_share_a_prompt_are_worth_what_they_are_alone(make, tokens, monkeypatch):
    monkeypatch.setattr(likelihood, "TOKENS", tokens)
    model, rows = make().eval(), rows_with_options()
    for found, row in zip(log_likelihoods(reader(model), rows), rows, strict=True):
        assert found == pytest.approx(one_by_one(model, row), rel=bound(torch.float32, reduction(model)))


@torch.no_grad()
def test_a_prompts_ids_stand_before_every_option():
    model = with_delta(dt.Prompt.on(length=3)).eval()
    front = dt.prompt_ids(model, "d")
    rows = [Encoded([*front, *row.prompt], options=row.options) for row in rows_with_options()]
    for found, row in zip(log_likelihoods(reader(model), rows), rows, strict=True):
        assert found == pytest.approx(one_by_one(model, row), rel=bound(torch.float32, reduction(model)))


@torch.no_grad()
def test_the_likeliest_option_by_its_size():
    model, rows = llama().eval(), rows_with_options(1)
    alone = [one_by_one(model, row) for row in rows]
    by_size = [max(range(len(one)), key=lambda i: one[i] / row.options[i].size) for one, row in zip(alone, rows)]
    plainly = [max(range(len(one)), key=lambda i: one[i]) for one in alone]
    assert by_size != plainly
    assert likeliest_choice(reader(model), rows) == [str(i) for i in by_size]
    assert answers(MultipleChoice(ENCODER), reader(model), rows, EvalConfig(batch_size=2), 100) == [
        str(i) for i in by_size
    ]


@pytest.mark.parametrize("tokens", [1024, 7], ids=["together", "in small parts"])
@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_the_likeliest_label_is_found_without_scoring_them_all(seed, tokens, monkeypatch):
    monkeypatch.setattr(likelihood, "TOKENS", tokens)
    draw = random.Random(seed)
    # Many share a beginning, and one is another's, but for the end.
    texts = {tuple(draw.choices((2, 3, 4), k=draw.randint(1, 4))) for _ in range(30)} | {(2,), (2, 3)}
    labels = tuple(Option(str(ids), [*ids, END]) for ids in sorted(texts))
    model, rows = llama(vocab_size=6).eval(), [Encoded([2 + i % 4 for i in row.prompt]) for row in some_rows(9, seed)]
    model.lm_head.weight *= 20  # so that labels differ
    calls = []
    model.register_forward_pre_hook(lambda _, args, kwargs: calls.append(kwargs["input_ids"].numel()), with_kwargs=True)
    found = likeliest_label(reader(model), labels, rows)
    searched = sum(calls)
    scores = log_likelihoods(reader(model), [Encoded(row.prompt, options=labels) for row in rows])
    assert found == [labels[max(range(len(labels)), key=lambda i: of[i])].text for of in scores]
    assert len(set(found)) > 1
    assert searched < 0.7 * (sum(calls) - searched)


@pytest.mark.parametrize("tokens", [1024, 7], ids=["together", "one by one"])
@torch.no_grad()
def test_the_likelihood_of_a_text(tokens, monkeypatch):
    monkeypatch.setattr(likelihood, "TOKENS", tokens)

    class Decoder(Characters):
        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            return "é" * len(ids)

    model, rows = llama().eval(), [Encoded(row.prompt[:1], row.prompt[1:]) for row in some_rows()]
    for row, line in zip(rows, text_likelihoods(Reader(model, Encoder(Decoder(), 64), CPU), rows), strict=True):
        total, n_tokens, n_bytes = json.loads(line)
        (expected,) = one_by_one(model, Encoded(row.prompt, options=(Option("", row.response),)))
        assert -total == pytest.approx(expected, rel=bound(torch.float32, reduction(model)))
        assert (n_tokens, n_bytes) == (len(row.response), 2 * len(row.response))


def test_parts_of_a_forward(monkeypatch):
    monkeypatch.setattr(likelihood, "TOKENS", 10)
    assert list(packed([2, 3, 3, 11, 1, 1])) == [[0, 1, 2], [3], [4, 5]]
    assert list(packed([1] * 5, most=2)) == [[0, 1], [2, 3], [4]]
    assert list(packed([])) == []
