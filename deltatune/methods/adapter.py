"""Bottleneck adapters: Houlsby et al. 2019; the parallel form of He et al. 2022."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from deltatune.convolution import Convolution
from deltatune.core import DeltaError, DeltaModule
from deltatune.functional import like
from deltatune.hosts import axes, delta_dtype, device_of, features
from deltatune.sites import feed_forwards, sublayer_ends

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


class Adapter(DeltaModule):
    """h + scale · (W₂ act(W₁ z + b₁) + b₂), z = h (serial) or x (parallel); W₁ (width, K), W₂ (N, width).

    W₁ starts Kaiming-uniform, W₂ and both biases at zero, so that injection changes nothing. Usual sites, serial:
    the end of the attention and of the feed-forward sublayer, before the residual add (Houlsby, figure 2);
    parallel: beside the feed-forward module, scale 4 (He et al. 2022, "MAM"). scale: None means 1 serial, 4 parallel.
    On feature maps it is a pair of 1×1 convolutions.
    """

    def __init__(
        self,
        host: nn.Module,
        *,
        width: int = 64,
        form: str = "serial",
        act: str = "relu",
        scale: float | None = None,
    ):
        super().__init__()
        if form not in ("serial", "parallel"):
            raise DeltaError(f"Adapter: form is 'serial' or 'parallel', not {form!r}")
        if act not in ACTIVATIONS:
            raise DeltaError(f"Adapter: act is one of {', '.join(ACTIVATIONS)}, not {act!r}")
        if width < 1:
            raise DeltaError(f"Adapter: width must be at least 1, not {width}")
        if form == "parallel" and isinstance(host, nn.Embedding):
            raise DeltaError("Adapter: an Embedding's input are ids, so only the serial form fits it")
        self.width, self.form, self.act = width, form, act
        self.scale = (1.0 if form == "serial" else 4.0) if scale is None else scale
        if form == "parallel" and not same_places(host):
            raise DeltaError(
                "Adapter: the host's output has other places than its input (a stride, or no padding), so only the "
                "serial form fits it"
            )
        (into, out), self.axes = features(host), tuple(axes(host))
        kind: dict[str, Any] = {"dtype": delta_dtype(host), "device": device_of(host)}
        self.down = nn.Linear(out if form == "serial" else into, width, **kind)
        self.up = nn.Linear(width, out, **kind)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    @classmethod
    def usual(cls, model: nn.Module, hparams: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        serial = hparams.get("form", "serial") == "serial"
        return [(path, {}) for path in (sublayer_ends(model) if serial else feed_forwards(model))]

    def change(self, x: Tensor, h: Tensor) -> Tensor:
        z = h.movedim(self.axes[1], -1) if self.form == "serial" else x.movedim(self.axes[0], -1)
        z = F.linear(z, like(self.down.weight, z), like(self.down.bias, z))
        z = ACTIVATIONS[self.act](z)
        z = F.linear(z, like(self.up.weight, z), like(self.up.bias, z))
        z = z.movedim(-1, self.axes[1])
        return z if self.scale == 1 else self.scale * z


def same_places(host: nn.Module) -> bool:
    """Whether a convolution gives a vector for each one that it takes; every other host is taken to."""
    return not isinstance(host, _ConvNd) or Convolution.of(host).keeps_size
