"""Usual sites are learned from a run, and told right by what they do to the run: oracles, no lists of names."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import deltatune as dt
from deltatune import structure as learning
from deltatune.examples import examples
from deltatune.hosts import extend, modules
from deltatune.structure import Structure, structure
from tests.support.architectures import MODELS, SIZES, build

every = pytest.mark.parametrize("name", MODELS)


def learned(model: nn.Module) -> Structure:
    extend(model)
    known = structure(model, values=True)
    assert known is not None, learning.kept[model].why
    return known


def example(model: nn.Module) -> dict[str, Any]:
    """The first inputs that the model accepts."""
    for inputs in examples(model):
        try:
            with torch.no_grad():
                model(**inputs)
        except Exception:
            continue
        return inputs
    raise AssertionError("no inputs are accepted")


def outputs(model: nn.Module, inputs: dict[str, Any]) -> list[Tensor]:
    with torch.no_grad():
        return [t for t in tree_leaves(dict(model(**inputs))) if isinstance(t, Tensor)]


@every
def test_a_model_is_learned_and_left_as_it_was(name: str) -> None:
    model = build(name).train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    attributes = {p: dict(m.__dict__) for p, m in modules(model)}
    state = torch.get_rng_state()
    known = learned(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    for path, module in modules(model):
        assert module.training and module.__dict__.keys() == attributes[path].keys(), path
        assert all(module.__dict__[n] is v for n, v in attributes[path].items() if n != "training"), path
    calls = {path for path, module in modules(model) if path in ran(model)}
    assert known.called >= calls  # all that a run calls, and experts that this one brought no token


def ran(model: nn.Module) -> set[str]:
    """The modules whose forward the example calls."""
    seen: set[str] = set()
    model.eval()
    with ExitStack() as stack:
        for path, module in modules(model):

            def note(module: nn.Module, args: Any, path: str = path) -> None:
                seen.add(path)

            stack.callback(module.register_forward_pre_hook(note).remove)
        example(model)
    return seen


# Models whose stream is only added to: with every sublayer's end at zero it comes out of the blocks as it went in.
ADDITIVE = {
    "llama": ("model.layers.0", "model.norm"),
    "qwen3": ("model.layers.0", "model.norm"),
    "gemma2": ("model.layers.0", "model.norm"),
    "gpt2": ("transformer.h.0", "transformer.ln_f"),
    "gpt_neox": ("gpt_neox.layers.0", "gpt_neox.final_layer_norm"),
    "falcon_old": ("transformer.h.0", "transformer.ln_f"),
    "falcon_new": ("transformer.h.0", "transformer.ln_f"),
    "bloom": ("transformer.h.0", "transformer.ln_f"),
    "codegen": ("transformer.h.0", "transformer.ln_f"),
    "gptj": ("transformer.h.0", "transformer.ln_f"),
    "gpt_bigcode": ("transformer.h.0", "transformer.ln_f"),
    "persimmon": ("model.layers.0", "model.final_layernorm"),
    "phi3": ("model.layers.0", "model.norm"),
    "vit": ("vit.layers.0", "vit.layernorm"),
    "t5": ("encoder.block.0", "encoder.final_layer_norm"),
    "mamba": ("backbone.layers.0", "backbone.norm_f"),
    "mamba2": ("backbone.layers.0", "backbone.norm_f"),
    "jamba": ("model.layers.0", "model.final_layernorm"),
    "mixtral": ("model.layers.0", "model.norm"),
    "qwen3_moe": ("model.layers.0", "model.norm"),
    "qwen2_moe": ("model.layers.0", "model.norm"),
    "deepseek_v3": ("model.layers.0", "model.norm"),
    "minicpm3": ("model.layers.0", "model.norm"),
    "qwen3_next": ("model.layers.0", "model.norm"),
    "gpt_oss": ("model.layers.0", "model.norm"),
    "phimoe": ("model.layers.0", "model.norm"),
    "recurrent_gemma": ("model.layers.0", "model.final_norm"),
    "longcat": ("model.layers.0", "model.norm"),
    "swin": ("swin.encoder.layers.0.blocks.0", "swin.encoder.layers.0.downsample"),
    "whisper": ("model.encoder.layers.0", "model.encoder.layer_norm"),
}


@pytest.mark.parametrize("name", ADDITIVE)
def test_what_serial_ends_return_is_all_that_is_added_to_the_stream(name: str) -> None:
    model, (first, last) = build(name), ADDITIVE[name]
    inputs, ends = example(model), learned(model).ends

    def passed(silenced: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        seen: dict[str, Tensor] = {}
        with ExitStack() as stack:
            for path, module in modules(model):
                if path in silenced:
                    stack.callback(module.register_forward_hook(silence).remove)
                if path in (first, last):

                    def note(module: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
                        seen.setdefault(path, (args[0] if args else kwargs["hidden_states"]).detach().clone())

                    stack.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
            outputs(model, inputs)
        return seen[first], seen[last]

    went_in, came_out = passed(ends)
    assert torch.equal(went_in, came_out)
    inside = [e for e in ends if e.startswith(first.rpartition(".")[0])]
    assert len(inside) > 1
    for kept in (inside[0], inside[-1]):  # and none is there for nothing
        went_in, came_out = passed(tuple(e for e in ends if e != kept))
        assert not torch.equal(went_in, came_out)


def silence(module: nn.Module, args: Any, out: Any) -> Any:
    return (torch.zeros_like(out[0]), *out[1:]) if isinstance(out, tuple) else torch.zeros_like(out)


FUSED = {
    "gpt2": "*.c_attn",
    "gpt_neox": "*.query_key_value",
    "falcon_old": "*.query_key_value",
    "falcon_new": "*.query_key_value",
    "falcon_rw": "*.query_key_value",
    "gpt_bigcode": "*.c_attn",
    "phi3": "*.qkv_proj",
}


@pytest.mark.parametrize("name", FUSED)
def test_spans_of_fused_projections_double_keys_and_values_and_no_queries(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(name)
    inputs, seen = example(model), []
    own = F.scaled_dot_product_attention

    def watched(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append((q, k, v))
        return own(q, k, v, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    outputs(model, inputs)
    plain = seen[0]  # the first block, whose input stays the same
    plan = dt.inject(model, dt.IA3.on())
    assert {r.hparams["form"] for r in plan.rows} == {"output", "input"}
    with torch.no_grad():
        for _, p in dt.parameters(model):
            p.fill_(2.0)
    seen.clear()
    outputs(model, inputs)
    for was, becomes, factor in zip(plain, seen[0], (1, 2, 2)):
        torch.testing.assert_close(becomes, factor * was)


BY_HAND = ("bloom", "codegen", "persimmon", "gptj", "deberta", "minicpm3", "deepseek_v3", "squeezebert", "t5", "bart")


@pytest.mark.parametrize("name", BY_HAND)
def test_without_keys_and_values_nothing_comes_out_of_attention(name: str) -> None:
    """With l = 0 over keys and values every attention gives zeros; with queries at zero it would give a mean."""
    model = build(name)
    inputs, known = example(model), learned(model)
    assert known.keys_values
    attended: list[Tensor] = []
    paths = {a.path for a in known.attentions}
    readers = [m for p, m in modules(model) if p.rpartition(".")[0] in paths and p in known.ends]
    dt.inject(model, dt.IA3.on())
    for path, _, _, delta in dt.host.deltas(model):  # type: ignore[attr-defined]
        if delta.form == "output":
            nn.init.zeros_(delta.l)
            assert path in dict(known.keys_values)

    def note(module: nn.Module, args: Any) -> None:
        attended.append(args[0])

    handles = [m.register_forward_pre_hook(note) for m in readers]
    outputs(model, inputs)
    for handle in handles:
        handle.remove()
    assert len(attended) == len(readers)
    assert all(not t.any() for t in attended)


@every
@pytest.mark.parametrize(
    "rule",
    [dt.LoRA.on(rank=2), dt.Adapter.on(width=4), dt.Adapter.on(width=4, form="parallel"), dt.IA3.on()],
    ids=["LoRA", "serial", "parallel", "IA3"],
)
def test_usual_sites_change_nothing_run_and_stay_the_same(name: str, rule: dt.Rule) -> None:
    """Each is reached and gets a gradient, and is found again with a delta in."""
    model = build(name)
    inputs = example(model)
    before = outputs(model, inputs)
    try:
        sites = [r.path for r in dt.plan(model, rule).rows]
    except dt.NoMatch:
        return
    dt.inject(model, rule)
    assert [r.path for r in dt.plan(model, rule).rows] == sites
    for was, now in zip(before, outputs(model, inputs)):
        torch.testing.assert_close(now, was)
    dt.verify(model, **inputs)


def test_gradients_flow_through_complex_rotations() -> None:
    """Queries and keys that are turned as complex numbers get LoRA as any."""
    sizes = {"intermediate_size_mlp": 48, "num_local_experts": 4, "num_key_value_heads": 2, "head_dim": 8}
    model = transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**SIZES, **sizes)).eval()  # type: ignore[arg-type]
    assert not learned(model).silent
    assert sum(r.path.endswith(("q_proj", "k_proj")) for r in dt.plan(model, dt.LoRA.on(rank=1)).rows) == 4


def test_routers_are_left_alone_unless_named() -> None:
    config = transformers.SwitchTransformersConfig(
        vocab_size=128,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        num_experts=4,
        decoder_start_token_id=0,  # type: ignore[call-arg]
    )
    model = transformers.SwitchTransformersForConditionalGeneration(config).eval()
    routers = learned(model).routers
    assert routers and all(isinstance(model.get_submodule(p), nn.Linear) for p in routers)
    plan = dt.plan(model, dt.LoRA.on(rank=1))
    assert not routers & {r.path for r in plan.rows}
    assert any("chooses (a router)" in note for note in plan.notes)
    named = dt.plan(model, dt.LoRA.on("*.router.classifier", rank=1))
    assert {r.path for r in named.rows} == routers


class Positioned(nn.Module):
    """Adds one table of positions to every layer's input: nothing of a sublayer ends there."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(5, 8))
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x + self.positions[None])
        return x


def test_positions_that_are_added_again_end_no_sublayer() -> None:
    known = structure(Positioned(), {"x": torch.randn(1, 5, 8)})
    assert known is not None and known.ends == ()
