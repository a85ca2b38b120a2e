"""Deltas learn on what is not text, pictures of digits and generated tones, from a frozen model with random weights.

The baseline trains the task's head alone, as long and as fast; the same with a LoRA has to be clearly better.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from sklearn.datasets import load_digits
from torch import Tensor, nn

import deltatune as dt

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}
STEPS, ROWS, RATE = 200, 48, 5e-3


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def vit() -> nn.Module:
    torch.manual_seed(1)
    config = transformers.ViTConfig(image_size=8, patch_size=2, num_channels=1, num_labels=10, **SIZES)  # type: ignore[call-arg]
    return transformers.ViTForImageClassification(config)


def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 pictures of 8 × 8, in an order drawn once."""
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(2))
    return torch.tensor(pixels).float()[order].view(-1, 1, 8, 8) / 8 - 1, torch.tensor(labels)[order]


def speech() -> nn.Module:
    torch.manual_seed(1)
    config = transformers.Wav2Vec2Config(
        **SIZES, conv_dim=(16, 16), conv_kernel=(10, 8), conv_stride=(5, 8), num_feat_extract_layers=2,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, num_labels=3, classifier_proj_size=16,
        mask_time_prob=0.0, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0,
        layerdrop=0.0,
    )  # fmt: skip
    return transformers.Wav2Vec2ForSequenceClassification(config)


def tones(rows: int = 400, samples: int = 800) -> tuple[Tensor, Tensor]:
    """Tones that rise, fall or stay, of any pitch and phase, in noise: which of the three."""
    draw = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 3, (rows,), generator=draw)
    pitch = 0.05 + 0.05 * torch.rand(rows, 1, generator=draw)
    slope = (labels[:, None] - 1) * 0.04 / samples
    time = torch.arange(samples) - samples / 2
    phase = 2 * math.pi * (pitch * time + slope * time**2 / 2 + torch.rand(rows, 1, generator=draw))
    return torch.sin(phase) + 0.1 * torch.randn(rows, samples, generator=draw), labels


def learned(model: nn.Module, data: tuple[Tensor, Tensor], *rules: dt.Rule) -> float:
    """The share of right answers on the last quarter of the data, after training on the rest."""
    x, y = data
    split = len(y) * 3 // 4
    dt.inject(model, *rules)
    ours = dict(dt.parameters(model))
    before = {n: t.clone() for n, t in model.state_dict().items() if n not in ours}
    dt.verify(model, x[:2])
    optimizer = torch.optim.AdamW(ours.values(), lr=RATE)
    draw = torch.Generator().manual_seed(4)
    model.train()
    for _ in range(STEPS):
        rows = torch.randint(0, split, (ROWS,), generator=draw)
        loss = F.cross_entropy(model(x[rows]).logits, y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        right = model(x[split:]).logits.argmax(-1) == y[split:]
    assert all(torch.equal(model.state_dict()[n], t) for n, t in before.items())
    return float(right.float().mean())


@pytest.mark.parametrize(("make", "data"), [(vit, digits), (speech, tones)], ids=["digits", "tones"])
def test_a_lora_learns_what_a_head_alone_does_not(make: Any, data: Any) -> None:
    alone = learned(make(), data(), dt.Head.on())
    both = learned(make(), data(), dt.Head.on(), dt.LoRA.on(rank=4))
    assert both > alone + 0.15 and both > 0.5, (alone, both)
