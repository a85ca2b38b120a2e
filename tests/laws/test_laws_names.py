"""Deltas by name: which are live, at what strength, in what order; and one delta for a weight that stands twice."""

from __future__ import annotations

import copy
import hashlib
import zlib
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

import deltatune as dt
from deltatune.host import Deltas, hosts, names
from tests.laws import LAWS, Law, holds_on, image
from tests.support.cases import CASES, Case, assert_changed, assert_close, base_output, run, shaken
from tests.support.hosts import HOSTS, SIZES, Host, Llama, Nano

pytestmark = pytest.mark.law
NANO, LLAMA = Nano(), Llama()


def two(host: Host = NANO) -> nn.Module:
    """LoRA on everything as "a", then adapters as "b"."""
    model = host.model()
    for name, rule in (("a", dt.LoRA.on(rank=2)), ("b", dt.Adapter.on(width=3))):
        torch.manual_seed(len(names(model)))
        dt.inject(model, rule, name=name)
        shaken(model, name)
    return model


def one(name: str) -> nn.Module:
    model = two()
    dt.eject(model, "b" if name == "a" else "a")
    return model


def test_use_says_which_are_live() -> None:
    model = two()
    both, base = run(NANO, model), base_output(NANO)
    for name in "ab":
        dt.use(model, name)
        assert torch.equal(run(NANO, model), run(NANO, one(name)))
        dt.use(model, **{name: 0.5})
        half = run(NANO, model)
        assert_changed(half, run(NANO, one(name)), NANO.reduction)
        assert_changed(half, base, NANO.reduction)
    dt.use(model)
    assert torch.equal(run(NANO, model), base)
    for again in (lambda: dt.use(model, "a", "b"), lambda: dt.use(model, "b", a=1.0), lambda: dt.use(model, a=1, b=1)):
        dt.use(model)
        again()
        assert torch.equal(run(NANO, model), both)  # the order is that of injection, not that of use


def test_active_is_use_for_a_block() -> None:
    model = two()
    both = run(NANO, model)
    dt.use(model, a=0.5)
    half = run(NANO, model)
    with dt.active(model, "a", "b"):
        assert torch.equal(run(NANO, model), both)
        with dt.active(model):
            assert torch.equal(run(NANO, model), base_output(NANO))
        assert torch.equal(run(NANO, model), both)
    assert torch.equal(run(NANO, model), half)
    with pytest.raises(ZeroDivisionError), dt.active(model, "b"):
        raise ZeroDivisionError
    assert torch.equal(run(NANO, model), half)


def test_order_matters_and_is_that_of_injection() -> None:
    """IA3 around LoRA scales LoRA's part too, LoRA around IA3 does not; by rules of one name and by names alike."""
    lora, ia3 = dt.LoRA.on("h.*.c_proj", rank=2), dt.IA3.on("h.*.c_proj")

    def output(*groups: tuple[dt.Rule, ...]) -> torch.Tensor:
        model = NANO.model()
        for i, rules in enumerate(groups):
            dt.inject(model, *rules, name=f"n{i}")
        with torch.no_grad():
            for n, p in dt.parameters(model):  # the same values for the same parameter, wherever it stands
                seed = zlib.crc32((n.split("._deltas")[0] + n.rpartition(".")[2]).encode())
                p.copy_(1 + torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))
        return run(NANO, model)

    assert torch.equal(output((lora, ia3)), output((lora,), (ia3,)))
    assert torch.equal(output((ia3, lora)), output((ia3,), (lora,)))
    assert_changed(output((ia3, lora)), output((lora, ia3)), NANO.reduction)


def test_names_are_checked() -> None:
    model = two()
    for verb in (
        lambda: dt.use(model, "c"),
        lambda: dt.use(model, c=1.0),
        lambda: dt.active(model, "c").__enter__(),
        lambda: dt.eject(model, "c"),
        lambda: dt.parameters(model, "c"),
        lambda: dt.merge(model, "c"),
        lambda: dt.prompt_ids(model, "c"),
    ):
        with pytest.raises(dt.NoMatch, match=r"no delta named 'c' is injected; there are: a, b"):
            verb()
    with pytest.raises(dt.NoMatch, match="holds no prompt"):
        dt.prompt_ids(model, "a")
    with pytest.raises(dt.DeltaError, match="injected already"):
        dt.inject(model, dt.IA3.on(), name="a")


def test_merging_one_of_two_keeps_the_other() -> None:
    model = two()
    called = run(NANO, model)
    dt.merge(model, "a")
    assert names(model) == ["b"]
    assert_close(run(NANO, model), called, NANO.reduction)
    model = two()
    before = image(model)
    with pytest.raises(dt.NotFoldable), dt.merged(model, "b"):  # an adapter, and a live LoRA under it
        pass
    with pytest.raises(ZeroDivisionError), dt.merged(model, "a"):
        raise ZeroDivisionError
    assert image(model) == before
    dt.use(model, "b")
    with pytest.raises(dt.DeltaError, match="'a' is switched off"):
        dt.merge(model, "a")


RESERVED = {*dir(Deltas())}
NAMES = st.text(min_size=1, max_size=12).filter(lambda s: s.isprintable() and "." not in s)


@given(first=NAMES, second=NAMES)
@example(first="self", second="model")
@example(first="training", second="deltas")
@example(first="_modules", second="default")
@example(first="items", second="0")
def test_any_name_will_do_or_is_refused(first: str, second: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """load∘save is the identity under any name; the few that a module cannot hold are refused before anything is."""
    model = nn.Sequential(nn.Linear(3, 2))
    before, x = image(model), torch.ones(1, 3)
    if first in RESERVED:
        with pytest.raises(dt.DeltaError, match="cannot name a delta"):
            dt.inject(model, dt.LoRA.on("0"), name=first)
        assert image(model) == before
        first = "default"
    dt.inject(model, dt.LoRA.on("0", rank=1), name=first)
    shaken(model)
    want = model(x)
    path = tmp_path_factory.getbasetemp() / "delta.safetensors"
    dt.save(model, path, name=first)
    kept = path.read_bytes()
    other = nn.Sequential(nn.Linear(3, 2))
    other.load_state_dict({k: v for k, v in model.state_dict().items() if "deltas" not in k})
    if second in RESERVED:
        with pytest.raises(dt.DeltaError, match="cannot name a delta"):
            dt.load(other, path, name=second)
        assert not hosts(other)
        second = "default"
    dt.load(other, path, name=second)
    assert torch.equal(other(x), want)
    dt.save(other, path, name=second)
    assert path.read_bytes() == kept
    dt.use(other, second)
    with dt.active(other, **{second: 0.0}):
        assert torch.equal(other(x), nn.functional.linear(x, other[0].weight, other[0].bias))  # type: ignore[arg-type]
    assert torch.equal(copy.deepcopy(other)(x), want)


class TiedLlama(Llama):
    name = "llama-tied"

    def build(self) -> nn.Module:
        config = transformers.LlamaConfig(num_key_value_heads=2, tie_word_embeddings=True, **SIZES)  # type: ignore[arg-type]
        return transformers.AutoModelForCausalLM.from_config(config)


TIED = TiedLlama()
BOTH = "model.embed_tokens|lm_head"


@pytest.mark.parametrize("law", [pytest.param(law, id=law.__name__) for law in LAWS if holds_on(law, TIED)])
@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in CASES if c.name in ("LoRA", "BitFit", "Full")])
def test_tied_weights_keep_every_law(law: Law, case: Case) -> None:
    law(case, TIED)


def test_full_stores_a_tied_weight_once(tmp_path: Path) -> None:
    model = TIED.model()
    dt.inject(model, dt.Full.on(BOTH))
    (name, delta), *others = dt.parameters(model)
    assert not others and name.startswith("model.embed_tokens")
    shaken(model)
    called = run(TIED, model)
    size = dt.save(model, tmp_path / "d.safetensors")
    assert delta.numel() * 4 < size < 2 * delta.numel() * 4
    twin = TIED.model()
    assert dt.load(twin, tmp_path / "d.safetensors").parameters == delta.numel()
    assert len(dt.parameters(twin)) == 1 and torch.equal(run(TIED, twin), called)
    dt.merge(model)
    assert model.lm_head.weight is model.model.embed_tokens.weight  # type: ignore[union-attr]
    assert_close(run(TIED, model), called, TIED.reduction)


@pytest.mark.parametrize("at", ["model.embed_tokens", "lm_head"])
@pytest.mark.parametrize("method", [dt.LoRA, dt.Full, dt.IA3])
def test_half_of_a_tie_can_be_called_but_not_merged(at: str, method: type[dt.DeltaModule]) -> None:
    model = TIED.model()
    dt.inject(model, method.on(at))
    shaken(model)
    before, called = image(model), run(TIED, model)
    assert_changed(called, base_output(TIED), TIED.reduction)
    with pytest.raises(dt.NotFoldable, match=rf"{at}\.weight is tied to another module"):
        dt.merge(model)
    assert image(model) == before and torch.equal(run(TIED, model), called)


@pytest.mark.parametrize("host", [pytest.param(h, id=h.name) for h in (NANO, LLAMA)])
def test_merging_a_hundred_times_in_bf16_leaves_no_trace(host: Host) -> None:
    model = host.model().to(torch.bfloat16)
    dt.inject(model, dt.LoRA.on(rank=2), dt.IA3.on(), dt.BitFit.on())
    shaken(model)

    def digest() -> str:
        sha = hashlib.sha256()
        for key, t in model.state_dict().items():
            sha.update(key.encode() + t.float().numpy(force=True).tobytes())
        return sha.hexdigest()

    before, objects = digest(), [id(p) for p in model.parameters()]
    plain = model.get_submodule(dt.plan(model, dt.IA3.on()).rows[0].path)
    for _ in range(100):
        kept = plain.weight
        with dt.merged(model):
            assert not torch.equal(plain.weight, kept)  # type: ignore[arg-type]
    assert digest() == before and [id(p) for p in model.parameters()] == objects
    assert {h.name for h in HOSTS} >= {host.name}
