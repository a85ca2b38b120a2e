"""A host keeps all that is its own: nothing that a swap adds hides a child, a buffer, a parameter or an attribute."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import deltatune as dt
from deltatune.host import Deltas, Host, hosts
from deltatune.maps import CHILD, SWAP, Swap
from tests.laws import image
from tests.support.cases import shaken
from tests.support.hosts import HEADS, WIDTH

pytestmark = pytest.mark.law
PLAIN = set(dir(nn.Module()))
OURS = {n for thing in (Deltas(), Host, Swap) for n in dir(thing) if n not in dir(tuple)} - PLAIN - {SWAP}
WORDS = (
    "attention inner live deltas strengths together original_class first_input original hosts host stacks swap delta "
    "base call run frozen merged active names strength replaced term folded default site fold change prime only rank"
)
NAMES = sorted({n for n in OURS | set(WORDS.split()) if not n.startswith("__")})
RULES: dict[str, Callable[[], dt.Rule]] = {
    "Adapter": lambda: dt.Adapter.on("0", width=2),
    "LoRA": lambda: dt.LoRA.on("0", rank=2),
    "Full": lambda: dt.Full.on("0"),
}


class Carries(nn.Module):
    """x + its child + its parameter + its buffer + its attribute; all but one under other names."""

    def __init__(self, kind: str, name: str):
        super().__init__()
        self.kind, self.name, self.scale = kind, name, nn.Parameter(torch.ones(8))
        if kind == "child":
            self.add_module(name, nn.Linear(8, 8))
        elif kind == "parameter":
            self.register_parameter(name, nn.Parameter(torch.randn(8)))
        elif kind == "buffer":
            self.register_buffer(name, torch.randn(8))
        elif kind == "attribute":
            setattr(self, name, 3.0)

    def forward(self, x: Tensor) -> Tensor:
        mine = getattr(self, self.name)
        return x * self.scale + (mine(x) if self.kind in ("child", "method") else mine)

    in_features = out_features = 8


@pytest.mark.parametrize("kind", ["child", "parameter", "buffer", "attribute", "method"])
@pytest.mark.parametrize("rule", RULES)
def test_a_host_keeps_what_is_called_like_something_of_ours(rule: str, kind: str, tmp_path: Path) -> None:
    for name in NAMES:
        keeps(rule, kind, name, tmp_path)


def keeps(rule: str, kind: str, name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    cls = type("Called", (Carries,), {name: lambda self, x: 2 * x}) if kind == "method" else Carries
    model, x = nn.Sequential(cls(kind, name)), torch.randn(2, 8)
    plain = copy.deepcopy(model)
    before, want = image(model), model(x).detach()
    dt.inject(model, RULES[rule]())
    assert torch.equal(model(x), want) and type(getattr(model[0], name)) is type(getattr(plain[0], name))
    dt.verify(shaken(model), x)
    called = model(x).detach()
    assert not torch.equal(called, want)
    assert torch.equal(copy.deepcopy(model)(x), called)
    dt.save(model, tmp_path / "d")
    dt.load(plain, tmp_path / "d")
    assert torch.equal(plain(x), called)
    if rule == "Full":
        with dt.merged(model):
            assert torch.allclose(model(x), called, atol=1e-6)
    dt.eject(model)
    assert image(model) == before and torch.equal(model(x), want)


def test_a_block_that_calls_its_attention() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.attention = nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.attention(self.norm(x))

    model, x = nn.Sequential(Block()), torch.randn(2, 8)
    want = model(x)
    dt.inject(model, dt.Adapter.on("0", width=2))
    assert torch.equal(model(x), want)


@pytest.mark.parametrize("kind", ["child", "parameter", "buffer", "attribute", "method"])
@pytest.mark.parametrize("name", [CHILD, SWAP])
def test_the_two_names_that_are_ours_are_refused(kind: str, name: str) -> None:
    cls = type("Called", (Carries,), {name: lambda self, x: 2 * x}) if kind == "method" else Carries
    model = nn.Sequential(cls(kind, name))
    before = image(model)
    with pytest.raises(dt.DeltaError, match=rf"^0: \w+ has an attribute {name}, which deltas are kept under"):
        dt.inject(model, dt.Adapter.on("0", width=2))
    assert image(model) == before


def test_forward_keeps_its_signature() -> None:
    model = nn.Sequential(nn.Bilinear(2, 3, 4))
    want = inspect.signature(model[0].forward)
    dt.inject(model, dt.Full.on("0"))
    assert inspect.signature(model[0].forward) == want


class Rebuilt(nn.Linear):
    """Pickles itself in its own way."""

    def __init__(self, into: int, out: int):
        super().__init__(into, out)
        self.sizes = into, out

    def __reduce__(self) -> Any:
        return Rebuilt, self.sizes, self.__dict__


class Lightened(nn.Linear):
    """Leaves something out of its pickle and makes it again."""

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "handle"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.handle = object()


@pytest.mark.parametrize("cls", [Rebuilt, Lightened, nn.Linear, nn.GRU])
@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_hosts_that_pickle_in_their_own_way(cls: type[nn.Module], protocol: int) -> None:
    model, x = nn.Sequential(cls(4, 4)), torch.randn(3, 4)  # type: ignore[call-arg]
    if cls is Lightened:
        model[0].handle = object()  # type: ignore[assignment]
    dt.inject(model, dt.Full.on("0"))
    shaken(model)
    first = lambda out: out[0] if isinstance(out, tuple) else out
    want = first(model(x)).detach()
    stream = io.BytesIO(pickle.dumps(model, protocol))
    for twin in (pickle.load(stream), copy.deepcopy(model)):
        assert torch.equal(first(twin(x)), want) and type(twin[0]) is type(model[0]) and len(hosts(twin)) == 1
        dt.eject(twin)
        assert type(twin[0]) is cls
        assert not torch.equal(first(twin(x)), want)


SIZES: dict[str, Any] = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS}
TEXT: dict[str, Any] = {**SIZES, "vocab_size": 50, "intermediate_size": 48}
IMAGE: dict[str, Any] = {**SIZES, "intermediate_size": 48, "image_size": 8, "patch_size": 4}
SPEECH: dict[str, Any] = {
    **TEXT, "conv_dim": (16, 16), "conv_stride": (4, 2), "conv_kernel": (8, 4), "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
STAGES: dict[str, Any] = {"embed_dim": [8, 8, 16], "num_heads": [1, 1, 2], "depth": [1, 2, 3]}
FUNNEL: dict[str, Any] = {
    "vocab_size": 50, "block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": WIDTH, "n_head": HEADS, "d_head": 8,
    "d_inner": 48,
}  # fmt: skip
IDS, PIXELS = {"input_ids": torch.arange(2, 14).view(2, 6)}, {"pixel_values": torch.randn(2, 3, 8, 8)}
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Tensor], str]] = {
    "bert": ("Bert", TEXT, IDS, "BertLayer"),
    "vit": ("ViT", IMAGE, PIXELS, "ViTLayer"),
    "dinov2": ("Dinov2", {**SIZES, "image_size": 8, "patch_size": 4}, PIXELS, "Dinov2Layer"),
    "gpt_neox": ("GPTNeoX", TEXT, IDS, "GPTNeoXLayer"),
    "wav2vec2": ("Wav2Vec2", SPEECH, {"input_values": torch.randn(2, 400)}, "Wav2Vec2EncoderLayer"),
    "beit": ("Beit", IMAGE, PIXELS, "BeitLayer"),
    "data2vec": ("Data2VecVision", IMAGE, PIXELS, "Data2VecVisionLayer"),
    "cvt": ("Cvt", STAGES, {"pixel_values": torch.randn(2, 3, 32, 32)}, "CvtLayer"),
    "funnel": ("Funnel", FUNNEL, IDS, "FunnelLayer"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_layers_with_a_child_called_attention(kind: str) -> None:
    """Whole layers as hosts, and Full on everything: the start is the identity, to the last bit."""
    name, sizes, batch, layer = MODELS[kind]
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**sizes)).eval()
    layers = [p for p, m in model.named_modules() if type(m).__name__ == layer]
    assert layers
    with torch.no_grad():
        want = model(**batch)[0]
        for rule in (dt.Adapter.on("|".join(layers), width=2), dt.Full.on()):
            dt.inject(model, rule)
            assert torch.equal(model(**batch)[0], want)
            shaken(model)
            assert not torch.equal(model(**batch)[0], want)
            dt.eject(model)
            assert torch.equal(model(**batch)[0], want)
