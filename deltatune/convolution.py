"""Convolutions as linear maps: y = op(x, W, b) with W (N, K / G, *k), transposed ones too, and their low-rank change.

Legend: N output and K input channels, G groups, k the kernel's sizes, R rank; x (B, K, *sizes) or (K, *sizes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

PLAIN = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class Convolution(NamedTuple):
    """op(x, W, b) of a host, without its weights. A value: it is copied and pickled with whoever keeps it."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Any
    dilation: tuple[int, ...]
    groups: int
    output_padding: tuple[int, ...] | None  # None but for a transposed one
    margins: tuple[str, list[int]] | None  # mode and sizes of a padding that is not with zeros

    @classmethod
    def of(cls, host: nn.Module) -> Convolution:
        assert isinstance(host, _ConvNd)
        margins = None if host.padding_mode == "zeros" else (host.padding_mode, host._reversed_padding_repeated_twice)
        return cls(
            host.kernel_size,
            host.stride,
            host.padding if margins is None else 0,
            host.dilation,
            host.groups,
            host.output_padding if isinstance(host, _ConvTransposeNd) else None,
            margins,
        )

    def __call__(self, x: Tensor, W: Tensor, b: Tensor | None, output_size: Sequence[int] | None = None) -> Tensor:
        size = len(self.kernel_size)
        if self.output_padding is None:
            if self.margins is not None:
                x = F.pad(x, self.margins[1], self.margins[0])
            return PLAIN[size](x, W, b, self.stride, self.padding, self.dilation, self.groups)
        extra = _ConvTransposeNd._output_padding(
            self,  # type: ignore[arg-type]  # it reads output_padding alone
            x,
            None if output_size is None else list(output_size),
            self.stride,  # type: ignore[arg-type]
            self.padding,
            self.kernel_size,  # type: ignore[arg-type]
            size,
            self.dilation,  # type: ignore[arg-type]
        )
        weight = turned(W, self.groups)
        return TRANSPOSED[size](x, weight, b, self.stride, self.padding, extra, self.groups, self.dilation)

    def low_rank(self, x: Tensor, A: Tensor, B: Tensor, s: float, *args: Any, **kwargs: Any) -> Tensor:
        """s · B A x: a convolution with A (R, K / G, *k), the same R filters in each group, then B (N, R) as 1×1."""
        tiled = torch.cat([A] * self.groups) if self.groups > 1 else A
        h = self(x, tiled, None, *args, **kwargs)
        ones = (1,) * len(self.kernel_size)
        return PLAIN[len(ones)](h * s, B.view(*B.shape, *ones), groups=self.groups)

    @property
    def keeps_size(self) -> bool:
        """Whether the output is as large as the input, whatever its size."""
        if self.output_padding is not None or any(s != 1 for s in self.stride):
            return False
        if isinstance(self.padding, str):
            return self.padding == "same" or all(k == 1 for k in self.kernel_size)
        added = self.margins[1][::-1] if self.margins else [p for p in self.padding for _ in "ab"]
        reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        return [a + b for a, b in zip(added[::2], added[1::2], strict=True)] == reach


def turned(W: Tensor, groups: int) -> Tensor:
    """(K, N / G, *k), as a transposed convolution keeps it, to (N, K / G, *k); or back."""
    return W.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
