"""Convolutions, nn.MultiheadAttention and fused experts against PEFT: with the same factors, the same outputs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import deltatune as dt
from deltatune.host import deltas
from tests.support.cases import shaken
from tests.support.hosts import SIZES, ids

peft = pytest.importorskip("peft", reason="peft is not installed; it is in the extra 'dev'")
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
CONVOLUTIONS: dict[str, tuple[Any, dict[str, Any], tuple[int, ...]]] = {
    "conv1d": (nn.Conv1d, {"kernel_size": 3, "stride": 2, "padding": 1}, (2, 4, 9)),
    "conv2d": (nn.Conv2d, {"kernel_size": (3, 2), "stride": 2, "padding": 1}, (2, 4, 9, 8)),
    "conv2d-1x1": (nn.Conv2d, {"kernel_size": 1, "bias": False}, (2, 4, 5, 6)),
    "conv3d": (nn.Conv3d, {"kernel_size": 2}, (2, 4, 5, 4, 3)),
}


def put(theirs: nn.Module, path: str, **values: Tensor) -> None:
    """The values as PEFT's parameters under the path, in their shape."""
    with torch.no_grad():
        for name, value in values.items():
            p = theirs.get_parameter(f"base_model.model.{path}.{name}.default.weight")
            p.copy_(value.reshape(p.shape))


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution(kind: str, dora: bool) -> None:
    cls, how, shape = CONVOLUTIONS[kind]
    torch.manual_seed(0)
    base = nn.Sequential(cls(4, 6, **how), nn.Flatten(), nn.Tanh())
    ours, theirs, x = copy.deepcopy(base), copy.deepcopy(base), torch.randn(shape)
    method = dt.DoRA if dora else dt.LoRA
    dt.inject(ours, method.on("0", rank=3, alpha=5.0))
    shaken(ours)
    ((_, _, _, d),) = deltas(ours)
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["0"], use_dora=dora)
    theirs = peft.get_peft_model(theirs, config)
    put(theirs, "0", lora_A=d.A, lora_B=d.B, **({"lora_magnitude_vector": d.m} if dora else {}))  # type: ignore[arg-type]
    want = theirs(x)
    assert (want - base(x)).abs().max() > 0.01
    torch.testing.assert_close(ours(x), want, **CLOSE)
    with dt.merged(ours):
        torch.testing.assert_close(ours(x), want, **CLOSE)
    torch.testing.assert_close(theirs.merge_and_unload()(x), want, **CLOSE)


class Attention(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=batch_first)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize("batch_first", [False, True])
def test_multihead_attention(batch_first: bool) -> None:
    """The rows of in_proj and of out_proj, in training, in eval, and on the fast path (eval without gradients)."""
    torch.manual_seed(0)
    base, x = Attention(batch_first), torch.randn(3, 5, 8)
    ours = copy.deepcopy(base)
    dt.inject(ours, dt.LoRA.on("attn", rank=3, alpha=5.0))
    shaken(ours)
    theirs = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(r=3, lora_alpha=5, target_modules=["attn"]))
    values: dict[Any, Any] = {d.parameter: d for *_, d in deltas(ours)}
    assert list(values) == ["in_proj_weight", "out_proj.weight"]
    put(theirs, "attn", lora_A=values["in_proj_weight"].A, lora_B=values["in_proj_weight"].B)  # type: ignore[arg-type]
    out = values["out_proj.weight"]
    # PEFT 0.21 adds the change of out_proj twice in each forward; given half of it, it adds the whole
    put(theirs, "attn.base_layer.out_proj", lora_A=out.A, lora_B=out.B / 2)  # type: ignore[arg-type, operator]
    for training in (True, False):
        got, want = ours.train(training)(x), theirs.train(training)(x)
        assert (want - base(x)).abs().max() > 0.01
        torch.testing.assert_close(got, want, **CLOSE)
        with torch.no_grad():
            torch.testing.assert_close(ours(x), want, **CLOSE)
    with torch.no_grad(), dt.merged(ours):
        torch.testing.assert_close(ours(x), want, **CLOSE)


def mixtral() -> nn.Module:
    config = transformers.MixtralConfig(
        **SIZES, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, pad_token_id=0
    )
    return transformers.MixtralForCausalLM(config)


def qwen3_moe() -> nn.Module:
    config = transformers.Qwen3MoeConfig(
        **SIZES, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24
    )
    return transformers.Qwen3MoeForCausalLM(config)


def gpt_oss() -> nn.Module:
    config = transformers.GptOssConfig(
        **SIZES, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, head_dim=8, pad_token_id=0
    )
    return transformers.GptOssForCausalLM(config)


def peft_factors(d: Any) -> dict[str, Tensor]:
    """Ours (E, R, K) and (E, N, R) as PEFT's (E R, K), expert by expert, and (N, R E), rank by rank."""
    return {"lora_A": d.A.flatten(0, 1), "lora_B": d.B.permute(1, 2, 0).flatten(1)}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
@pytest.mark.parametrize("make", [mixtral, qwen3_moe, gpt_oss])
def test_fused_experts(make: Any, implementation: str) -> None:
    torch.manual_seed(0)
    ours = make().eval()
    base, theirs = copy.deepcopy(ours), copy.deepcopy(ours)
    for model in (ours, base, theirs):
        model.set_experts_implementation(implementation)
    batch = ids(2, 7)
    rule = dt.LoRA.on("*.experts.gate_up_proj|*.experts.down_proj", rank=3, alpha=5.0)
    dt.inject(ours, rule)
    shaken(ours)
    targets = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=[], target_parameters=targets)
    theirs = peft.get_peft_model(theirs, config)
    for path, _, _, d in deltas(ours):
        found = [n for n, m in theirs.named_modules() if getattr(m, "parameter_name", None) == d.parameter]  # type: ignore[union-attr]
        (there,) = [n for n in found if n.startswith(f"base_model.model.{path}")]
        put(theirs, there.removeprefix("base_model.model."), **peft_factors(d))
    with torch.no_grad():
        want, got = theirs.eval()(batch).logits, ours(batch).logits
        assert (want - base(batch).logits).abs().max() > 0.01
        torch.testing.assert_close(got, want, **CLOSE)
        with dt.merged(ours):
            torch.testing.assert_close(ours(batch).logits, want, **CLOSE)
