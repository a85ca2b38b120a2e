"""Answers and losses of a model, and the records that a run keeps."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import deltatune as dt
from experiments.config.schema import EvalConfig
from experiments.data.encode import Encoded
from experiments.evaluation.answers import answers, mean_loss
from experiments.objectives.classification import Classification
from experiments.objectives.responses import Responses
from experiments.objectives.stopping import EVERY
from experiments.support.files import write_json, write_text
from tests.support.small import ENCODER, END, PAD, RESPONSES, VOCABULARY, llama, reader, some_rows
from tests.support.tolerance import bound, reduction


def greedy(model: nn.Module, prompt: list[int], n: int) -> list[int]:
    """One token at a time, without a cache."""
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == END:
            break
    return ids[len(prompt) :]


@torch.no_grad()
def test_batched_generation_is_greedy_decoding_one_by_one():
    model, rows = llama().eval(), some_rows(9, seed=4)
    with torch.no_grad():
        model.lm_head.weight[END] += model.lm_head.weight[2:].mean(0) + 0.04  # so that some responses end early
    strided = []
    watch = model.lm_head.register_forward_hook(lambda _, args, __: strided.append(not args[0].is_contiguous()))
    texts = answers(RESPONSES, reader(model), rows, EvalConfig(batch_size=4, max_new_tokens=12), 100)
    watch.remove()
    assert strided
    assert not any(strided)  # matmul would copy the head once a row
    expected = [greedy(model, row.prompt, 12) for row in rows]
    assert texts == [" ".join(str(i) for i in ids if i not in (PAD, END)) for ids in expected]
    assert len({len(ids) for ids in expected}) > 1


@torch.no_grad()
def test_a_prompts_ids_stand_before_every_row_in_generation():
    model = llama().eval()
    dt.inject(model, dt.Prompt.on(length=3), name="p")
    for _, p in dt.parameters(model):
        p.normal_(std=2.0)
    front = dt.prompt_ids(model, "p")
    rows = [Encoded([*front, *row.prompt], row.response) for row in some_rows(5)]
    texts = answers(RESPONSES, reader(model), rows, EvalConfig(batch_size=5, max_new_tokens=6), 100)
    expected = [greedy(model, row.prompt, 6) for row in rows]
    assert texts == [" ".join(str(i) for i in ids if i not in (PAD, END)) for ids in expected]


@torch.no_grad()
def test_an_answer_ends_where_it_is_hopeless_and_the_others_stay_as_they_are():
    model, rows = llama().eval(), some_rows(9, seed=4)
    model.lm_head.weight[END] += model.lm_head.weight[2:].mean(0) + 0.04  # so that some responses end early
    calls: list[int] = []
    watch = model.register_forward_pre_hook(lambda *_: calls.append(1))

    def hopeless(text: str) -> bool:  # a metric that wants the first number to be even
        return bool(text) and int(text.split()[0]) % 2 == 1

    def texts(ends: Callable[[str], bool] | None) -> list[str]:
        calls.clear()
        objective = Responses(ENCODER, hopeless=ends)
        return answers(objective, reader(model), rows, EvalConfig(batch_size=4, max_new_tokens=16), 100)

    whole, short = texts(None), texts(hopeless)
    cut = [text.endswith(" …") for text in short]
    # A text that ended by itself is whole, hopeless or not; the others are cut at the first look at them.
    assert cut == [hopeless(text) and len(text.split()) >= EVERY for text in whole]
    assert any(cut) and not all(cut) and any(hopeless(text) for text, c in zip(whole, cut) if not c)
    for a, b, c in zip(whole, short, cut):
        assert a.startswith(b.removesuffix(" …")) and len(b.split()) == EVERY + 1 if c else a == b
    texts(lambda text: True)
    assert len(calls) <= 3 * EVERY  # three batches, where all rows are hopeless
    watch.remove()


def test_classification_by_the_likeliest_class():
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    model = BertForSequenceClassification(BertConfig(**sizes, num_attention_heads=2, num_labels=3)).eval()
    objective = Classification(ENCODER, ("a", "b", "c"))
    rows = [Encoded(r.prompt, segments=[0] * len(r.prompt), label=i % 3) for i, r in enumerate(some_rows(6))]
    texts = answers(objective, reader(model), rows, EvalConfig(batch_size=4), 100)
    with torch.no_grad():
        logits = torch.cat([model(torch.tensor([row.prompt])).logits for row in rows])
    assert texts == ["abc"[i] for i in logits.argmax(-1)]
    expected = F.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1, 2])).item()
    allowed = bound(torch.float32, reduction(model))
    assert mean_loss(objective, reader(model), rows, 4) == pytest.approx(expected, rel=allowed)


# ---------------------------------------------------------------- files


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "result.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(file, {"a": math.nan})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(file, "new")
    assert file.read_text() == '{\n  "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [file]
