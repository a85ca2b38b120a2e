"""What a task costs to use, and the count of its arithmetic."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import deltatune as dt
from experiments.config.schema import Trains
from experiments.data.encode import Encoded
from experiments.evaluation import cost
from experiments.models.weights import NAME, load_in_place, own_tensors
from experiments.objectives.generation import written
from tests.support.small import CPU, END, RESPONSES, llama, reader, some_rows
from tests.support.tolerance import agree, reduction


def base() -> nn.Module:
    model = llama()
    model.requires_grad_(False)
    return model


def test_flops_are_those_of_the_layers():
    """Full training costs three products a weight and token (6 FLOPs); a frozen base two, and its delta little.

    The embedding is a look-up, and the head sees the labelled tokens alone.
    """
    row = Encoded([5, 6, 7], [8, 9, END])
    frozen, full = base(), llama()
    for model in (frozen, full):  # the first loss of a model looks at its head with a forward of its own
        RESPONSES.loss_sum(model, RESPONSES.collate([row], CPU))
    weights = sum(m.weight.numel() for n, m in full.named_modules() if isinstance(m, nn.Linear) and n != "lm_head")
    head = full.lm_head.weight.numel() * len(row.response) / row.n_tokens
    forward = cost.flops(RESPONSES, reader(frozen), [row], 100)
    assert forward["train"] == 100 * forward["per_token"]
    attention = forward["per_token"] - 2 * (weights + head)
    assert 0 <= attention < 0.1 * forward["per_token"]  # T is 6
    all_of_it = cost.flops(RESPONSES, reader(full), [row], 100)["per_token"]
    assert all_of_it == pytest.approx(3 * forward["per_token"], rel=0.05)
    dt.inject(frozen, dt.LoRA.on(rank=1), name=NAME)
    with_delta = cost.flops(RESPONSES, reader(frozen), [row], 100)["per_token"]
    assert 1.8 * forward["per_token"] < with_delta < 2.6 * forward["per_token"]


def test_counting_leaves_nothing_behind(monkeypatch):
    model = llama()
    monkeypatch.delenv("DELTATUNE_KERNELS", raising=False)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    cost.flops(RESPONSES, reader(model), some_rows(), 1)
    assert torch.equal(torch.rand(2), expected)
    assert all(p.grad is None for p in model.parameters())
    assert "DELTATUNE_KERNELS" not in os.environ
    assert not model.training


@pytest.mark.parametrize(("method", "foldable"), [("LoRA", True), ("Prefix", False), ("Adapter", False)])
def test_speed_unmerged_and_merged(method, foldable):
    model = base()
    dt.inject(model, dt.METHODS[method].on(), name=NAME)
    weights = [p.detach().clone() for p in model.parameters()]
    found = cost.generate_tokens_per_s(reader(model), Trains.deltas, some_rows())
    assert found["unmerged"] is not None and found["unmerged"] > 0
    assert (found["merged"] is not None) == foldable
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_an_encoder_writes_nothing():
    class Classifier(nn.Module):
        def get_output_embeddings(self) -> None:
            return None

    found = cost.generate_tokens_per_s(reader(Classifier()), Trains.deltas, [])
    assert found == {"unmerged": None, "merged": None}


def test_switching_leaves_the_task_live(tmp_path):
    model, ids = base(), torch.tensor([[5, 6, 7]])
    plain = model(ids).logits
    dt.inject(model, dt.LoRA.on(rank=2), name=NAME)
    for _, p in dt.parameters(model):
        nn.init.normal_(p)
    expected = model(ids).logits
    took = cost.switch_s(model, Trains.deltas, tmp_path / "delta.safetensors", CPU)
    assert took is not None and took > 0
    agree(model(ids).logits, expected, reduction(model))
    assert not torch.equal(expected, plain)
    assert cost.switch_s(model, Trains.nothing, None, CPU) is None


def test_a_whole_model_comes_back_in_place(tmp_path):
    tuned, other = llama(), llama()
    with torch.no_grad():
        for p in tuned.parameters():
            p.add_(1)
    file = tmp_path / "model.safetensors"
    save_file({name: t.clone() for name, t in own_tensors(tuned).items()}, file)
    places = [p.data_ptr() for p in other.parameters()]
    took = cost.switch_s(other, Trains.everything, file, CPU)
    assert took is not None and took > 0
    assert [p.data_ptr() for p in other.parameters()] == places
    assert all(torch.equal(a, b) for a, b in zip(tuned.parameters(), other.parameters(), strict=True))
    with pytest.raises(ValueError, match=r"model.safetensors: '.*' has shape"):
        load_in_place(llama(intermediate_size=64), file)


def test_texts_of_a_set_length():
    out = written(reader(base()), [[5, 6, 7], [8]], 9)
    assert out.shape == (2, 9)
    assert not (out == END).any()
