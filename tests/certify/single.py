"""Single hosts: one layer as the whole model, each method put on it by where=""."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.certify.architectures import Architecture, Subject, checked, roughened
from tests.certify.batches import normal

WIDTH = 8
Make = Callable[[], tuple[nn.Module, tuple[Any, ...]]]


def vectors(*shape: int) -> tuple[Tensor]:
    return (normal(*shape, WIDTH),)


def pixels(*sides: int) -> tuple[Tensor]:
    return (normal(2, WIDTH, *sides),)


def some_ids() -> tuple[Tensor]:
    return (torch.arange(1, 13).view(2, 6),)


class Twice(nn.Module):
    """A module that iterates over its children, as users' containers do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = torch.tanh(child(x))
        return x


class Shadow(nn.Module):
    """Children whose names a swapped class may use for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.inner, self.live = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.live(torch.tanh(self.inner(self.attention(x))))


class KeywordOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner_map = nn.Linear(WIDTH, WIDTH)

    def forward(self, *, hidden: Tensor) -> Tensor:
        return self.inner_map(hidden)


class SecondInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.left(x) + torch.tanh(self.right(z))


def sequential() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))


MAKERS: dict[str, Make] = {
    "Linear": lambda: (nn.Linear(WIDTH, 6), vectors(2, 5)),
    "Linear-no-bias": lambda: (nn.Linear(WIDTH, 6, bias=False), vectors(2, 5)),
    "Bilinear": lambda: (nn.Bilinear(WIDTH, WIDTH, 6), (normal(2, WIDTH), normal(2, WIDTH))),
    "Embedding": lambda: (nn.Embedding(20, WIDTH), some_ids()),
    "Embedding-padding": lambda: (nn.Embedding(20, WIDTH, padding_idx=0), some_ids()),
    "EmbeddingBag": lambda: (nn.EmbeddingBag(20, WIDTH), some_ids()),
    "Conv1d": lambda: (nn.Conv1d(WIDTH, 6, 3, padding=1), pixels(7)),
    "Conv1d-depthwise": lambda: (nn.Conv1d(WIDTH, WIDTH, 3, groups=WIDTH), pixels(7)),
    "Conv2d": lambda: (nn.Conv2d(WIDTH, 6, 3, stride=2, padding=1), pixels(6, 7)),
    "Conv2d-square": lambda: (nn.Conv2d(WIDTH, WIDTH, 1), pixels(WIDTH, WIDTH)),
    "Conv2d-groups": lambda: (nn.Conv2d(WIDTH, WIDTH, 3, groups=2, dilation=2), pixels(8, 8)),
    "Conv2d-reflect": lambda: (nn.Conv2d(WIDTH, 6, 3, padding=1, padding_mode="reflect"), pixels(6, 6)),
    "Conv3d": lambda: (nn.Conv3d(WIDTH, 6, 2), pixels(3, 4, 5)),
    "ConvTranspose1d": lambda: (nn.ConvTranspose1d(WIDTH, 6, 3, stride=2), pixels(5)),
    "ConvTranspose2d": lambda: (nn.ConvTranspose2d(WIDTH, 6, 3, stride=2), pixels(4, 5)),
    "ConvTranspose3d": lambda: (nn.ConvTranspose3d(WIDTH, 6, 2), pixels(3, 3, 3)),
    "LayerNorm": lambda: (nn.LayerNorm(WIDTH), vectors(2, 5)),
    "RMSNorm": lambda: (nn.RMSNorm(WIDTH), vectors(2, 5)),
    "BatchNorm1d": lambda: (nn.BatchNorm1d(WIDTH), pixels(5)),
    "BatchNorm2d": lambda: (nn.BatchNorm2d(WIDTH), pixels(WIDTH, WIDTH)),
    "GroupNorm": lambda: (nn.GroupNorm(2, WIDTH), pixels(5, 5)),
    "InstanceNorm1d": lambda: (nn.InstanceNorm1d(WIDTH, affine=True), pixels(5)),
    "PReLU": lambda: (nn.PReLU(WIDTH), pixels(5)),
    "RNN": lambda: (nn.RNN(WIDTH, 6, batch_first=True), vectors(2, 5)),
    "GRU": lambda: (nn.GRU(WIDTH, 6, num_layers=2, batch_first=True), vectors(2, 5)),
    "LSTM": lambda: (nn.LSTM(WIDTH, 6, batch_first=True, bidirectional=True), vectors(2, 5)),
    "LSTMCell": lambda: (nn.LSTMCell(WIDTH, 6), vectors(2)),
    "MultiheadAttention": lambda: (nn.MultiheadAttention(WIDTH, 2, batch_first=True), vectors(2, 5) * 3),
    "TransformerEncoderLayer": lambda: (
        nn.TransformerEncoderLayer(WIDTH, 2, 12, dropout=0.0, batch_first=True), vectors(2, 5)
    ),
    "TransformerDecoderLayer": lambda: (
        nn.TransformerDecoderLayer(WIDTH, 2, 12, dropout=0.0, batch_first=True), vectors(2, 5) * 2
    ),
    "Transformer": lambda: (
        nn.Transformer(WIDTH, 2, 1, 1, 12, dropout=0.0, batch_first=True), vectors(2, 5) * 2
    ),
    "Sequential": lambda: (sequential(), vectors(2, 5)),
    "iterates-children": lambda: (Twice(), vectors(2, 5)),
    "shadowed-names": lambda: (Shadow(), vectors(2, 5)),
    "keyword-only": lambda: (KeywordOnly(), vectors(2, 5)),
    "second-input": lambda: (SecondInput(), vectors(2, 5) * 2),
    "weight-norm": lambda: (nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, 6)), vectors(2, 5)),
}  # fmt: skip


def make(name: str) -> Subject:
    model, inputs = MAKERS[name]()
    names = list(inspect.signature(model.forward).parameters)
    batch = dict(zip(names, inputs))
    return checked(Subject(roughened(model), batch, alone=True))


def architectures() -> list[Architecture]:
    return [Architecture(f"nn:{name}", "single hosts", functools.partial(make, name)) for name in MAKERS]
