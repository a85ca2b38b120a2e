"""Answers and losses of a model, and the records that a run keeps."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import deltatune as dt
from experiments.batches import Encoder, Row
from experiments.config import EvalConfig
from experiments.evaluate import answers, mean_loss
from experiments.record import Memory, Phases, write_json, write_text
from tests.small import CPU, END, PAD, VOCABULARY, Characters, llama, some_rows


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
    encoder, strided = Encoder(Characters(), 64), []
    watch = model.lm_head.register_forward_hook(lambda _, args, __: strided.append(not args[0].is_contiguous()))
    texts = answers(model, encoder, rows, EvalConfig(batch_size=4, max_new_tokens=12), CPU, 100)
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
    rows = [Row([*front, *row.prompt], row.response) for row in some_rows(5)]
    texts = answers(model, Encoder(Characters(), 64), rows, EvalConfig(batch_size=5, max_new_tokens=6), CPU, 100)
    expected = [greedy(model, row.prompt, 6) for row in rows]
    assert texts == [" ".join(str(i) for i in ids if i not in (PAD, END)) for ids in expected]


def test_classification_by_the_likeliest_class():
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    model = BertForSequenceClassification(BertConfig(**sizes, num_attention_heads=2, num_labels=3)).eval()
    encoder = Encoder(Characters(), 64, labels=("a", "b", "c"), kind="classify", head=True)
    rows = [Row(r.prompt, segments=[0] * len(r.prompt), label=i % 3) for i, r in enumerate(some_rows(6))]
    texts = answers(model, encoder, rows, EvalConfig(batch_size=4), CPU, 100)
    with torch.no_grad():
        logits = torch.cat([model(torch.tensor([row.prompt])).logits for row in rows])
    assert texts == ["abc"[i] for i in logits.argmax(-1)]
    expected = F.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1, 2])).item()
    assert mean_loss(model, rows, PAD, 4, CPU) == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------- records


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


@pytest.mark.parametrize("resettable", [True, False], ids=["mark reset", "sampled"])
def test_memory_of_a_block(monkeypatch, resettable):
    size = 300 << 20
    np.ones(2 * size, dtype=np.uint8).sum()  # an earlier peak, higher than the one to be measured
    memory = Memory()
    if not resettable:

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EACCES, "not here")

        monkeypatch.setattr(Path, "write_text", refuse)
    memory.begin()
    held = np.ones(size, dtype=np.uint8)
    for _ in range(20):  # long enough for a sampler
        held += 1
    del held
    assert 0.9 * size < memory.increase_bytes() < 1.2 * size
    assert memory.peak_bytes() > 2 * size


def test_phases_add_up():
    phase = Phases()
    with pytest.raises(KeyboardInterrupt), phase("first"):
        raise KeyboardInterrupt
    with phase("second"):
        pass
    assert list(phase.seconds) == ["first", "second"]
    assert all(0 <= s < 1 for s in phase.seconds.values())
