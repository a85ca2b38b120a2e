"""Training, checkpoints and evaluation on models of a few thousand parameters, without any file from outside."""

from __future__ import annotations

import errno
import math
import random
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

import deltatune as dt
from experiments.batches import IGNORED, Batch, Encoder, Row, collate, indices, padded
from experiments.checkpoint import (
    CheckpointError,
    Checkpoints,
    State,
    random_states,
    seed_everything,
    set_random_states,
)
from experiments.config import Decay, EvalConfig, OptimConfig
from experiments.evaluate import answers, mean_loss
from experiments.loss import labelled_logits, loss_sum
from experiments.optimizer import Optimizer, groups, learning_rate
from experiments.record import Memory, Phases, write_json, write_text
from experiments.run import checkpoint_activations
from experiments.tasks import Example
from experiments.train import NotFinite, accumulate, train

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


def some_rows(n: int = 7, seed: int = 0) -> list[Row]:
    """Rows of uneven prompts and responses."""
    draw = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [draw.randrange(2, VOCABULARY) for _ in range(draw.randint(low, high))]

    return [Row(ids(3, 9), [*ids(1, 8), END]) for _ in range(n)]


def optim(**changes: object) -> OptimConfig:
    return OptimConfig(**{"lr": 1e-2, "steps": 6, "batch_size": 4, "checkpoint_every": 2, **changes})  # type: ignore[arg-type]


class Characters:
    """A tokenizer of characters, as far as an Encoder needs one."""

    eos_token_id, pad_token_id = END, PAD

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) for c in text]}

    def batch_decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> list[str]:
        return [" ".join(str(i) for i in row if i not in (PAD, END)) for row in ids.tolist()]


# ---------------------------------------------------------------- batches


def test_only_the_response_and_its_end_are_labelled():
    batch = collate([Row([5, 6, 7], [8, END]), Row([9], [10, 11, END])], PAD, CPU)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8, END], [9, 10, 11, END, PAD]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert batch.labels.tolist() == [[IGNORED] * 3 + [8, END], [IGNORED, 10, 11, END, IGNORED]]
    assert (batch.n_tokens, batch.n_labelled) == (9, 5)
    assert padded([[5], [6, 7]], PAD, CPU, left=True).tolist() == [[PAD, 5], [6, 7]]


def test_encoding_of_plain_text():
    encoder = Encoder(Characters(), max_length=10, front=(100, 101))
    row = encoder.generated(Example((), "yes", text="go"))
    assert row == Row([100, 101, *map(ord, "go\n")], [*map(ord, "yes"), END])
    assert encoder.generated(Example((), "yes", text="go ")).prompt == [100, 101, *map(ord, "go ")]
    cut = encoder.generated(Example((), "yes", text="a long way to go"))
    assert cut.prompt == [100, 101, *map(ord, "go\n"[-4:])][:2] + [ord(c) for c in " go\n"]
    assert len(cut.prompt) + len(cut.response) == 10
    with pytest.raises(ValueError, match=r"file:3.*10 tokens.*optim.max_length=10"):
        encoder.generated(Example((), "long long", group="file:3", text="go"))


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
def test_labelled_logits_are_the_models_own(make):
    """The loss over selected rows, and its gradients, against those from all logits."""
    model, batch = make().train(), collate(some_rows(), PAD, CPU)
    logits = model(**batch.inputs).logits
    whole = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )
    rows, targets = labelled_logits(model, batch)
    assert rows.shape == (batch.n_labelled, VOCABULARY) == (*targets.shape, VOCABULARY)
    ours = loss_sum(model, batch)
    assert ours.item() == pytest.approx(whole.item(), rel=1e-5)
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(whole, parameters)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_head_sees_labelled_rows_only():
    model, batch, seen = llama(), collate(some_rows(), PAD, CPU), []
    model.lm_head.register_forward_hook(lambda _, args, __: seen.append(args[0].shape))
    loss_sum(model, batch)
    assert seen == [(1, batch.n_labelled, 32)]
    assert batch.n_labelled < batch.labels.numel() / 2


def test_padding_does_not_change_the_loss():
    model, rows = llama(), some_rows(2)
    longer = Row(rows[0].prompt, [*rows[0].response[:-1], *[5] * 20, END])
    alone = loss_sum(model, collate(rows[:1], PAD, CPU)) + loss_sum(model, collate([longer], PAD, CPU))
    together = loss_sum(model, collate([rows[0], longer], PAD, CPU))
    assert together.item() == pytest.approx(alone.item(), rel=1e-5)


def test_accumulation_weighs_tokens_not_parts():
    model, rows = llama(), some_rows(8)

    def gradients(micro: int | None) -> tuple[float, list[torch.Tensor]]:
        model.zero_grad()
        loss, n_tokens = accumulate(model, rows, optim(micro_batch=micro), PAD, CPU)
        assert n_tokens == sum(len(r.prompt) + len(r.response) for r in rows)
        return loss, [p.grad.clone() for p in model.parameters() if p.grad is not None]

    whole_loss, whole = gradients(None)
    for micro in (1, 3):
        loss, parts = gradients(micro)
        assert loss == pytest.approx(whole_loss, rel=1e-5)
        for a, b in zip(whole, parts, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    means = [mean_loss(model, rows[i : i + 1], PAD, 1, CPU) for i in range(8)]
    assert abs(sum(means) / 8 - whole_loss) > 1e-3  # the mean of means, which it must not be
    assert mean_loss(model, rows, PAD, 3, CPU) == pytest.approx(whole_loss, rel=1e-5)


def test_gradient_checkpointing_changes_nothing():
    batch = collate(some_rows(), PAD, CPU)
    found = []
    for checkpointed in (False, True):
        model = llama().train()
        torch.manual_seed(1)
        dt.inject(model, dt.LoRA.on(rank=2, dropout=0.5), dt.Prefix.on(length=3))
        if checkpointed:
            checkpoint_activations(model)
        torch.manual_seed(2)
        loss_sum(model, batch).backward()
        found.append([p.grad for _, p in dt.parameters(model)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


# ---------------------------------------------------------------- optimizer


def test_learning_rate_rises_then_falls():
    linear = [learning_rate(s, optim(lr=1.0, steps=10, warmup=0.2)) for s in range(10)]
    assert linear == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    cosine = [learning_rate(s, optim(lr=1.0, steps=5, warmup=0.2, decay=Decay.cosine)) for s in range(5)]
    assert cosine == pytest.approx(
        [1.0, 1.0, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 + math.cos(3 * math.pi / 4)) / 2]
    )
    assert {learning_rate(s, optim(warmup=0.0, decay=Decay.constant)) for s in range(6)} == {1e-2}


def test_weight_decay_spares_norms_biases_and_methods_that_say_so():
    model = gpt2()
    decayed, plain = groups(model)
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)] for p in plain} == {n for n in names.values() if n.endswith(".bias") or ".ln_" in n}
    assert len(decayed) + len(plain) == len(names)
    model = llama()
    dt.inject(model, dt.LoRA.on(rank=2), dt.Prefix.on(length=2))
    decayed, plain = groups(model)
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)].rsplit(".", 1)[1] for p in decayed} == {"A", "B"}
    assert {"k", "v"} <= {names[id(p)].rsplit(".", 1)[1] for p in plain}


def test_masters_keep_updates_that_bf16_would_lose():
    p = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = Optimizer([p], [], optim(lr=1e-4, steps=1000, warmup=0.0, decay=Decay.constant, weight_decay=0.0))
    for step in range(100):
        (p * torch.ones(4)).sum().backward()
        assert p.grad is None  # it moved to the master
        optimizer.step(step)
        if step == 0:
            assert (p == 1).all()  # 1e-4 is below bf16's spacing at 1
    assert optimizer.masters[0].dtype is torch.float32
    torch.testing.assert_close(optimizer.masters[0], torch.full((4,), 0.99), rtol=1e-4, atol=0)
    assert (p == torch.tensor(0.99).bfloat16()).all()


def test_masters_sum_the_gradients_of_parts_in_fp32():
    p = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    optimizer = Optimizer([p], [], optim(clip=1e9))
    for part in (256.0, 1.0, 1.0):  # bf16 has no 257 and no 258
        (p * part).sum().backward()
    assert optimizer.step(0) == 258.0


def test_clipping_and_a_norm_that_is_not_finite():
    p = nn.Parameter(torch.zeros(4))
    optimizer = Optimizer([p], [], optim(clip=0.5))
    (p * 10).sum().backward()
    seen = []
    optimizer.adam.register_step_pre_hook(lambda *_: seen.append(p.grad.norm().item()))  # type: ignore[union-attr]
    assert optimizer.step(0) == pytest.approx(20.0)
    assert seen == pytest.approx([0.5], rel=1e-4)
    before = p.detach().clone()
    (p * math.nan).sum().backward()
    assert math.isnan(optimizer.step(1))
    assert torch.equal(p, before)


# ---------------------------------------------------------------- training and checkpoints


def started(folder: Path, settings: OptimConfig, identity: str = "one") -> tuple[nn.Module, Optimizer, Checkpoints]:
    seed_everything(5)
    model = llama()
    model.to(torch.bfloat16).requires_grad_(False)
    dt.inject(model, dt.LoRA.on(rank=2, dropout=0.3))  # dropout, so that the random state matters
    return model, Optimizer(*groups(model), settings), Checkpoints(folder / "checkpoints", identity)


def trained(folder: Path, settings: OptimConfig, identity: str = "one", rows: list[Row] | None = None):
    model, optimizer, checkpoints = started(folder, settings, identity)
    memory = Memory()
    memory.begin()
    state = train(
        model,
        optimizer,
        rows or some_rows(),
        settings,
        seed=0,
        pad=PAD,
        device=CPU,
        checkpoints=checkpoints,
        metrics=folder / "metrics.jsonl",
        memory=memory,
        log_every=100,
    )
    return state, [p.detach().clone() for _, p in dt.parameters(model)]


def values(state: State) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "wall_s"} for row in state.metrics]


def folder_in(path: Path, name: str) -> Path:
    (path / name).mkdir()
    return path / name


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", range(1, 6))
def test_resumed_after_any_step_is_bit_identical(tmp_path, monkeypatch, stop):
    whole, delta = trained(folder_in(tmp_path, "whole"), optim())
    broken = folder_in(tmp_path, "broken")

    def halt(model, batch):
        if len((broken / "metrics.jsonl").read_text().splitlines()) == stop:
            raise Stopped
        return loss_sum(model, batch)

    with monkeypatch.context() as patch:
        patch.setattr("experiments.train.loss_sum", halt)
        with pytest.raises(Stopped):
            trained(broken, optim())
    resumed, again = trained(broken, optim())
    assert values(resumed) == values(whole)
    assert len(resumed.metrics) == 6
    assert all(torch.equal(a, b) for a, b in zip(delta, again, strict=True))
    lines = (broken / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 6


def test_the_loss_falls(tmp_path):
    rows = [Row([3 + i], [5 + i, 7, 9, END]) for i in range(4)]
    state, _ = trained(tmp_path, optim(lr=0.1, steps=40), rows=rows)
    losses = [row["loss"] for row in state.metrics]
    assert losses[-1] < losses[0] - 0.2  # the frozen head, a random one, allows about 0.6


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    whole, delta = trained(tmp_path, optim())
    files = sorted((tmp_path / "checkpoints").iterdir())
    assert [f.name[:13] for f in files] == ["step-00000004", "step-00000006"]  # two kept of three
    data = bytearray(files[1].read_bytes())
    data[len(data) // 2] ^= 1
    files[1].write_bytes(data)
    with pytest.warns(UserWarning, match="step-00000006.*damaged"):
        resumed, again = trained(tmp_path, optim())
    assert values(resumed) == values(whole)
    assert all(torch.equal(a, b) for a, b in zip(delta, again, strict=True))


def test_a_truncated_only_checkpoint_means_a_fresh_start(tmp_path):
    whole, _ = trained(tmp_path, optim())
    older, newest = sorted((tmp_path / "checkpoints").iterdir())
    older.unlink()
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="damaged"):
        resumed, _ = trained(tmp_path, optim())
    assert values(resumed) == values(whole)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    trained(tmp_path, optim())
    with pytest.raises(CheckpointError, match=r"another configuration.*one, this run is two"):
        trained(tmp_path, optim(), identity="two")


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    _, optimizer, checkpoints = started(tmp_path, optim())
    checkpoints.save(optimizer, State(step=2))

    def full(content, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(optimizer, State(step=4))
    assert [f.name[:13] for f in checkpoints.directory.iterdir()] == ["step-00000002"]
    assert checkpoints.restore(optimizer) == State(step=2)
    checkpoints.clear()
    assert not checkpoints.directory.exists()


def test_random_states_go_round():
    def draws() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002

    seed_everything(1)
    draws()
    states = random_states()
    first = draws()
    assert draws() != first
    set_random_states(states)
    assert draws() == first


def test_a_loss_that_is_not_finite_stops_at_its_step(tmp_path, monkeypatch):
    calls = []

    def third_is_nan(model: nn.Module, batch: Batch) -> torch.Tensor:
        calls.append(1)
        return loss_sum(model, batch) * (math.nan if len(calls) == 3 else 1.0)

    monkeypatch.setattr("experiments.train.loss_sum", third_is_nan)
    with pytest.raises(NotFinite, match="step 3: the loss is nan"):
        trained(tmp_path, optim())
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


# ---------------------------------------------------------------- evaluation


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
    encoder = Encoder(Characters(), 64, labels=("a", "b", "c"))
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
    with pytest.raises(Stopped), phase("first"):
        raise Stopped
    with phase("second"):
        pass
    assert list(phase.seconds) == ["first", "second"]
    assert all(0 <= s < 1 for s in phase.seconds.values())
