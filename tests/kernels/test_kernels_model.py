"""The kernels under a whole model: what PEFT learns, step by step, and the same bits every time."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import deltatune as dt
from deltatune import kernels  # type: ignore[attr-defined]  # kernels/fused
from tests.support.kernel_cases import DEVICE, SCALE, gradients, layer
from tests.support.tolerance import bound, reduction

peft = pytest.importorskip("peft")


def llama() -> LlamaForCausalLM:
    """The model needs transformers alone, as the kernels' tests run where the experiments' packages are not."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=112, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(DEVICE)  # type: ignore[arg-type]


def nudged(model: nn.Module) -> nn.Module:
    """The model with every weight off by what the rounding of one forward and backward may come to."""
    size, noise = bound(torch.float32, 2 * reduction(model)), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            by = torch.randn(p.shape, generator=noise).to(p.device)
            p *= 1 + size * by
    return model


def learn(model: nn.Module, steps: int) -> torch.Tensor:
    """The losses of so many steps on eight sentences."""
    ids = torch.randint(0, 96, (8, 24), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return torch.stack(losses)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21 causes it
def test_fifty_steps_learn_what_peft_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses part no farther than PEFT's own do from a start that rounding might have moved: how fast steps of
    AdamW draw two runs apart is no matter of the kernels. A GPU runs our kernels throughout, a CPU `fast`."""
    for name in ("lora_linear", "lora_linear_stacked"):
        monkeypatch.setattr(kernels, name, partial(getattr(kernels, name), path="triton"))
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear")
    theirs = peft.get_peft_model(llama(), config)
    ours = llama()
    dt.inject(ours, dt.LoRA.on(rank=4, alpha=8))
    factors = {n.replace("base_model.model.", ""): p for n, p in theirs.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, p in dt.parameters(ours):
            path, _, which = name.partition("._deltas.default.0.")
            p.copy_(factors[f"{path}.lora_{which}.default.weight"])
    assert len(factors) == len(list(dt.parameters(ours))) == 28
    moved = nudged(copy.deepcopy(theirs))
    want, moved_, found = (learn(model.train(), 50) for model in (theirs, moved, ours))
    assert want[-1] < 0.9 * want[0]
    assert (found - want).abs().max() <= (moved_ - want).abs().max() < 0.01 * want.max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_twenty_runs_agree_to_the_bit(dtype: torch.dtype) -> None:
    """Large enough on a GPU that partial sums are many and blocks end in any order."""
    at = layer(*((4096, 1536, 2048, 16) if DEVICE == "cuda" else (64, 48, 40, 4)), dtype)

    def run() -> list[torch.Tensor]:
        torch.manual_seed(5)
        y = kernels.lora_linear(at.x, at.W, at.b, at.A, at.B, SCALE, 0.3, path="triton")
        return [t for t in gradients(y, at) if t is not None]

    first = run()
    for _ in range(19 if DEVICE == "cuda" else 2):
        assert all(torch.equal(one, two) for one, two in zip(first, run(), strict=True))
