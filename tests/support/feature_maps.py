"""Models of feature maps, written here in plain torch: a convolutional net, and a diffusion U-Net of two levels.

Legend: B rows, C channels, H and W places, T context tokens, D their width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNet(nn.Module):
    """Images (B, 3, 8, 8) to 5 classes: strided, depthwise and dilated convolutions with group norms."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.GroupNorm(2, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.Conv2d(width, 2 * width, 1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=2, dilation=2),
            nn.GroupNorm(4, 2 * width),
        )
        self.classifier = nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(F.silu(self.features(x)).mean((2, 3)))


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + the time's embedding)))."""

    def __init__(self, into: int, out: int, time: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(2, into), nn.Conv2d(into, out, 3, padding=1)
        self.time = nn.Linear(time, out)
        self.norm2, self.conv2 = nn.GroupNorm(2, out), nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(into, out, 1) if into != out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class CrossAttention(nn.Module):
    """Places attend to context tokens; x (B, C, H, W), context (B, T, D)."""

    def __init__(self, channels: int, context: int, heads: int = 2):
        super().__init__()
        self.num_heads, self.norm = heads, nn.GroupNorm(2, channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context, channels, bias=False)
        self.to_v = nn.Linear(context, channels, bias=False)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        z = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = (
            p.view(*p.shape[:2], self.num_heads, -1).transpose(1, 2)
            for p in (self.to_q(z), self.to_k(context), self.to_v(context))
        )
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.to_out(h).transpose(1, 2).reshape(x.shape)


class UNet(nn.Module):
    """The noise in a sample (B, 3, 8, 8) at a time (B,), given a context (B, T, D): one level down and up again."""

    def __init__(self, width: int = 8, context: int = 6):
        super().__init__()
        time = 2 * width
        self.time = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down, self.down_attention = ResBlock(width, width, time), CrossAttention(width, context)
        self.smaller = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.middle = ResBlock(width, 2 * width, time)
        self.larger = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.up, self.up_attention = ResBlock(2 * width, width, time), CrossAttention(width, context)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, sample: Tensor, time: Tensor, context: Tensor) -> Tensor:
        half = self.time[0].in_features // 2  # type: ignore[union-attr, operator]
        waves = time[:, None] * torch.exp(-torch.arange(half, device=time.device)).to(sample.dtype)
        t = self.time(torch.cat([waves.sin(), waves.cos()], -1))
        x = self.first(sample)
        kept = self.down_attention(self.down(x, t), context)
        x = self.larger(self.middle(self.smaller(kept), t))
        x = self.up_attention(self.up(torch.cat([x, kept], 1), t), context)
        return self.last(x)
