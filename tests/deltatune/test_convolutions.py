"""Deltas on convolutions and on norms of feature maps: by channel, called and folded alike."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deltatune as dt
from tests.support.cases import shaken
from tests.support.tolerance import bound

CONVOLUTIONS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {}


def convolution(name: str, make: Any, *shape: int, **how: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(len(name))
        CONVOLUTIONS[name] = (make(**how), shape)


convolution("conv1d", nn.Conv1d, 2, 6, 11, in_channels=6, out_channels=4, kernel_size=3, stride=2, padding=1)
convolution("conv1d-unbatched", nn.Conv1d, 6, 11, in_channels=6, out_channels=4, kernel_size=3)
convolution(
    "conv1d-circular",
    nn.Conv1d,
    2,
    6,
    9,
    in_channels=6,
    out_channels=4,
    kernel_size=4,
    padding=2,
    padding_mode="circular",
)
convolution("conv2d", nn.Conv2d, 2, 6, 7, 8, in_channels=6, out_channels=4, kernel_size=3, bias=False)
convolution("conv2d-1x1", nn.Conv2d, 2, 6, 5, 4, in_channels=6, out_channels=4, kernel_size=1)
convolution("conv2d-unbatched", nn.Conv2d, 6, 7, 8, in_channels=6, out_channels=6, kernel_size=(3, 2))
convolution(
    "conv2d-same-dilated",
    nn.Conv2d,
    2,
    6,
    7,
    8,
    in_channels=6,
    out_channels=4,
    kernel_size=3,
    padding="same",
    dilation=2,
)
convolution(
    "conv2d-reflect",
    nn.Conv2d,
    2,
    6,
    7,
    8,
    in_channels=6,
    out_channels=4,
    kernel_size=(3, 5),
    padding=(1, 2),
    padding_mode="reflect",
)
convolution("conv2d-groups", nn.Conv2d, 2, 6, 7, 8, in_channels=6, out_channels=4, kernel_size=3, groups=2, stride=2)
convolution(
    "conv2d-depthwise", nn.Conv2d, 2, 6, 7, 8, in_channels=6, out_channels=12, kernel_size=3, groups=6, padding=1
)
convolution("conv3d", nn.Conv3d, 2, 4, 5, 6, 7, in_channels=4, out_channels=6, kernel_size=(1, 2, 3), groups=2)
convolution(
    "transposed1d",
    nn.ConvTranspose1d,
    2,
    6,
    5,
    in_channels=6,
    out_channels=4,
    kernel_size=4,
    stride=3,
    output_padding=1,
)
convolution(
    "transposed2d",
    nn.ConvTranspose2d,
    2,
    6,
    5,
    4,
    in_channels=6,
    out_channels=4,
    kernel_size=3,
    stride=2,
    padding=1,
    dilation=2,
)
convolution(
    "transposed2d-groups", nn.ConvTranspose2d, 2, 6, 5, 4, in_channels=6, out_channels=4, kernel_size=3, groups=2
)
convolution("transposed3d", nn.ConvTranspose3d, 4, 3, 4, 5, in_channels=4, out_channels=2, kernel_size=2, bias=False)

METHODS = {
    "LoRA": dt.LoRA.on("0", rank=2),
    "DoRA": dt.DoRA.on("0", rank=2),
    "IA3": dt.IA3.on("0"),
    "IA3-input": dt.IA3.on("0", form="input"),
    "BitFit": dt.BitFit.on("0"),
    "Full": dt.Full.on("0"),
    "Head": dt.Head.on("0"),
    "Adapter": dt.Adapter.on("0", width=3, act="gelu"),
}


def made(name: str) -> tuple[nn.Sequential, Tensor]:
    module, shape = CONVOLUTIONS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return nn.Sequential(copy.deepcopy(module)), x


def same(got: Tensor, want: Tensor, reduction: int = 2000) -> None:
    """Equal up to rounding; the sums here have a few hundred terms in a few layers."""
    assert got.shape == want.shape
    got, want = got.detach(), want.detach()
    assert float((got - want).abs().max()) <= bound(torch.float32, reduction) * float(want.abs().max())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_keeps_the_algebra(name: str, method: str, tmp_path: Path) -> None:
    """Identity at the start; by strengths; called as folded, in a stack too; saved, copied and given back."""
    model, x = made(name)
    fresh, base = copy.deepcopy(model), model(x).detach()
    dt.inject(model, METHODS[method])
    same(model(x), base)
    dt.verify(model, x)
    shaken(model)
    called = model(x).detach()
    assert (called - base).abs().max() > 1e-2
    with dt.active(model, default=0.0):
        assert torch.equal(model(x), base)
    if method != "Adapter":
        for strength in (1.0, 0.5):
            with dt.active(model, default=strength):
                want = model(x)
                with dt.merged(model):
                    same(model(x), want)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), called)
    dt.save(model, tmp_path / "d.safetensors")
    dt.load(fresh, tmp_path / "d.safetensors")
    assert torch.equal(fresh(x), called)
    dt.eject(model)
    assert torch.equal(model(x), base)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_stack_on_a_convolution_folds(name: str) -> None:
    model, x = made(name)
    for i, method in enumerate(("LoRA", "IA3", "DoRA", "IA3-input", "BitFit", "LoRA")):
        dt.inject(model, METHODS[method], name=f"d{i}")
    shaken(model, by=0.05)
    called = model(x).detach()
    dt.merge(model)
    same(model(x), called)


def test_a_channel_is_what_ia3_scales() -> None:
    for x in (torch.randn(2, 8, 5, 4), torch.randn(8, 5, 4)):
        model = nn.Sequential(nn.Conv2d(8, 8, 1))
        base = model(x)
        dt.inject(model, dt.IA3.on("0"))
        with torch.no_grad():
            dt.parameters(model)[0][1][0] = 0
        changed = model(x)
        assert not changed.select(-3, 0).any() and torch.equal(changed.narrow(-3, 1, 7), base.narrow(-3, 1, 7))


@pytest.mark.parametrize("name", ["transposed1d", "transposed2d"])
def test_an_output_size_reaches_the_delta(name: str) -> None:
    module, shape = CONVOLUTIONS[name]
    host, x = nn.Sequential(copy.deepcopy(module)), torch.randn(shape)
    size = [n + 1 for n in module(x).shape[2:]]
    dt.inject(host, METHODS["LoRA"])
    assert torch.equal(host[0](x, output_size=size), module(x, output_size=size))
    shaken(host)
    called = host[0](input=x, output_size=size)
    with dt.merged(host):
        same(host[0](x, size), called)


def test_dropout_falls_on_the_input_alone() -> None:
    model, x = made("conv2d")
    base = model(x)
    dt.inject(model, dt.LoRA.on("0", rank=2, dropout=0.5))
    same(model.train()(x), base)
    shaken(model)
    mean = torch.stack([model(x).detach() for _ in range(400)]).mean(0)
    want = model.eval()(x).detach()
    off = (mean - want).abs().mean() / (want - base).abs().mean()
    assert off < 0.1  # the mean of 400 masks that are right one by one: 1 / √400 and a margin
    assert (model.train()(x) - want).abs().max() > 0.01


def test_a_parallel_adapter_needs_as_many_places() -> None:
    rule = dt.Adapter.on("0", width=3, form="parallel")
    model, x = made("conv2d-same-dilated")
    base = model(x)
    dt.inject(model, rule)
    assert torch.equal(model(x), base) and shaken(model)(x).shape == base.shape
    for name in ("conv1d", "conv2d", "transposed2d"):
        with pytest.raises(dt.DeltaError, match=r"^0: Adapter: the host's output has other places"):
            dt.inject(made(name)[0], rule)


def test_lazy_layers_are_refused_until_they_know_their_sizes() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyLinear(2))
    for at in ("0", "1"):
        with pytest.raises(dt.DeltaError, match=f"^{at}: .*run the model once"):
            dt.inject(model, dt.LoRA.on(at))
    model(torch.randn(1, 3, 5, 5))
    dt.inject(model, dt.LoRA.on("0|1", rank=1))


NORMS: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {
    "batch1d": (nn.BatchNorm1d(6), (4, 6), 1),
    "batch1d-long": (nn.BatchNorm1d(6), (4, 6, 3), 1),
    "batch2d": (nn.BatchNorm2d(6), (4, 6, 3, 5), 1),
    "batch3d": (nn.BatchNorm3d(6), (4, 6, 2, 3, 2), 1),
    "group": (nn.GroupNorm(2, 6), (4, 6, 3), 1),
    "instance2d": (nn.InstanceNorm2d(6, affine=True), (4, 6, 3, 5), 1),
    "instance2d-unbatched": (nn.InstanceNorm2d(6, affine=True), (6, 3, 5), 0),
    "layer": (nn.LayerNorm(6), (4, 3, 6), 2),
    "rms": (nn.RMSNorm(6), (4, 3, 6), 2),
}


class ChannelsFirst(nn.LayerNorm):
    """A norm of own forward, as ConvNeXt has it."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class OwnRMSNorm(nn.Module):
    def __init__(self, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * x.square().mean(-1, keepdim=True).add(1e-6).rsqrt()


NORMS["own-first"] = (ChannelsFirst(6), (4, 6, 3, 5), 1)
NORMS["own-last"] = (OwnRMSNorm(6), (4, 3, 6), 2)
ON_NORMS = ("IA3", "BitFit", "Adapter", "LoRA", "Full")


@pytest.mark.parametrize("method", ON_NORMS)
@pytest.mark.parametrize("name", NORMS)
def test_norms_are_changed_along_their_channels(name: str, method: str) -> None:
    norm, shape, axis = NORMS[name]
    model, x = nn.Sequential(copy.deepcopy(norm)).eval(), torch.randn(shape)
    base = model(x)
    dt.inject(model, METHODS[method])
    same(model(x), base)
    shaken(model)
    assert (model(x) - base).abs().max() > 1e-3
    if method == "IA3":
        ratio = (model(x) / base).movedim(axis, 0).flatten(1).detach()
        torch.testing.assert_close(ratio, dt.parameters(model)[0][1][:, None].expand_as(ratio).detach())


def test_a_norm_over_several_axes_has_no_channel() -> None:
    for method in ("IA3", "Adapter"):
        with pytest.raises(dt.DeltaError, match=r"^0: LayerNorm normalises over 2 axes"):
            dt.inject(nn.Sequential(nn.LayerNorm([4, 6])), METHODS[method])
    model, x = nn.Sequential(nn.LayerNorm([4, 6])), torch.randn(2, 4, 6)
    dt.inject(model, METHODS["BitFit"], METHODS["Full"])
    shaken(model)
    called = model(x)
    with dt.merged(model):
        same(model(x), called)
