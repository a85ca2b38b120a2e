"""Batches, the loss and the optimizer, on models of a few thousand parameters."""

from __future__ import annotations

import math
import types

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

import deltatune as dt
from experiments.config.schema import Decay
from experiments.data.batch import IGNORED, by_length, indices, padded
from experiments.data.encode import Encoded, Encoder, Option
from experiments.data.shorten import Cut
from experiments.data.template import Ending
from experiments.evaluation.answers import mean_loss
from experiments.objectives.classification import LabelText
from experiments.objectives.multiple_choice import MultipleChoice
from experiments.objectives.plain_text import PlainText
from experiments.objectives.responses import Responses
from experiments.run.prepare import checkpoint_activations
from experiments.support.phase_clock import PhaseClock
from experiments.tasks.base import Example
from experiments.training.loop import accumulate
from experiments.training.optimizer import Group, Optimizer, Role, groups, rise, schedule
from tests.support.cases import shaken
from tests.support.small import (
    CPU,
    END,
    PAD,
    RESPONSES,
    VOCABULARY,
    Characters,
    llama,
    optim,
    reader,
    some_rows,
)
from tests.support.tolerance import agree, bound, largest, reduction


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=64, resid_pdrop=0.0)
    config.embd_pdrop = config.attn_pdrop = 0.0
    return GPT2LMHeadModel(config)


def gemma2() -> Gemma2ForCausalLM:
    """Caps its logits after the head."""
    torch.manual_seed(0)
    return Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            final_logit_softcapping=0.05,
            pad_token_id=PAD,
        )
    )


class ByWeight(nn.Module):
    """Reads its head's weight and never calls it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(VOCABULARY, 16), nn.Linear(16, VOCABULARY, bias=False)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: torch.Tensor, **_: object) -> types.SimpleNamespace:
        return types.SimpleNamespace(logits=F.linear(self.embed(input_ids), self.head.weight))


# ---------------------------------------------------------------- batches


def test_only_the_response_and_its_end_are_labelled():
    batch = RESPONSES.collate([Encoded([5, 6, 7], [8, END]), Encoded([9], [10, 11, END])], CPU)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8, END], [9, 10, 11, END, PAD]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert batch.labels.tolist() == [[IGNORED] * 3 + [8, END], [IGNORED, 10, 11, END, IGNORED]]
    assert (batch.n_tokens, RESPONSES.n_units(batch)) == (9, 5)
    assert padded([[5], [6, 7]], PAD, CPU, left=True).tolist() == [[PAD, 5], [6, 7]]


def test_encoding_of_plain_text():
    objective = Responses(Encoder(Characters(), max_length=10, front=(100, 101)))
    row = objective.encode(Example((), "yes", text="go"))
    expected = Encoded([100, 101, *map(ord, "go\n")], [*map(ord, "yes"), END], ending=Ending("", END))
    assert row == expected
    assert objective.encode(Example((), "yes", text="go ")).prompt == [100, 101, *map(ord, "go ")]
    assert objective.encode(Example((), "yes", text="a", text_pair="b")).prompt == [100, 101, *map(ord, "a\nb\n")]
    cut = objective.encode(Example((), "yes", text="a long way to go"))
    assert cut.prompt == [100, 101, *map(ord, "go\n")]  # whole words
    assert len(cut.prompt) + len(cut.response) <= 10
    assert (row.cut, cut.cut) == (Cut(), Cut(tokens=len("a long way to ")))
    with pytest.raises(ValueError, match=r"file:3.*10 tokens.*optim.max_length=10"):
        objective.encode(Example((), "long long", text="go", place="file:3"))


def test_options_are_labels_with_their_end_and_choices_without():
    by_label = LabelText(Encoder(Characters(), 12), ("no", "maybe")).encode(Example((), "no", text="is it so?"))
    assert by_label.response == [*map(ord, "no"), END]
    assert [(option.text, option.size) for option in by_label.options] == [("no", 1), ("maybe", 1)]
    assert [option.ids for option in by_label.options] == [[*map(ord, "no"), END], [*map(ord, "maybe"), END]]
    assert by_label.prompt == [*map(ord, "so?\n")]  # there is room for the longest label
    example = Example((), "née", text="q", choices=("née", "b"))
    choice = MultipleChoice(Encoder(Characters(), 12)).encode(example)
    assert choice.options == (Option("née", [*map(ord, "née")], 4), Option("b", [ord("b")], 1))
    assert choice.response == [*map(ord, "née"), END]


def test_every_token_of_a_text_is_learned_that_another_comes_before():
    short = PlainText(Encoder(Characters(), 8))
    batch = short.collate([short.encode(Example(text="abc"))], CPU)
    assert batch.labels.tolist() == [[IGNORED, ord("b"), ord("c")]]
    row = PlainText(Encoder(Characters(), 4, front=(100,))).encode(Example(text="abcde"))
    assert row == Encoded([100], [*map(ord, "abc")], cut=Cut(tokens=2))
    with pytest.raises(ValueError, match=r"file:3: a text of one token"):
        short.encode(Example(text="a", place="file:3"))


def test_every_epoch_is_a_permutation_of_its_own_and_any_step_can_be_had_alone():
    flat = [i for step in range(10) for i in indices(step, 4, 10, seed=3)]
    epochs = [flat[k : k + 10] for k in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert indices(7, 4, 10, seed=3) == flat[28:32]
    assert indices(0, 4, 10, seed=4) != flat[:4]
    assert sorted(indices(0, 9, 3, seed=0)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]  # a batch above the data's size


# ---------------------------------------------------------------- loss


@pytest.mark.parametrize("make", [llama, gpt2, gemma2, ByWeight], ids=lambda f: f.__name__)
def test_the_loss_over_labelled_rows_is_the_whole_one(make):
    """The loss over selected rows, and its gradients, against those from all logits."""
    model, batch = make().train(), RESPONSES.collate(some_rows(), CPU)
    logits = model(**batch.inputs).logits
    whole = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )
    ours = RESPONSES.loss_sum(model, batch)
    agree(ours, whole, reduction(model))
    parameters = list(model.parameters())
    got, want = torch.autograd.grad(ours, parameters), torch.autograd.grad(whole, parameters)
    agree(got, want, 2 * reduction(model), batch.labels.numel(), scale=largest(want))


@pytest.mark.parametrize(("make", "through_head"), [(llama, False), (gemma2, True)], ids=["plain", "capped"])
def test_the_head_sees_labelled_rows_only(make, through_head):
    """A model that changes the logits after its head runs the head on labelled rows; others need no logits at all."""
    model, batch, seen = make(), RESPONSES.collate(some_rows(), CPU), []
    RESPONSES.loss_sum(model, batch)
    model.get_output_embeddings().register_forward_hook(lambda _, args, __: seen.append(tuple(args[0].shape)))
    RESPONSES.loss_sum(model, batch)
    assert seen == [(1, RESPONSES.n_units(batch), 32) if through_head else (1, 1, 32)]
    assert RESPONSES.n_units(batch) < batch.labels.numel() / 2


def test_the_first_loss_draws_no_more_than_the_others():
    """It finds out on one token whether the head comes last, and dropout draws there."""
    model, batch = gpt2().train(), RESPONSES.collate(some_rows(), CPU)
    model.transformer.drop.p = 0.5
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append((RESPONSES.loss_sum(model, batch).item(), torch.rand(()).item()))
    assert found[0] == found[1]


def test_padding_does_not_change_the_loss():
    model, rows = llama(), some_rows(2)
    longer = Encoded(rows[0].prompt, [*rows[0].response[:-1], *[5] * 20, END])
    alone = sum(RESPONSES.loss_sum(model, RESPONSES.collate(each, CPU)) for each in (rows[:1], [longer]))
    together = RESPONSES.loss_sum(model, RESPONSES.collate([rows[0], longer], CPU))
    agree(together, alone, reduction(model))


def test_a_batch_with_nothing_to_learn_is_no_fault_of_the_rate():
    rows = [Encoded([3, 4, 5])] * 2
    with pytest.raises(ValueError, match=r"a batch of 2 examples has nothing to learn: .* Responses"):
        accumulate(reader(llama()), RESPONSES, rows, optim(), PhaseClock())
    with pytest.raises(ValueError, match="2 examples have nothing to learn"):
        mean_loss(RESPONSES, reader(llama()), rows, 2)


def test_accumulation_weighs_tokens_not_parts():
    model, rows = llama(), some_rows(8)

    def gradients(micro: int | None) -> tuple[float, list[torch.Tensor]]:
        model.zero_grad()
        loss, n_tokens = accumulate(reader(model), RESPONSES, rows, optim(micro_batch=micro), PhaseClock())
        assert n_tokens == sum(len(r.prompt) + len(r.response) for r in rows)
        return loss, [p.grad.clone() for p in model.parameters() if p.grad is not None]

    whole_loss, whole = gradients(None)
    for micro in (1, 3):
        loss, parts = gradients(micro)
        assert loss == pytest.approx(whole_loss, rel=bound(torch.float32, reduction(model)))
        agree(parts, whole, 2 * reduction(model), sum(row.n_tokens for row in rows), scale=largest(whole))
    means = [mean_loss(RESPONSES, reader(model), rows[i : i + 1], 1) for i in range(8)]
    assert abs(sum(means) / 8 - whole_loss) > 1e-3  # the mean of means, which it must not be
    assert mean_loss(RESPONSES, reader(model), rows, 3) == pytest.approx(
        whole_loss, rel=bound(torch.float32, reduction(model))
    )


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 60))
def test_rows_of_like_length_are_batched_at_the_least_cost(lengths, pass_tokens):
    rows = [Encoded([i], [7] * (n - 1)) for i, n in enumerate(lengths)]
    groups = by_length(rows, pass_tokens)
    assert sorted(row.prompt for part in groups for row in part) == [[i] for i in range(len(rows))]

    def cost(parts):
        return sum(len(part) * max(part) + pass_tokens for part in parts)

    def ways(left):
        for i in range(1, len(left) + 1):
            for rest in ways(left[i:]) if left[i:] else [[]]:
                yield [left[:i], *rest]

    assert cost([[row.n_tokens for row in part] for part in groups]) == min(map(cost, ways(sorted(lengths))))


def test_a_long_row_is_computed_apart_and_changes_no_gradient():
    rows = [*some_rows(), Encoded([3, 4], [5, 6, 7] * 130)]
    assert [len(part) for part in by_length(rows)] == [1, len(rows) - 1]
    assert len(by_length(some_rows())) == 1
    model = llama()
    dt.inject(model, dt.LoRA.on(rank=2))
    shaken(model)
    found = []
    for micro in (None, len(rows)):
        model.zero_grad()
        loss, n_tokens = accumulate(reader(model), RESPONSES, rows, optim(micro_batch=micro), PhaseClock())
        found.append([torch.tensor([loss, n_tokens]), *(p.grad for _, p in dt.parameters(model))])
    agree(*found, 2 * reduction(model), sum(row.n_tokens for row in rows))


def test_gradient_checkpointing_changes_nothing():
    batch = RESPONSES.collate(some_rows(), CPU)
    found = []
    for checkpointed in (False, True):
        model = llama().train()
        torch.manual_seed(1)
        dt.inject(model, dt.LoRA.on(rank=2, dropout=0.5), dt.Prefix.on(length=3))
        if checkpointed:
            checkpoint_activations(model)
        torch.manual_seed(2)
        RESPONSES.loss_sum(model, batch).backward()
        found.append([p.grad for _, p in dt.parameters(model)])
    agree(*found, 2 * reduction(model), batch.labels.numel())


# ---------------------------------------------------------------- optimizer


def alone(p: nn.Parameter) -> list[Group]:
    return [Group(Role.delta, True, (p,))]


def test_learning_rate_rises_then_falls():
    linear = [schedule(s, optim(steps=10, warmup_steps=2)) for s in range(10)]
    assert linear == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    cosine = [schedule(s, optim(steps=5, warmup_steps=1, decay=Decay.cosine)) for s in range(5)]
    assert cosine == pytest.approx(
        [1.0, 1.0, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 + math.cos(3 * math.pi / 4)) / 2]
    )
    assert {schedule(s, optim(warmup_steps=0, decay=Decay.constant)) for s in range(6)} == {1.0}


def test_the_warm_up_is_in_steps_and_never_most_of_a_training():
    assert [rise(optim(steps=steps)) for steps in (1, 4, 60, 1000)] == [0, 1, 20, 20]
    assert rise(optim(steps=1000, warmup_steps=50)) == 50


def test_weight_decay_spares_norms_biases_and_methods_that_say_so():
    model = gpt2()
    decayed, plain = (each.parameters for each in groups(model))
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)] for p in plain} == {n for n in names.values() if n.endswith(".bias") or ".ln_" in n}
    assert len(decayed) + len(plain) == len(names)
    model = llama()
    dt.inject(model, dt.LoRA.on(rank=2), dt.Prefix.on(length=2))
    decayed, plain = (each.parameters for each in groups(model))
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)].rsplit(".", 1)[1] for p in decayed} == {"A", "B"}
    assert {"k", "v"} <= {names[id(p)].rsplit(".", 1)[1] for p in plain}


def test_masters_keep_updates_that_bf16_would_lose():
    p = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = Optimizer(alone(p), optim(lr=1e-4, steps=1000, warmup_steps=0, decay=Decay.constant, weight_decay=0.0))
    for step in range(100):
        (p * torch.ones(4)).sum().backward()
        assert p.grad is None  # it moved to the master
        optimizer.step(step)
        if step == 0:
            assert (p == 1).all()  # 1e-4 is below bf16's spacing at 1
    assert optimizer.masters[0].dtype is torch.float32
    agree(optimizer.masters[0], torch.full((4,), 0.99), 100)
    assert (p == torch.tensor(0.99).bfloat16()).all()


def test_masters_sum_the_gradients_of_parts_in_fp32():
    p = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    optimizer = Optimizer(alone(p), optim(clip=1e9))
    for part in (256.0, 1.0, 1.0):  # bf16 has no 257 and no 258
        (p * part).sum().backward()
    assert optimizer.step(0) == 258.0


def test_clipping_and_a_norm_that_is_not_finite():
    p = nn.Parameter(torch.zeros(4))
    optimizer = Optimizer(alone(p), optim(clip=0.5))
    (p * 10).sum().backward()
    seen = []
    optimizer.adam.register_step_pre_hook(lambda *_: seen.append(p.grad.norm().item()))  # type: ignore[union-attr]
    assert optimizer.step(0) == pytest.approx(20.0)
    assert seen == pytest.approx([0.5], rel=1e-4)
    before = p.detach().clone()
    (p * math.nan).sum().backward()
    assert math.isnan(optimizer.step(1))
    assert torch.equal(p, before)
