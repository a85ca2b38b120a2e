"""IA3: Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from deltatune.blocks import blocks
from deltatune.core import DeltaError, DeltaModule, Frozen
from deltatune.functional import along, rescaled
from deltatune.hosts import axes, delta_dtype, device_of, features, modules, own_parameters
from deltatune.matrices import experts, layout
from deltatune.sites import hidden_readers, keys_and_values


class IA3(DeltaModule):
    """form "output": l ⊙ h (keys, values); form "input": W (l ⊙ x) (the feed-forward's hidden after activation).

    l starts at one (section 3.3), one for each channel. span (first, last): the outputs of a fused projection that l
    covers, say its keys and values; (first, last, period): those of every period, as where queries, keys and values lie
    head by head; None is all. At strength a, l becomes 1 + a (l − 1). No weight decay.
    parameter: the name of a matrix that the host reads in its own forward; it becomes l ⊙ W by rows, with its bias, or
    by columns. A stack of E matrices (fused experts) has an l for each, or one for all with shared.
    Usual sites: key and value projections by their output, the feed-forward's last layer by its input, experts' too.
    """

    weight_decay = False
    pairs = False

    def __init__(
        self,
        host: nn.Module,
        *,
        form: str = "output",
        span: tuple[int, ...] | None = None,
        parameter: str | None = None,
        shared: bool = False,
    ):
        super().__init__()
        if form not in ("output", "input"):
            raise DeltaError(f"IA3: form is 'output' or 'input', not {form!r}")
        if form == "input" and isinstance(host, nn.Embedding):
            raise DeltaError("IA3: an Embedding's input are ids; scale its output")
        if parameter is not None and isinstance(host, _ConvTransposeNd):
            raise DeltaError("IA3: a transposed convolution is scaled by channel; name the module, not its weight")
        self.layout = None if parameter is None else layout(host, parameter)
        self.parameter, self.shared, stack = parameter, shared, ()
        if self.layout is not None:
            self.site, self.bias = "parameters", bias_beside(host, parameter)
            *stack, out, into = self.layout.matrices(torch.empty(self.layout.shape, device="meta")).shape
        else:
            (into, out), (first_axis, last_axis) = features(host), axes(host)
            self.axis = last_axis if form == "output" else first_axis
        width = out if form == "output" else into
        if span is not None and len(span) not in (2, 3):
            raise DeltaError(f"IA3: span is (first, last) or (first, last, period), not {span}")
        first, last, period = (*((0, width) if span is None else span), width)[:3]
        if not 0 <= first < last <= period or width % period:
            raise DeltaError(f"IA3: span {span} does not lie in the host's {width} features")
        self.form, self.span, self.width = form, None if span is None else tuple(span), width
        size = [] if shared else stack
        self.l = nn.Parameter(
            torch.ones(*size, width // period * (last - first), dtype=delta_dtype(host), device=device_of(host))
        )

    @classmethod
    def at(cls, parameter: str) -> dict[str, Any]:
        return {"parameter": parameter}

    @classmethod
    def parts(cls, host: nn.Module) -> list[dict[str, Any]]:
        return [cls.at(name) for name in experts(host)] or [{}]

    @classmethod
    def usual(cls, model: nn.Module, hparams: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        vectors = [(p, {"form": "output"} | ({"span": s} if s else {})) for p, s in keys_and_values(model)]
        vectors += [(p, {"form": "input"}) for p in hidden_readers(model)]
        for block in blocks(model):
            for path, module in modules(block.module, block.path):
                vectors += [(path, {"form": "input", "parameter": name}) for name in experts(module)[-1:]]
        return vectors

    def reads(self) -> tuple[str, ...]:
        return () if self.parameter is None else (self.parameter,)

    def less_one(self, strength: float) -> Tensor:
        """a (l − 1), (width,)."""
        l = strength * (self.l - 1)
        if self.span is not None:
            first, last, period = (*self.span, self.width)[:3]
            l = F.pad(l.view(*l.shape[:-1], -1, last - first), (first, period - last)).flatten(-2)
        return l

    def forward(self, base: Callable[..., Any], *args: Any, strength: float = 1.0, **kwargs: Any) -> Any:
        if self.layout is not None:
            return self.changed(base(), strength)
        x, *rest = args
        if self.form == "input":
            return base(rescaled(x, self.less_one(strength), self.axis), *rest, **kwargs)
        h = base(*args, **kwargs)
        return rescaled(h, self.less_one(strength), self.axis)

    def changed(self, own: dict[str, Any], strength: float) -> dict[str, Any]:
        """The host's parameters with the matrix rescaled, and its bias where that is part of the output."""
        assert self.layout is not None and self.parameter is not None
        l = self.less_one(strength)
        W = self.layout.matrices(own[self.parameter])
        W = torch.addcmul(W, W, (l[..., None] if self.form == "output" else l[..., None, :]).to(W.dtype))
        own[self.parameter] = self.layout.parameter(W)
        if self.form == "output" and self.bias is not None:
            own[self.bias] = own[self.bias] + own[self.bias] * l.to(W.dtype)
        return own

    def fold(self, at: Frozen, strength: float = 1.0) -> Frozen:
        l = 1 + self.less_one(strength).to(at.weight.dtype)
        if self.form == "input":
            columns, *kernel = at.weight.shape[1:]
            by_group = l.view(-1, 1, columns, *[1] * len(kernel))  # a convolution's inputs lie in groups
            return at._replace(weight=(at.weight.unflatten(0, (len(by_group), -1)) * by_group).flatten(0, 1))
        weight = at.weight * along(l, at.weight, 0)
        return at._replace(weight=weight, bias=None if at.bias is None else at.bias * l)


def bias_beside(host: nn.Module, parameter: str | None) -> str | None:
    """The name of the bias that a host adds to the product with a matrix of its own, told from their names."""
    names = [n for n, p in own_parameters(host).items() if p is not None]
    candidates = (f"{parameter}_bias", str(parameter).replace("weight", "bias"))
    return next((n for n in candidates if n in names and n != parameter), None)
