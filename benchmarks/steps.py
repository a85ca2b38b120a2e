"""One training step, forward, backward and AdamW, by every provider on a copy of one model.

Legend: B rows, T tokens. Every provider gets the same ids, mask and labels, and the model's own loss; but "our loop"
is what `experiments.training.loop` does: the same loss through the labelled rows alone, and its attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar

import deltatune as dt
from benchmarks.command import DTYPES
from benchmarks.providers import NO_PEFT
from benchmarks.table import OUR_LOOP
from deltatune.attention import fast_attention
from experiments.config.schema import ModelConfig
from experiments.data.batch import IGNORED, Batch
from experiments.objectives.token_loss import token_loss_sum


@dataclass(frozen=True)
class Scenario:
    """What is trained, and on what: the share of labelled tokens, dropout, the model's dtype."""

    method: str = "lora"
    dtype: str = "bf16"
    dropout: float = 0.0
    labelled: float = 1.0
    rank: int | None = 16
    more: tuple[str, ...] = ("full", "full" + OUR_LOOP)  # besides frozen, peft and ours, each in both loops


SCENARIOS = {
    "bf16": Scenario(),
    "bf16-dropout": Scenario(dropout=0.05),
    "fp32": Scenario(dtype="fp32"),
    "half": Scenario(labelled=0.5),
    "dora": Scenario("dora", more=()),
    "prefix": Scenario("prefix", rank=None, more=("ours from example",)),
    "ia3": Scenario("ia3", rank=None, more=()),
}
LENGTH = 16  # tokens of a prefix
MODELS = ("smollm2", "smollm2-random", "tiny")


def providers(scenario: Scenario) -> list[str]:
    """The providers in the order in which they are timed; PEFT's two ways are one in fp32."""
    each = ["frozen", "peft", *(["peft matched"] if scenario.dtype != "fp32" else []), "ours"]
    return [*(provider + loop for provider in each for loop in ("", OUR_LOOP)), *scenario.more]


def base(name: str, scenario: Scenario, device: torch.device) -> nn.Module:
    """The model of `experiments.models`, or "smollm2-random": SmolLM2-135M's sizes, random weights, no download."""
    if name == "smollm2-random":
        return random_smollm2(device, DTYPES[scenario.dtype])
    from experiments.models.load import load_model

    disable_progress_bar()
    return load_model(ModelConfig(name=name), dtype=DTYPES[scenario.dtype], device=device).model


def random_smollm2(device: torch.device, dtype: torch.dtype) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config: Any = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
    )
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Module.to(LlamaForCausalLM(config), device=device, dtype=dtype).eval()


def batch(model: nn.Module, B: int, T: int, labelled: float, seed: int) -> Batch:
    """Random ids (B, T); the first part of each row has no label where not all are labelled, as a prompt has none."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, model.config.vocab_size, (B, T), generator=generator)  # type: ignore[union-attr]
    labels = ids.clone()
    labels[:, : round(T * (1 - labelled))] = IGNORED
    device = next(model.parameters()).device
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return Batch({n: t.to(device) for n, t in inputs.items()}, labels.to(device))


def own_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The mean over labelled tokens as the model computes it."""
    return model(**batch.inputs, labels=batch.labels, use_cache=False).loss


def our_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The same mean as the training loop computes it: its attention, the labelled rows alone, in chunks."""
    with fast_attention():
        return token_loss_sum(model, batch) / (batch.labels[:, 1:] != IGNORED).sum()


def build(provider: str, scenario: Scenario, model: nn.Module, batch: Batch) -> Callable[[], Tensor] | str:
    """The step of a provider on `model`, which it changes; or why there is none. A step returns its loss."""
    model.train()
    loss_of = our_loss if provider.endswith(OUR_LOOP) else own_loss
    provider = provider.removesuffix(OUR_LOOP)
    if provider == "frozen":
        return frozen_step(model, batch, loss_of)
    if provider.startswith("peft"):
        if find_spec("peft") is None:
            return NO_PEFT
        return trained_step(peft_model(model, scenario, widen=provider == "peft"), batch, loss_of)
    if provider == "full":
        return trained_step(model.requires_grad_(), batch, loss_of)
    dt.inject(model, our_rule(scenario), example=batch.inputs if provider == "ours from example" else None)
    return trained_step(model.train(), batch, loss_of)


def frozen_step(model: nn.Module, batch: Batch, loss_of: Callable[[nn.Module, Batch], Tensor]) -> Callable[[], Tensor]:
    """Forward, and backward to the embeddings' output: the bound of what trains inside a frozen model."""
    model.requires_grad_(False)
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    rest = {n: t for n, t in batch.inputs.items() if n != "input_ids"}

    def step() -> Tensor:
        embeds = embedding(batch.inputs["input_ids"]).requires_grad_()
        loss = loss_of(model, Batch({"inputs_embeds": embeds, **rest}, batch.labels))
        loss.backward()
        return loss.detach()

    return step


def trained_step(model: Any, batch: Batch, loss_of: Callable[[nn.Module, Batch], Tensor]) -> Callable[[], Tensor]:
    trained: Iterable[nn.Parameter] = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)  # transformers' Trainer takes this one

    def step() -> Tensor:
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def our_rule(scenario: Scenario) -> dt.Rule:
    if scenario.method in ("lora", "dora"):
        method = dt.LoRA if scenario.method == "lora" else dt.DoRA
        return method.on(rank=scenario.rank, alpha=32, dropout=scenario.dropout)
    return dt.Prefix.on(length=LENGTH) if scenario.method == "prefix" else dt.IA3.on()


def peft_model(model: Any, scenario: Scenario, widen: bool) -> nn.Module:
    """The model with PEFT's adapter, as its users get it; widen: its default, adapters in fp32 over a bf16 base."""
    import peft

    if scenario.method == "prefix":
        config: Any = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)
    elif scenario.method == "ia3":
        config = peft.IA3Config(task_type="CAUSAL_LM")
    else:
        config = peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=scenario.rank or 0,
            lora_alpha=32,
            lora_dropout=scenario.dropout,
            target_modules="all-linear",
            use_dora=scenario.method == "dora",
        )
    return peft.get_peft_model(model, config, autocast_adapter_dtype=widen).train()
