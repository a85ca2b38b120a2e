"""Fused experts: matrices in stacks that a module reads itself, by whatever implementation of transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

import deltatune as dt
from deltatune.host import deltas
from deltatune.matrices import layout
from tests.support.cases import shaken
from tests.support.hosts import SIZES, ids

T = transformers
HEADS: dict[str, Any] = {"num_key_value_heads": 2}
FEW: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 24, **HEADS}
LATENT: dict[str, Any] = {"n_group": 1, "topk_group": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4}
MAKE: dict[str, Callable[[], Any]] = {
    "mixtral": lambda: T.MixtralForCausalLM(T.MixtralConfig(**SIZES, **HEADS, num_local_experts=4)),
    "qwen3": lambda: T.Qwen3MoeForCausalLM(T.Qwen3MoeConfig(**SIZES, **FEW, num_experts=4)),
    "qwen2": lambda: T.Qwen2MoeForCausalLM(T.Qwen2MoeConfig(**SIZES, **FEW, num_experts=4)),
    "olmoe": lambda: T.OlmoeForCausalLM(T.OlmoeConfig(**SIZES, **HEADS, num_experts=4, num_experts_per_tok=2)),
    "deepseek": lambda: T.DeepseekV3ForCausalLM(
        T.DeepseekV3Config(
            **{**SIZES, **FEW, **LATENT, "num_key_value_heads": 4},
            n_routed_experts=4,
            first_k_dense_replace=1,
            qk_nope_head_dim=4,
            v_head_dim=8,
        )
    ),
    "gpt-oss": lambda: T.GptOssForCausalLM(
        T.GptOssConfig(**SIZES, **HEADS, num_local_experts=4, num_experts_per_tok=2, head_dim=8)
    ),
    "llama4": lambda: T.Llama4ForCausalLM(
        T.Llama4TextConfig(
            **SIZES, **HEADS, num_local_experts=4, interleave_moe_layer_step=1, intermediate_size_mlp=64, head_dim=8
        )
    ),
    "jetmoe": lambda: T.JetMoeForCausalLM(
        T.JetMoeConfig(
            **{k: v for k, v in SIZES.items() if "heads" not in k},
            num_key_value_heads=2,
            kv_channels=8,
            num_local_experts=4,
        )
    ),
}
TRANSPOSED = {"gpt-oss", "llama4"}


def built(name: str) -> Any:
    torch.manual_seed(0)
    model = MAKE[name]().eval()
    with torch.no_grad():
        for n, p in model.named_parameters():
            if p.dim() == 3 or n.endswith("bias"):
                p.normal_(std=0.2)
    return model


def stacks(model: Any) -> dict[str, tuple[str, str]]:
    """Path of the module and name of every stack of experts."""
    return {n: tuple(n.rsplit(".", 1)) for n, p in model.named_parameters() if p.dim() == 3}  # type: ignore[misc]


def logits(model: Any) -> Tensor:
    return model(ids(2, 7)).logits


@pytest.mark.parametrize("name", MAKE)
def test_the_usual_sites_hold_every_expert_and_no_router(name: str, tmp_path: Path) -> None:
    model = built(name)
    base, wanted = logits(model).detach(), set(stacks(model).values())
    dt.inject(model, dt.LoRA.on(rank=2))
    here = {(path, d.parameter) for path, _, _, d in deltas(model) if getattr(d, "parameter", None)}
    assert here >= wanted > set()
    assert torch.equal(logits(model), base)
    assert not [path for path, *_ in deltas(model) if path.endswith((".gate", ".router"))]
    shaken(model)
    called = logits(model).detach()
    with torch.no_grad(), dt.merged(model):
        torch.testing.assert_close(logits(model), called, rtol=1e-4, atol=1e-4)
    dt.save(model, tmp_path / "d.safetensors")
    fresh = built(name)
    dt.load(fresh, tmp_path / "d.safetensors")
    assert torch.equal(logits(fresh), called)
    dt.eject(model)
    assert torch.equal(logits(model), base)


RULES = {
    "LoRA": dt.LoRA.on("*.experts", rank=2),
    "LoRA-shared": dt.LoRA.on("*.experts", rank=2, shared=True),
    "DoRA": dt.DoRA.on("*.experts", rank=2),
    "IA3": dt.IA3.on("*.experts"),
    "IA3-input": dt.IA3.on("*.experts", form="input"),
    "IA3-shared": dt.IA3.on("*.experts.down_proj", shared=True),
    "Full": dt.Full.on("*.experts.down_proj"),
    "BitFit": dt.BitFit.on("*.experts"),
}


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("name", ["mixtral", "gpt-oss", "llama4"])
def test_methods_on_experts_by_every_implementation(name: str, method: str) -> None:
    model = built(name)
    if method == "BitFit" and name != "gpt-oss":
        with pytest.raises(dt.DeltaError):
            dt.inject(model, dt.BitFit.on("*.experts.gate_up_proj"))
        return
    base = logits(model).detach()
    dt.inject(model, RULES[method])
    torch.testing.assert_close(logits(model), base, rtol=1e-4, atol=1e-4)
    dt.verify(model, ids(2, 30))
    shaken(model)
    called = logits(model).detach()
    assert (called - base).abs().max() > 1e-3
    for implementation in ("eager", "grouped_mm", "batched_mm"):
        if name != "llama4":  # it has one of its own
            model.set_experts_implementation(implementation)
        for strength in (1.0, 0.5):
            with dt.active(model, default=strength), torch.no_grad():
                want = logits(model)
                with dt.merged(model):
                    torch.testing.assert_close(logits(model), want, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logits(model).detach(), called, rtol=1e-4, atol=1e-4)
    with dt.active(model):
        torch.testing.assert_close(logits(model), base, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["mixtral", "llama4", "gpt-oss"])
def test_the_sides_of_a_stack_are_told(name: str) -> None:
    """By the module's word, or by how its stacks fit each other."""
    model = built(name)
    for path, parameter in stacks(model).values():
        assert layout(model.get_submodule(path), parameter).transposed == (name in TRANSPOSED)


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
def test_the_unfused_sum_by_hand(implementation: str) -> None:
    """Σ over the chosen experts of w · down(act(gate x) · up x), each with its own W + s B A."""
    model = built("mixtral")
    model.set_experts_implementation(implementation)
    dt.inject(model, dt.LoRA.on("*.experts", rank=2, alpha=6.0))
    shaken(model)
    experts = model.model.layers[0].mlp.experts
    deltas_by: dict[Any, Any] = {
        d.parameter: d for path, _, _, d in deltas(model) if path == "model.layers.0.mlp.experts"
    }
    x, chosen = torch.randn(5, SIZES["hidden_size"]), torch.tensor([[0, 3], [1, 2], [3, 1], [0, 1], [2, 0]])
    weights = torch.rand(5, 2)

    def project(name: str, e: int, x: Tensor) -> Tensor:
        d: Any = deltas_by[name]
        return F.linear(x, getattr(experts, name)[e]) + 3.0 * F.linear(F.linear(x, d.A[e]), d.B[e])

    rows = []
    for t in range(5):
        row = torch.zeros(SIZES["hidden_size"])
        for e, w in zip(chosen[t].tolist(), weights[t]):
            gate, up = project("gate_up_proj", e, x[t]).chunk(2, -1)
            row = row + w * project("down_proj", e, experts.act_fn(gate) * up)
        rows.append(row)
    torch.testing.assert_close(experts(x, chosen, weights), torch.stack(rows), rtol=1e-5, atol=1e-5)


def test_dropout_has_the_right_mean_and_trains() -> None:
    """Each mask zeroes columns of A, its mean is A: so of one linear map the mean over masks is the map without."""
    model = built("jetmoe")
    host = model.model.layers[0].mlp.input_linear
    dt.inject(model, dt.LoRA.on("*.input_linear", rank=2, dropout=0.5))
    shaken(model)
    x, sizes = torch.randn(6, SIZES["hidden_size"]), [2, 1, 0, 3]
    with torch.no_grad(), dt.active(model):
        base = host(x, sizes)
    with torch.no_grad():
        want = host.eval()(x, sizes)
        each = torch.stack([host.train()(x, sizes) for _ in range(2000)])
    assert (each[0] - each[1]).abs().max() > 0.01 and (each[0] - want).abs().max() > 0.01
    assert (each.mean(0) - want).norm() < 0.1 * (want - base).norm()  # 1 / √2000 and a margin
    tuned = built("mixtral")
    dt.inject(tuned, dt.LoRA.on("*.experts", rank=4, dropout=0.1))
    tuned.train()
    optimizer = torch.optim.AdamW([p for _, p in dt.parameters(tuned)], lr=1e-2)
    batch, losses = ids(4, 8), []
    for _ in range(12):
        loss = tuned(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_weights_that_another_module_reads_are_reached_through_it() -> None:
    """DBRX's experts read the weights of a module inside them."""
    config = T.DbrxConfig(
        d_model=32,
        n_heads=4,
        n_layers=2,
        max_seq_len=32,
        vocab_size=50,
        attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},  # type: ignore[arg-type]
        ffn_config={"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},  # type: ignore[arg-type]
    )
    torch.manual_seed(0)
    model = T.DbrxForCausalLM(config).eval()
    base = logits(model).detach()
    dt.inject(model, dt.LoRA.on("*.experts", parameter="mlp.w1", rank=2))
    assert torch.equal(logits(model), base)
    dt.verify(model, ids(2, 30))
    shaken(model)
    called = logits(model).detach()
    assert (called - base).abs().max() > 1e-4
    with torch.no_grad(), dt.merged(model):
        torch.testing.assert_close(logits(model), called, rtol=1e-4, atol=1e-4)


def test_a_parameter_that_is_not_there_says_which_are() -> None:
    model = built("mixtral")
    with pytest.raises(dt.DeltaError, match="has no parameter 'gate'; its own are gate_up_proj, down_proj"):
        dt.inject(model, dt.LoRA.on("*.experts", parameter="gate"))
    with pytest.raises(dt.NoMatch, match=r"near: .*experts\.gate_up_proj"):
        dt.inject(model, dt.LoRA.on("*.experts.gate_up_pro"))
    with pytest.raises(dt.DeltaError, match="Adapter stands on modules, not on 'down_proj' alone"):
        dt.inject(model, dt.Adapter.on("*.experts.down_proj"))
