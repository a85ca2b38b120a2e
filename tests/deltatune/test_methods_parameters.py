"""The methods that change parameters in place: BitFit, Full, Head, and diff; and what bf16 bases need."""

from __future__ import annotations

import copy
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

import deltatune as dt
from deltatune.host import deltas
from deltatune.hosts import own_parameters
from tests.support.cases import shaken
from tests.support.hosts import GPT2, Bert, EncoderLayer, Llama, ids
from tests.support.linear_host import near


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Parts(nn.Module):
    """Every kind of bias that a model may hold or lack, and a bare Parameter."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict(self.parts(dtype)) for _ in range(2))
        self.temperature = nn.Parameter(torch.tensor([1.5], dtype=dtype))

    def parts(self, dtype: torch.dtype) -> dict[str, nn.Module]:
        return {
            "norm": nn.LayerNorm(6, dtype=dtype),
            "rms": nn.RMSNorm(6, dtype=dtype),
            "up": nn.Linear(6, 8, dtype=dtype),
            "down": nn.Linear(8, 6, bias=False, dtype=dtype),
        }

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            part: Any = layer
            x = x + part["down"](torch.tanh(part["up"](part["rms"](part["norm"](x)))))
        return x * self.temperature


def by_path(model: nn.Module) -> dict[str, Any]:
    return {path: d for path, _, _, d in deltas(model)}


def test_bitfit_trains_the_biases_there_are_and_adds_those_there_are_not() -> None:
    """b + δ in LayerNorm (its β) and a linear layer with a bias; h + δ in one without; nothing in RMSNorm."""
    model, plain = Parts(), Parts()
    plain.load_state_dict(model.state_dict())
    plan = dt.inject(model, dt.BitFit.on())
    assert {r.path: r.note for r in plan.rows} == {
        f"layers.{i}.{n}": note
        for i in (0, 1)
        for n, note in (("norm", "existing bias"), ("up", "existing bias"), ("down", "added bias"))
    }
    assert plan.parameters == 2 * (6 + 8 + 6)
    assert str(plan).count("existing bias") == 2 and str(plan).count("added bias") == 1
    assert not any(p.any() for _, p in dt.parameters(model))
    moved = by_path(shaken(model))
    with torch.no_grad():
        for path, d in moved.items():
            host: Any = plain.get_submodule(path)
            host.bias = nn.Parameter(d.bias + (0 if host.bias is None else host.bias))
    x = torch.randn(3, 6, dtype=torch.float64)
    near(model(x), plain(x))


def test_bitfit_covers_biases_outside_the_blocks() -> None:
    """BERT's embedding norm is no part of a block; its task head is a matter of its own."""
    model = Bert().model()
    dt.inject(model, dt.BitFit.on())
    there = {n.removesuffix(".bias") for n, _ in Bert().model().named_parameters() if n.endswith("bias")}
    assert set(by_path(model)) == there - {"classifier"}
    assert "bert.embeddings.LayerNorm" in by_path(model)


def test_bitfit_on_torchs_own_attention() -> None:
    """nn.MultiheadAttention keeps the biases of its projections itself, and its out_proj is never called."""
    model, plain = EncoderLayer().model(), EncoderLayer().model()
    dt.inject(model, dt.BitFit.on())
    d = by_path(shaken(model))["self_attn"]
    assert {n for n, _ in d.named_parameters()} == {"in_proj_bias", "out_proj_bias"}
    with torch.no_grad():
        for path, one in by_path(model).items():
            for n, own in own_parameters(plain.get_submodule(path)).items():
                if own is not None and n.replace(".", "_") in one._parameters:
                    own += one._parameters[n.replace(".", "_")]
    x = torch.randn(2, 5, 32)
    near(model(x), plain(x), 1000)


def test_bitfit_merged_says_that_a_config_without_biases_would_drop_them() -> None:
    model = Llama().model()
    dt.inject(model, dt.BitFit.on())
    with pytest.warns(UserWarning, match=r"14 merged biases .* save_pretrained and from_pretrained would drop"):
        dt.merge(model)


class SlowNorm(nn.LayerNorm):
    """Long enough for another thread to come in between."""

    def forward(self, input: Tensor) -> Tensor:
        time.sleep(0.005)
        return super().forward(input)


def test_threads_that_run_one_model_see_and_leave_its_parameters_right() -> None:
    """A host that is no linear map is called with its parameters replaced, which are every thread's."""
    model, x = nn.Sequential(SlowNorm(6)), torch.randn(2, 6)
    before = dict(model[0]._parameters)
    dt.inject(model, dt.BitFit.on("0"))
    shaken(model)
    with ThreadPoolExecutor(4) as threads, torch.no_grad():
        want = model(x)
        assert all(torch.equal(out, want) for out in threads.map(model, [x] * 12))
        for future in [threads.submit(model, x) for _ in range(8)]:
            with dt.merged(model):  # comes and goes while they run
                time.sleep(0.002)
            future.result()
        assert torch.equal(model(x), want)
    dt.eject(model)
    assert all(p is before[n] for n, p in model[0]._parameters.items())


def test_full_changes_every_parameter_by_its_delta() -> None:
    """p + a Δ, norms and bare Parameters included."""
    model, plain = Parts(), Parts()
    plain.load_state_dict(model.state_dict())
    plan = dt.inject(model, dt.Full.on())
    assert plan.parameters == plan.base_parameters == sum(p.numel() for p in plain.parameters())
    moved = by_path(shaken(model))
    assert "" in moved and "layers.0.rms" in moved  # the bare Parameter is the model's own
    dt.use(model, default=0.5)
    with torch.no_grad():
        for path, d in moved.items():
            for n, p in d.named_parameters():
                plain.get_submodule(path).get_parameter(n).add_(0.5 * p)
    x = torch.randn(3, 6, dtype=torch.float64)
    near(model(x), plain(x))


def test_full_covers_what_it_is_told() -> None:
    model = Parts()
    plan = dt.inject(model, dt.Full.on("*.norm|*.up", only=("bias",)))
    assert plan.parameters == 2 * (6 + 8)
    assert {n.rpartition(".")[2] for n, _ in dt.parameters(model)} == {"bias"}


def tied_llama() -> nn.Module:
    config = Llama().build().config
    config.tie_word_embeddings = True  # type: ignore[union-attr]
    torch.manual_seed(3)
    return transformers.LlamaForCausalLM(config)  # type: ignore[arg-type]


def test_full_stores_a_tied_weight_once_and_applies_it_at_every_use(tmp_path: Path) -> None:
    model, plain = tied_llama(), tied_llama()
    plan = dt.inject(model, dt.Full.on())
    assert plan.parameters == sum(p.numel() for p in plain.parameters())
    shaken(model)
    d = by_path(model)
    assert d["lm_head"].weight is d["model.embed_tokens"].weight
    with torch.no_grad():
        for path, one in d.items():
            if path != "lm_head":
                for n, p in one.named_parameters():
                    plain.get_submodule(path).get_parameter(n).add_(p)
    batch = ids(2, 6)
    want = plain(batch).logits
    near(model(batch).logits, want, 1000)
    dt.save(model, tmp_path / "full.safetensors")
    fresh = tied_llama()
    dt.load(fresh, tmp_path / "full.safetensors")
    assert torch.equal(fresh(batch).logits, model(batch).logits)
    dt.merge(model)
    assert model.lm_head.weight is model.model.embed_tokens.weight  # type: ignore[union-attr]
    near(model(batch).logits, want, 1000)


def test_head_is_a_copy_that_replaces_the_hosts_parameters() -> None:
    """p + a (own − p): at 1 its own values, whatever the host's."""
    model = Bert().model()
    plan = dt.inject(model, dt.Head.on())
    assert [r.path for r in plan.rows] == ["classifier"]
    classifier: Any = model.classifier
    d = by_path(model)["classifier"]
    assert torch.equal(d.weight, classifier.weight) and d.weight is not classifier.weight
    shaken(model)
    h = torch.randn(2, 32)
    near(classifier(h), F.linear(h, d.weight, d.bias), 32)
    dt.use(model, default=0.25)
    mixed = (
        0.75 * classifier.weight + 0.25 * d.weight,
        0.75 * classifier.bias + 0.25 * d.bias,
    )
    near(classifier(h), F.linear(h, *mixed), 64)


def test_a_saved_head_fits_a_base_whose_head_started_elsewhere(tmp_path: Path) -> None:
    """The head is outside the fingerprint, and stored whole; the backbone is still checked."""
    model, path = Bert().model(), tmp_path / "task.safetensors"
    dt.inject(model, dt.BitFit.on(), dt.Head.on())
    dt.save(shaken(model), path)
    other = Bert().model()
    head: Any = other.classifier
    nn.init.normal_(head.weight)
    dt.load(other, path)
    assert torch.equal(other(ids(2, 5)).logits, model(ids(2, 5)).logits)
    wrong = Bert().model()
    nn.init.normal_(wrong.bert.encoder.layer[0].output.dense.weight)  # type: ignore[union-attr, index]
    with pytest.raises(dt.BaseMismatch):
        dt.load(wrong, path)


def tuned_copy(base: nn.Module, *paths: str, by: float = 0.05) -> nn.Module:
    """A copy with noise on the named parameters."""
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        for path in paths:
            p = tuned.get_parameter(path)
            p += by * torch.randn_like(p)
    return tuned


def test_diff_is_the_tuned_model_and_holds_what_changed() -> None:
    base = Llama().model()
    changed = ("model.layers.1.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight")
    tuned = tuned_copy(base, *changed)
    want = tuned(ids(2, 6)).logits
    plan = dt.diff(tuned, base)
    assert {f"{r.path}.{n}" for r in plan.rows for n in r.shapes} == set(changed)
    assert plan.parameters == sum(tuned.get_parameter(p).numel() for p in changed)
    near(base(ids(2, 6)).logits, want, 1000)
    with dt.merged(base):
        near(base(ids(2, 6)).logits, want, 1000)


def test_diff_of_tied_weights_keeps_the_tie() -> None:
    base = tied_llama()
    tuned = tuned_copy(base, "model.embed_tokens.weight")
    plan = dt.diff(tuned, base)
    assert plan.parameters == tuned.lm_head.weight.numel()  # type: ignore[union-attr]
    near(base(ids(2, 6)).logits, tuned(ids(2, 6)).logits, 1000)
    dt.merge(base)
    assert base.lm_head.weight is base.model.embed_tokens.weight  # type: ignore[union-attr]


def test_diff_in_bf16_gives_every_tuned_weight_to_the_last_bit() -> None:
    """Δ is kept and added in fp32, exact as long as q is above p · 2⁻¹⁶. Rounded to bf16 before it is added,
    a Δ near −p would leave an error of q's own size: p = 1, q = 2⁻¹⁰ would give 0."""
    base = Llama().model().to(torch.bfloat16)
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        for p in tuned.parameters():
            p *= (2.0 ** torch.randint(-10, 10, p.shape) * (1 + torch.rand(p.shape))).to(p.dtype)
    want = tuned(ids(2, 6)).logits
    dt.diff(tuned, base)
    assert torch.equal(base(ids(2, 6)).logits, want)
    dt.merge(base)
    assert all(torch.equal(p, q) for p, q in zip(base.parameters(), tuned.parameters()))


def test_diff_refuses_models_that_do_not_match() -> None:
    base = GPT2().model()
    with pytest.raises(dt.NoMatch, match="the two models are equal"):
        dt.diff(copy.deepcopy(base), base)
    with pytest.raises(dt.BaseMismatch, match="different modules"):
        dt.diff(Llama().model(), base)
    wide = copy.deepcopy(base)
    wide.transformer.wpe = nn.Embedding(65, 32)  # type: ignore[union-attr]
    with pytest.raises(dt.BaseMismatch, match=r"transformer.wpe.weight: the two models differ in shape"):
        dt.diff(wide, base)
    with_delta = copy.deepcopy(base)
    dt.inject(with_delta, dt.LoRA.on())
    with pytest.raises(dt.DeltaError, match="merge or eject"):
        dt.diff(with_delta, base)
    assert not deltas(base)


WIDE = 4096


def small_change(rule: dt.Rule, parameter: str, by: float) -> tuple[Tensor, Tensor]:
    """(base output, output) in bf16 of a wide host, with `by` added to one parameter of its delta."""
    host = nn.Linear(8, WIDE, bias=False, dtype=torch.bfloat16)
    x = torch.randn(4, 8).bfloat16()
    base = host(x)
    model = nn.Sequential(host)
    dt.inject(model, rule)
    with torch.no_grad():
        by_path(model)["0"].get_parameter(parameter).add_(by)
    return base, model(x)


@pytest.mark.parametrize(
    ("rule", "parameter"), [(dt.IA3.on("0"), "l"), (dt.DoRA.on("0", rank=2), "m")], ids=["IA3", "DoRA"]
)
def test_a_scale_near_one_is_not_rounded_to_one_in_bf16(rule: dt.Rule, parameter: str) -> None:
    """bf16 has steps of 2⁻⁷ above 1: a scale of 1 + 0.003 rounded by itself is 1, and nothing changes.
    Applied as h + h ⊙ 0.003, each product is rounded once, and the larger half of the mantissas moves."""
    by = 0.003
    base, out = small_change(rule, parameter, by)
    if parameter == "l":
        assert torch.equal(base * torch.tensor(1 + by).bfloat16(), base)  # the trap
        want = (base.double() * (1 + float(torch.tensor(by).bfloat16()))).bfloat16()
        assert torch.equal(out, want)
    assert (out != base).float().mean() > 0.3


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_parameter_delta_is_added_before_it_is_rounded(strength: float) -> None:
    """Only the sum W + Δ is rounded to bf16, in the call as in the merge."""
    host = nn.Linear(64, 64, dtype=torch.bfloat16)
    model = nn.Sequential(host)
    dt.inject(model, dt.Full.on())
    d = by_path(model)["0"]
    with torch.no_grad():
        d.weight.copy_(torch.randn(64, 64) * host.weight)
        d.bias.copy_(torch.randn(64) * host.bias)
    dt.use(model, default=strength)
    want = [(p.float() + strength * q).bfloat16() for p, q in ((host.weight, d.weight), (host.bias, d.bias))]
    x = torch.randn(3, 64).bfloat16()
    assert torch.equal(model(x), F.linear(x, *want))
    with dt.merged(model):
        assert torch.equal(host.weight, want[0]) and torch.equal(host.bias, want[1])


def test_small_steps_add_up_on_a_bf16_base() -> None:
    """fp32 deltas: a hundred steps of 1e-4 on a value of 1 are 0.01; in bf16 each would be rounded away."""
    model = nn.Sequential(nn.Linear(4, 4, dtype=torch.bfloat16))
    dt.inject(model, dt.IA3.on("0"))
    l = by_path(model)["0"].l
    optimizer = torch.optim.SGD([l], lr=1e-4)
    lost = torch.ones(4, dtype=torch.bfloat16)
    for _ in range(100):
        l.grad = -torch.ones_like(l)
        optimizer.step()
        lost += 1e-4
    near(l, torch.full((4,), 1.01), 100)
    assert torch.equal(lost, torch.ones(4, dtype=torch.bfloat16))
