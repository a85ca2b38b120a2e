"""Silent bypass is the enemy: where a delta would have no effect, or another one than it says, something is raised."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deltatune as dt
from deltatune.host import deltas, hosts
from deltatune.hosts import stacks
from deltatune.maps import frozen
from tests.laws import image
from tests.support.cases import assert_changed, assert_close, base_output, run, shaken
from tests.support.hosts import HEADS, VOCABULARY, WIDTH, EagerLlama, EncoderLayer, Llama, Nano

pytestmark = pytest.mark.law
NANO, LLAMA, EAGER, LAYER = Nano(), Llama(), EagerLlama(), EncoderLayer()
ON_LINEAR: dict[str, Callable[[str], dt.Rule]] = {
    "LoRA": dt.LoRA.on,
    "DoRA": dt.DoRA.on,
    "Adapter": dt.Adapter.on,
    "BitFit": dt.BitFit.on,
    "IA3": dt.IA3.on,
    "Full": dt.Full.on,
    "Head": dt.Head.on,
}
each_method = pytest.mark.parametrize("method", ON_LINEAR)


class Branches(nn.Module):
    """`used` runs, `unused` never does, and nothing flows back through `cut`."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.cut = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x) + self.cut(x).detach()


@each_method
def test_verify_names_what_is_never_called_or_gets_no_gradient(method: str) -> None:
    model, x = Branches(), torch.ones(2, 3)
    rule = ON_LINEAR[method]
    dt.inject(model, rule("used"))
    dt.verify(model, x)
    dt.inject(model, rule("unused"), name="lost")
    with pytest.raises(dt.NotReached, match=r"^unused \(lost\): \w+ was never called") as caught:
        dt.verify(model, x=x)
    assert "used (default)" not in str(caught.value)
    dt.inject(model, rule("cut"), name="dead")
    parameter = next(n for n, _ in stacks(model.cut)["dead"][0].named_parameters())  # type: ignore[index, union-attr]
    with pytest.raises(dt.NotReached, match=rf"cut \(dead\): {parameter} got no gradient"):
        dt.verify(model, x)
    dt.use(model, "dead")
    with pytest.raises(dt.NotReached, match="the output needs no gradient at all"):
        dt.verify(model, x)
    dt.use(model, "default")  # what is switched off need not be reached
    dt.verify(model, x)
    dt.use(model)
    with pytest.raises(dt.NoMatch, match="no delta is live"):
        dt.verify(model, x)


def test_verify_leaves_gradients_alone() -> None:
    model = NANO.model()
    dt.inject(model, dt.LoRA.on())
    for _, p in dt.parameters(model):
        p.grad = torch.ones_like(p)
    with torch.no_grad():  # it needs gradients itself, whatever surrounds it
        dt.verify(model, **NANO.batch())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for _, p in dt.parameters(model))  # type: ignore[arg-type]


@each_method
def test_out_proj_of_multihead_attention_is_refused(method: str) -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)})
    before = image(model)
    with pytest.raises(dt.NotReached, match=r"^attention\.out_proj: .* never calls the module; choose the attention"):
        dt.inject(model, ON_LINEAR[method]("attention|*.out_proj" if method == "Full" else "*.out_proj"))
    assert image(model) == before


@pytest.mark.parametrize("method", [dt.Full, dt.BitFit])
def test_out_proj_is_reached_through_the_attention_module(method: type[dt.DeltaModule]) -> None:
    model = LAYER.model()
    dt.inject(model, method.on("self_attn"))
    shaken(model)
    names = [n.rpartition(".")[2] for n, _ in dt.parameters(model)]
    assert "out_proj_bias" in names and "in_proj_bias" in names
    dt.verify(model, **LAYER.batch())


@pytest.mark.parametrize("method", ["LoRA", "Adapter", "BitFit", "IA3", "Full", "DoRA"])
def test_the_fast_path_of_an_encoder_layer_does_not_pass_deltas_by(method: str) -> None:
    model = LAYER.model().eval()
    dt.inject(model, ON_LINEAR[method]("linear1"))
    shaken(model)
    trained = run(LAYER, model.train())
    assert_changed(trained, base_output(LAYER), LAYER.reduction)
    for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with context():
            assert_close(LAYER.run(model.eval(), LAYER.batch()).detach().clone(), trained, LAYER.reduction)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")  # the fast path's own
@pytest.mark.parametrize("at", ["layers.0.linear1", "layers.1.linear2", "layers.1.self_attn", "layers.*.linear?"])
def test_an_encoder_with_padding_keeps_its_deltas_in_eval(at: str) -> None:
    """nn.TransformerEncoder packs padded rows for the fast path of all its layers; one with deltas has none."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 3)
    batch = LAYER.padded(LAYER.batch(3, 7), [7, 3, 5], "right")
    packed = {"src": batch["src"], "src_key_padding_mask": batch["src_key_padding_mask"]}
    real = ~batch["src_key_padding_mask"]
    with torch.no_grad():
        plain = model.eval()(**packed)[real]
    before = image(model)
    dt.inject(model, dt.Full.on(at))
    shaken(model)
    with torch.no_grad():
        want = model.train()(**packed)[real]
        got = model.eval()(**packed)[real]
    assert_changed(want, plain, 1000)
    assert_close(got, want, 1000)
    dt.eject(model)
    assert image(model) == before
    with torch.no_grad():
        assert torch.equal(model(**packed)[real], plain)


class PackedLinear(nn.Linear):
    """Eight-bit codes and a scale a row; the weight is never there as numbers to add to."""

    def __init__(self, like: nn.Linear):
        super().__init__(like.in_features, like.out_features, bias=like.bias is not None)
        scale = like.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        codes = (like.weight.detach() / scale).round() + 128
        self.weight = nn.Parameter(codes.to(torch.uint8), requires_grad=False)
        self.bias = like.bias

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight.float() - 128) * self.get_buffer("scale")
        return nn.functional.linear(x, weight, self.bias)


class Codes(nn.Parameter):
    """A parameter whose numbers are not its values, as quantisers' tensor subclasses are."""


def packed_linear(kind: str) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    if kind == "packed":
        return PackedLinear(layer)
    if kind == "codes":
        layer.weight = nn.Parameter((layer.weight * 50 + 128).detach().to(torch.uint8), requires_grad=False)
        return layer
    layer.weight = Codes(layer.weight.detach())
    return layer


@pytest.mark.parametrize("kind", ["packed", "subclass"])
def test_a_packed_weight_is_called_and_never_folded(kind: str) -> None:
    model = nn.Sequential(packed_linear(kind))
    assert frozen(model[0], dict(model[0]._parameters)) is None
    x = torch.randn(3, 6)
    base = model(x).detach()
    dt.inject(model, dt.LoRA.on("0", rank=2), dt.IA3.on("0"), dt.Adapter.on("0", width=2))
    assert torch.equal(model(x), base)
    shaken(model)
    assert not torch.equal(model(x), base)
    dt.verify(model, x)
    before = image(model)
    dt.use(model, default=0.5)
    for name, rule in (("lora", dt.LoRA.on("0")), ("ia3", dt.IA3.on("0"))):
        fresh = nn.Sequential(packed_linear(kind))
        dt.inject(fresh, rule, name=name)
        with pytest.raises(dt.NotFoldable, match=r"^0: \w+ is no known linear map"):
            dt.merge(fresh)
    assert image(model) == before


@pytest.mark.parametrize("kind", ["packed", "codes", "subclass"])
@pytest.mark.parametrize("rule", [dt.DoRA.on("0"), dt.Full.on("0"), dt.Head.on("0")], ids=["DoRA", "Full", "Head"])
def test_methods_that_read_the_weight_refuse_a_packed_one(kind: str, rule: dt.Rule) -> None:
    model = nn.Sequential(packed_linear(kind))
    assert frozen(model[0], dict(model[0]._parameters)) is None
    before = image(model)
    with pytest.raises(dt.DeltaError, match=r"^0: "):
        dt.inject(model, rule)
    assert image(model) == before


def test_a_linear_that_computes_otherwise_is_not_taken_for_linear() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = nn.Sequential(Doubled(3, 3))
    x = torch.ones(1, 3)
    base = model(x).detach()
    for rule, name in ((dt.IA3.on("0"), "around"), (dt.LoRA.on("0"), "inside")):
        dt.inject(model, rule, name=name)
        assert torch.equal(model(x), base)
    shaken(model)
    called = model(x).detach()
    with pytest.raises(dt.NotFoldable, match="no known linear map"):
        dt.merge(model)
    dt.merge(model, "inside")  # low-rank in its weight, which its own forward doubles
    assert_close(model(x).detach(), called, 100)


@each_method
def test_a_forward_patched_on_the_instance_is_refused(method: str) -> None:
    model = Branches()
    patched = model.used.forward
    model.used.forward = lambda x: patched(x) * 2  # type: ignore[method-assign]
    before = image(model)
    with pytest.raises(dt.DeltaError, match=r"^used: forward is patched on the instance"):
        dt.inject(model, ON_LINEAR[method]("cut|used"))
    assert image(model) == before


def test_a_host_without_a_hidden_state_says_so() -> None:
    class Pair(nn.Linear):
        def forward(self, x: Tensor) -> Any:  # type: ignore[override]
            return SimpleNamespace(h=super().forward(x))

    model = nn.Sequential(Pair(2, 2))
    dt.inject(model, dt.IA3.on("0"))
    with pytest.raises(dt.DeltaError, match="the host returned SimpleNamespace; a delta changes a tensor"):
        model(torch.ones(1, 2))


def test_prompts_never_pass_their_ids_on() -> None:
    """Two prompts have ranges of their own; a prompt that is off, or an id of no prompt, raises."""
    model = NANO.model()
    dt.inject(model, dt.Prompt.on(length=2), name="a")
    dt.inject(model, dt.Prompt.on(length=3), dt.LoRA.on("wte", rank=2), name="b")
    shaken(model)
    a, b = dt.prompt_ids(model, "a"), dt.prompt_ids(model, "b")
    assert (a, b) == ([VOCABULARY, VOCABULARY + 1], [VOCABULARY + 2, VOCABULARY + 3, VOCABULARY + 4])
    for ids in (a, b, a + b, b + a):
        assert torch.isfinite(run(NANO, model, NANO.batch(front=tuple(ids)))).all()
    with dt.active(model, "a"), pytest.raises(dt.NotReached, match=r"\(52\.\.54\) that is switched off"):
        run(NANO, model, NANO.batch(front=tuple(b)))
    with pytest.raises(IndexError):
        run(NANO, model, NANO.batch(front=(VOCABULARY + 5,)))
    assert len(hosts(model)) == 1 and len(deltas(model)) == 3
