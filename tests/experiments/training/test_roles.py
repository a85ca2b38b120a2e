"""Parameters by role: a new task head learns at its own rate, the same for every method."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import deltatune as dt
from experiments.training.optimizer import Group, Optimizer, Role, groups, schedule
from tests.support.runs import classes, config, overrides, own_cache_and_torch_settings, run  # noqa: F401
from tests.support.small import llama, optim


def bert(n: int = 3) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    small = BertConfig(vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    small.num_labels = n
    return BertForSequenceClassification(small).requires_grad_(False)


def roles(model: nn.Module) -> dict[str, set[str]]:
    names = {id(p): name for name, p in model.named_parameters()}
    by_role: dict[str, set[str]] = {}
    for group in groups(model):
        by_role.setdefault(group.role.value, set()).update(names[id(p)] for p in group.parameters)
    return by_role


def test_a_delta_and_its_head_are_roles_of_their_own():
    model = bert()
    dt.inject(model, dt.LoRA.on(rank=2), dt.Head.on())
    by_role = roles(model)
    assert set(by_role) == {"delta", "head"}
    assert {name.rsplit(".", 1)[1] for name in by_role["delta"]} == {"A", "B"}
    assert all(name.startswith("classifier") for name in by_role["head"])
    assert len(by_role["head"]) == 2


def test_full_fine_tuning_has_a_base_and_a_head():
    model = bert().requires_grad_(True)
    by_role = roles(model)
    assert by_role["head"] == {"classifier.weight", "classifier.bias"}
    assert by_role["base"] == {name for name, _ in model.named_parameters()} - by_role["head"]


def test_a_language_model_has_no_head_that_is_new():
    assert set(roles(llama().requires_grad_(True))) == {"base"}


@pytest.mark.parametrize("lr", [1e-4, 1e-1])
def test_the_heads_first_step_does_not_know_the_methods_rate(lr):
    """Adam's first step is as long as the rate, whatever the gradient: each role moves by its own."""
    moved = {}
    settings = optim(lr=lr, head_lr=3e-2, steps=10, warmup_steps=0, weight_decay=0.0)
    delta, head = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    optimizer = Optimizer([Group(Role.delta, False, (delta,)), Group(Role.head, False, (head,))], settings)
    (delta.sum() + 5 * head.sum()).backward()
    optimizer.step(0)
    moved = {"delta": -delta.detach(), "head": -head.detach()}
    assert moved["delta"].tolist() == pytest.approx([lr] * 3, rel=1e-3)
    assert moved["head"].tolist() == pytest.approx([3e-2] * 3, rel=1e-3)
    assert schedule(0, settings) == 1.0


def test_the_heads_rate_reaches_a_whole_run_and_a_methods_does_not_reach_the_head(tmp_path):
    """The same deltas, of a rate that moves nothing: what differs is the head, by its rate alone."""
    file = classes(tmp_path / "classes.jsonl")
    losses = {
        (lr, head_lr): run(
            config(
                *overrides(
                    tmp_path,
                    *("model=tiny_encoder", "method=bitfit", "optim.steps=6", "forgetting.enabled=false"),
                    *(f"optim.lr={lr}", f"optim.head_lr={head_lr}"),
                    file=file,
                )
            )
        )["loss"]["validation"]
        for lr in (1e-12, 1e-11)
        for head_lr in (1e-3, 1e-1)
    }
    assert losses[1e-12, 1e-3] == pytest.approx(losses[1e-11, 1e-3], rel=1e-4)
    assert losses[1e-12, 1e-1] == pytest.approx(losses[1e-11, 1e-1], rel=1e-4)
    assert losses[1e-12, 1e-1] != pytest.approx(losses[1e-12, 1e-3], rel=1e-3)
