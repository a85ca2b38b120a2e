"""Rows: chosen and new tokens of an embedding alone, tied to the head or not, against PEFT's trainable tokens."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from torch import Tensor, nn

import deltatune as dt
from tests.support.cases import shaken
from tests.support.hosts import SIZES, T5, ids

TOKENS = [4, 11, 30]


def llama(tied: bool, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=tied)
    return transformers.LlamaForCausalLM(config).eval()


def logits(model: Any, batch: Tensor) -> Tensor:
    return model(batch).logits


def batch() -> Tensor:
    return torch.cat([ids(2, 5), torch.tensor([TOKENS, TOKENS])], 1)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("tied", [False, True])
def test_the_same_rows_as_in_peft(tied: bool) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed; it is in the extra 'dev'")
    ours = llama(tied)
    theirs = peft.get_peft_model(copy.deepcopy(ours), peft.TrainableTokensConfig(token_indices=TOKENS))
    base = logits(ours, batch()).detach()
    dt.inject(ours, dt.Rows.on(tokens=TOKENS))
    assert torch.equal(logits(ours, batch()), base)
    shaken(ours)
    ((name, rows),) = dt.parameters(ours)  # one for both uses, where they are tied
    assert name.startswith("model.embed_tokens") and rows.shape == (3, SIZES["hidden_size"])
    (trained,) = [p for p in theirs.parameters() if p.requires_grad]
    with torch.no_grad():
        trained.copy_(rows)
    want, got = logits(theirs, batch()), logits(ours, batch())
    assert (want - base).abs().max() > 0.01
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    for out in (want, got):
        out.square().sum().backward()
    torch.testing.assert_close(rows.grad, trained.grad, rtol=1e-4, atol=1e-4)


def test_other_rows_stay_and_strength_is_between() -> None:
    model = llama(False)
    before = model.get_input_embeddings().weight.detach().clone()
    dt.inject(model, dt.Rows.on(tokens=TOKENS))
    shaken(model)
    rows = dt.parameters(model)[0][1].detach()
    for strength in (1.0, 0.25):
        with dt.active(model, default=strength), dt.merged(model):
            now = model.get_input_embeddings().weight.detach()
            torch.testing.assert_close(now[TOKENS], torch.lerp(before[TOKENS], rows, strength))
            others = [i for i in range(len(before)) if i not in TOKENS]
            assert torch.equal(now[others], before[others])


@pytest.mark.parametrize("tied", [False, True])
def test_merged_for_good_a_tie_is_kept(tied: bool) -> None:
    model = llama(tied)
    dt.inject(model, dt.Rows.on(tokens=TOKENS), dt.LoRA.on(rank=2))
    shaken(model)
    called = logits(model, batch()).detach()
    dt.merge(model)
    torch.testing.assert_close(logits(model, batch()).detach(), called, rtol=1e-4, atol=1e-4)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied  # type: ignore[union-attr]


@pytest.mark.parametrize("tied", [False, True])
def test_new_tokens_are_rows_of_the_resized_table(tied: bool, tmp_path: Path) -> None:
    """The new rows of another resizing start elsewhere; the file holds them whole, and nothing else of the table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, fresh, other = llama(tied), llama(tied), llama(tied, seed=1)
        old = len(model.get_input_embeddings().weight)
        for i, each in enumerate((model, fresh, other)):
            torch.manual_seed(i)
            each.resize_token_embeddings(old + 2)
    new = [old, old + 1]
    assert not torch.equal(*(m.get_input_embeddings().weight[new] for m in (model, fresh)))
    both = [dt.Rows.on(tokens=new)] + [dt.Rows.on("lm_head", tokens=new)] * (not tied)
    dt.inject(model, *both)
    shaken(model)
    x = torch.tensor([[3, old, 5, old + 1]])
    dt.save(model, tmp_path / "default")
    with safe_open(tmp_path / "default", "pt") as f:
        assert {tuple(f.get_tensor(key).shape) for key in f.keys()} == {(2, SIZES["hidden_size"])}  # noqa: SIM118
    dt.load(fresh, tmp_path / "default")
    assert torch.equal(logits(fresh, x), logits(model, x))
    with pytest.raises(dt.BaseMismatch, match="other weights"):
        dt.load(other, tmp_path / "default")


def test_an_embedding_that_scales_scales_its_rows() -> None:
    class Scaled(nn.Embedding):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 3

    model, x = nn.Sequential(Scaled(6, 4)), torch.tensor([[1, 2]])
    dt.inject(model, dt.Rows.on(tokens=[2]))
    shaken(model)
    torch.testing.assert_close(model(x)[0, 1], 3 * dt.parameters(model)[0][1][0])


def test_the_table_that_is_never_called_is_tied_as_well() -> None:
    """T5 keeps its table in `shared`, which no forward calls, and uses it at three other places."""
    model = T5().model().eval()
    dt.inject(model, dt.Rows.on(tokens=TOKENS))
    assert len(dt.parameters(model)) == 1
    dt.verify(model, **T5().batch())


def test_rows_that_cannot_be_are_refused() -> None:
    cases: list[tuple[Any, str]] = [
        ({}, "say which rows are trained"),
        ({"tokens": [1, 1]}, "named twice"),
        ({"tokens": [6]}, r"6 rows, so none for token 6; resize it first"),
        ({"tokens": [-1]}, "none for token -1"),
    ]
    for hparams, message in cases:
        with pytest.raises(dt.DeltaError, match=f"^0: Rows: .*{message}"):
            dt.inject(nn.Sequential(nn.Embedding(6, 4)), dt.Rows.on("0", **hparams))
    with pytest.raises(dt.DeltaError, match=r"^0: Rows: ReLU has no plain table"):
        dt.inject(nn.Sequential(nn.ReLU()), dt.Rows.on("0", tokens=[1]))
