"""LoRA, DoRA, IA3, prompt and prefix against PEFT on a tiny Llama with grouped-query attention.

With the same weights put in, both libraries give the same logits, and the same losses over ten AdamW steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deltatune as dt
from deltatune.host import deltas
from tests.support.cases import shaken
from tests.support.hosts import Batch, Llama, ids, pad_ids
from tests.support.tolerance import bound

peft = pytest.importorskip("peft", reason="peft is not installed; it is in the extra 'dev'")
pytestmark = pytest.mark.filterwarnings(  # peft 0.21 reads what transformers 5.23 deprecates
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

STEPS = 10
LENGTH = 5  # virtual tokens
LORA = {"r": 4, "lora_alpha": 12, "target_modules": "all-linear"}
PEFT_HIDDEN = "base_model.model."


@dataclass(frozen=True)
class Pair:
    """One method in both libraries. values: PEFT's parameters, by name, from our deltas' parameters."""

    rule: dt.Rule
    config: Callable[[], Any]
    values: Callable[[nn.Module], dict[str, Tensor]]
    tokens_in_front: int = 0
    lr: float = 1e-2

    def models(self) -> tuple[nn.Module, nn.Module]:
        """(ours, PEFT's) over equal bases, with the same random values as the delta."""
        ours = Llama().model()
        torch.manual_seed(0)
        dt.inject(ours, self.rule)
        shaken(ours)
        theirs = peft.get_peft_model(Llama().model(), self.config())
        trained = {n: p for n, p in theirs.named_parameters() if p.requires_grad}
        values = self.values(ours)
        assert values.keys() == trained.keys()
        with torch.no_grad():
            for n, p in trained.items():
                assert p.shape == values[n].shape
                p.copy_(values[n])
        return ours, theirs


def renamed(parts: dict[str, str]) -> Callable[[nn.Module], dict[str, Tensor]]:
    """Every delta's parameters under PEFT's names, {our name: their part of the path}."""

    def values(model: nn.Module) -> dict[str, Tensor]:
        return {
            f"{PEFT_HIDDEN}{path}.{parts[n]}": p for path, _, _, d in deltas(model) for n, p in d.named_parameters()
        }

    return values


def ia3_values(model: nn.Module) -> dict[str, Tensor]:
    shape = {"output": (-1, 1), "input": (1, -1)}
    return {
        f"{PEFT_HIDDEN}{path}.ia3_l.default": d.l.view(shape[d.form])  # type: ignore[operator, index]
        for path, _, _, d in deltas(model)
    }


def prompt_values(model: nn.Module) -> dict[str, Tensor]:
    ((_, _, _, d),) = deltas(model)
    return {"prompt_encoder.default.embedding.weight": d.P}  # type: ignore[dict-item]


def prefix_values(model: nn.Module) -> dict[str, Tensor]:
    """(length, layers · 2 · heads · head size), keys before values layer by layer."""
    each = [t.transpose(0, 1).flatten(1) for *_, d in deltas(model) for t in (d.k, d.v)]  # type: ignore[operator]
    return {"prompt_encoder.default.embedding.weight": torch.cat(each, 1)}


def virtual(cls: str) -> Callable[[], Any]:
    return lambda: getattr(peft, cls)(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)


def same(got: Tensor, want: Tensor, passes: int = 1) -> None:
    """Assert equality up to the rounding of so many passes through the model, against the largest value."""
    allowed = bound(torch.float32, passes * Llama().reduction)
    assert (got - want).abs().max() <= allowed * want.abs().max()


FACTORS = {"A": "lora_A.default.weight", "B": "lora_B.default.weight"}
MAGNITUDE = {"m": "lora_magnitude_vector.default.weight"}
PAIRS = {
    "lora": Pair(dt.LoRA.on(rank=4, alpha=12.0), lambda: peft.LoraConfig(**LORA), renamed(FACTORS)),
    "rslora": Pair(
        dt.LoRA.on(rank=4, alpha=12.0, rslora=True),
        lambda: peft.LoraConfig(**LORA, use_rslora=True),
        renamed(FACTORS),
        lr=3e-3,
    ),
    "dora": Pair(
        dt.DoRA.on(rank=4, alpha=12.0),
        lambda: peft.LoraConfig(**LORA, use_dora=True),
        renamed(FACTORS | MAGNITUDE),
    ),
    "ia3": Pair(
        dt.IA3.on(),
        lambda: peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
        ia3_values,
    ),
    "prompt": Pair(dt.Prompt.on(length=LENGTH), virtual("PromptTuningConfig"), prompt_values, tokens_in_front=LENGTH),
    "prefix": Pair(dt.Prefix.on(length=LENGTH, gated=False), virtual("PrefixTuningConfig"), prefix_values),
}
every_pair = pytest.mark.parametrize("method", PAIRS)


def feed(method: str, ours: nn.Module, batch: Batch) -> tuple[Batch, Batch]:
    """The batch as each library wants it.

    PEFT puts a prompt's rows in front of the embeddings; we put the prompt's ids in front of the ids. Behind
    a prefix PEFT's tokens start at position `length`, ours at 0 unless the caller says otherwise: so we do.
    """
    rows, tokens = batch["input_ids"].shape
    if method == "prompt":
        front = torch.tensor(dt.prompt_ids(ours)).expand(rows, -1)
        ones = torch.ones_like(front)
        mine = {
            "input_ids": torch.cat([front, batch["input_ids"]], 1),
            "attention_mask": torch.cat([ones, batch["attention_mask"]], 1),
        }
        return mine, batch
    if method == "prefix":
        return {**batch, "position_ids": LENGTH + torch.arange(tokens).expand(rows, -1)}, batch
    return batch, batch


def batch_of(lengths: list[int], side: str = "right") -> Batch:
    tokens, mask = pad_ids(ids(len(lengths), max(lengths)), lengths, side)
    return {"input_ids": tokens, "attention_mask": mask}


def logits(model: nn.Module, batch: Batch, front: int = 0) -> Tensor:
    return model(**batch).logits[:, front:]


@every_pair
@pytest.mark.parametrize("lengths", [[7, 7], [7, 4]], ids=["whole", "padded"])
def test_same_weights_same_logits(method: str, lengths: list[int]) -> None:
    pair = PAIRS[method]
    ours, theirs = pair.models()
    batch = batch_of(lengths)
    mine, yours = feed(method, ours, batch)
    front = torch.ones(2, pair.tokens_in_front, dtype=torch.bool)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        got, want, base = logits(ours, mine), logits(theirs, yours), logits(Llama().model(), batch)
    assert got.shape == want.shape
    shown = torch.cat([front, real], 1)
    same(got[shown], want[shown])
    assert (got[:, pair.tokens_in_front :] - base)[real].abs().max() > 0.01  # the delta does something


@every_pair
def test_ten_steps_give_the_same_losses(method: str) -> None:
    pair = PAIRS[method]
    ours, theirs = pair.models()
    batches = [batch_of([7, 5]), batch_of([6, 6])]
    optimizers = [
        torch.optim.AdamW([p for _, p in dt.parameters(ours)], lr=pair.lr),
        torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=pair.lr),
    ]
    losses: tuple[list[float], list[float]] = ([], [])
    for step in range(STEPS):
        batch = batches[step % 2]
        for kept, model, optimizer, fed in zip(losses, (ours, theirs), optimizers, feed(method, ours, batch)):
            optimizer.zero_grad()
            loss = response_loss(logits(model, fed, pair.tokens_in_front), batch)
            loss.backward()
            optimizer.step()
            kept.append(loss.item())
    same(*torch.tensor(losses), passes=2 * STEPS)
    assert losses[0][-1] < losses[0][1] - 1e-3  # and they learn: the last against the first on the same batch


def response_loss(out: Tensor, batch: Batch) -> Tensor:
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return F.cross_entropy(out[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def test_dropout_falls_on_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both drop the delta's input alone, layer by layer in the same order: in train mode, with one seed, on the plain
    path, which draws as PEFT does."""
    monkeypatch.setenv("DELTATUNE_KERNELS", "off")
    ours, theirs = Llama().model(), Llama().model()
    dt.inject(ours, dt.LoRA.on(rank=4, alpha=12.0, dropout=0.3))
    shaken(ours)
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(**LORA, lora_dropout=0.3))
    theirs.load_state_dict(renamed(FACTORS)(ours), strict=False)
    batch, out = batch_of([7, 7]), []
    for model in (ours, theirs):
        torch.manual_seed(4)
        out.append(logits(model.train(), batch).detach())
    same(*out)
    assert (out[0] - logits(ours.eval(), batch).detach()).abs().max() > 0.01


def test_a_prefix_of_peft_at_our_positions() -> None:
    """The other way round: PEFT told to start its tokens at 0 is what we compute when no position is said."""
    ours, theirs = PAIRS["prefix"].models()
    batch = batch_of([7, 7])
    from_zero = (torch.arange(7) - LENGTH).expand(2, -1)  # PEFT adds its length again
    shifted = {**batch, "position_ids": from_zero}
    with torch.no_grad():
        got, want, usual = logits(ours, batch), logits(theirs, shifted), logits(theirs, batch)
    same(got, want)
    assert (usual - want).abs().max() > 0.01  # the convention matters


def test_a_prefix_with_padding_on_the_left() -> None:
    """Positions skip the padding; PEFT adds its length to them."""
    ours, theirs = PAIRS["prefix"].models()
    batch = batch_of([7, 4], side="left")
    real = batch["attention_mask"].bool()
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        got = logits(ours, {**batch, "position_ids": positions + LENGTH})
        want = logits(theirs, {**batch, "position_ids": positions})
    same(got[real], want[real])


@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")  # generate's own, dropped
@pytest.mark.parametrize("method", [m for m in PAIRS if m != "prefix"])
def test_generates_the_same(method: str) -> None:
    """Not the prefix: generate sets positions itself, with us from 0, with PEFT from the prefix's length."""
    ours, theirs = PAIRS[method].models()
    mine, yours = feed(method, ours, batch_of([4, 4]))
    new = 6
    settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    kept = {"output_logits": True, "return_dict_in_generate": True}
    out = ours.eval().generate(**mine, **settings, **kept)  # type: ignore[operator]
    got, each = out.sequences, torch.stack(out.logits)
    first, second = each.topk(2).values.unbind(-1)
    # no tie that rounding could decide
    assert (first - second).min() > 2 * bound(torch.float32, Llama().reduction) * each.abs().max()
    want = theirs.eval().generate(**yours, **settings)  # type: ignore[operator]
    assert torch.equal(got[:, -new:], want[:, -new:])
