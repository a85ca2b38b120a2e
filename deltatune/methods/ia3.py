"""IA3: Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltatune.blocks import blocks, key_value
from deltatune.core import DeltaError, DeltaModule, Frozen
from deltatune.functional import rescaled
from deltatune.hosts import delta_dtype, device_of, features


class IA3(DeltaModule):
    """form "output": l ⊙ h (keys, values); form "input": W (l ⊙ x) (the feed-forward's hidden after activation).

    l starts at one (section 3.3). span (first, last): the outputs of a fused projection that l covers, say its keys
    and values; None is all. At strength a, l becomes 1 + a (l − 1). No weight decay.
    Usual sites: key and value projections by their output, the feed-forward's last layer by its input.
    """

    weight_decay = False

    def __init__(self, host: nn.Module, *, form: str = "output", span: tuple[int, int] | None = None):
        super().__init__()
        if form not in ("output", "input"):
            raise DeltaError(f"IA3: form is 'output' or 'input', not {form!r}")
        if form == "input" and isinstance(host, nn.Embedding):
            raise DeltaError("IA3: an Embedding's input are ids; scale its output")
        width = features(host).out if form == "output" else features(host).into
        first, last = (0, width) if span is None else span
        if not 0 <= first < last <= width:
            raise DeltaError(f"IA3: span {span} does not lie in the host's {width} features")
        self.form, self.span, self.width = form, None if span is None else (first, last), width
        self.l = nn.Parameter(torch.ones(last - first, dtype=delta_dtype(host), device=device_of(host)))

    @classmethod
    def usual(cls, model: nn.Module, hparams: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        vectors: list[tuple[str, dict[str, Any]]] = []
        for block in blocks(model):
            vectors += [(p, {"form": "output"} | ({"span": s} if s else {})) for p, _, s in key_value(block)]
            outs = [p for p, m in block.feed_forward if features(m).out == block.width]
            vectors += [(p, {"form": "input"}) for p in outs[-1:]]
        return vectors

    def less_one(self, strength: float) -> Tensor:
        """a (l − 1), (width,)."""
        l = strength * (self.l - 1)
        if self.span is not None:
            l = F.pad(l, (self.span[0], self.width - self.span[1]))
        return l

    def forward(self, base: Callable[..., Any], x: Tensor, *args: Any, strength: float = 1.0, **kwargs: Any) -> Tensor:
        if self.form == "input":
            return base(rescaled(x, self.less_one(strength)), *args, **kwargs)
        h = base(x, *args, **kwargs)
        return rescaled(h, self.less_one(strength))

    def fold(self, at: Frozen, strength: float = 1.0) -> Frozen:
        l = 1 + self.less_one(strength).to(at.weight.dtype)
        if self.form == "input":
            return at._replace(weight=at.weight * l)
        return at._replace(weight=at.weight * l[:, None], bias=None if at.bias is None else at.bias * l)
