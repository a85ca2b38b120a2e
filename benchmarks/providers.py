"""One linear layer by every provider, with equal weights and factors: what the layer benchmarks time.

Legend: x (M, K), W (N, K) frozen, A (R, K), B (N, R), s = alpha / R. alpha = 2R throughout.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deltatune as dt
from deltatune import kernels  # type: ignore[attr-defined]  # kernels/fused
from deltatune.functional import LoRALayer, lora_linears, path
from deltatune.host import deltas

SCALE = 2.0  # alpha / R
NO_PEFT = "absent: peft is not installed (pip install -e '.[bench]')"


@dataclass
class Layer:
    """A provider's layer: its forward and what it trains; weights: what it holds anyway, counted by nobody."""

    forward: Callable[[Tensor], Tensor]
    trained: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)


@contextmanager
def kernels_off() -> Iterator[None]:
    """The plain path inside: DELTATUNE_KERNELS is read at every call."""
    before = os.environ.get("DELTATUNE_KERNELS")
    os.environ["DELTATUNE_KERNELS"] = "off"
    try:
        yield
    finally:
        os.environ.pop("DELTATUNE_KERNELS")
        if before is not None:
            os.environ["DELTATUNE_KERNELS"] = before


def plainly(call: Callable[..., Any]) -> Callable[..., Any]:
    def off(*args: Any, **kwargs: Any) -> Any:
        with kernels_off():
            return call(*args, **kwargs)

    return off


def lora_layers(
    W: Tensor, A: Tensor, B: Tensor, p: float, *, compiled: bool, dora: bool = False
) -> dict[str, Layer | str]:
    """The providers of a LoRA (or DoRA) layer. Each has its own copy of W, as in a model, so that none warms it
    for the next. A and B in fp32."""
    low = W.dtype != torch.float32
    made: dict[str, Layer | str] = {"frozen": plain_layer(W, trained=False), "full": plain_layer(W, trained=True)}
    made["peft"] = peft_layer(W, A, B, p, dora=dora)
    if low:
        made["peft matched"] = peft_layer(W, A, B, p, dora=dora, widen=False)
    if not compiled:
        made["peft compiled"] = "absent: timed with --compile alone"
    else:
        made["peft compiled"] = compiled_layer(peft_layer(W, A, B, p, dora=dora))
    made["ours"] = ours = our_layer(W, A, B, p, dora=dora)
    made["ours plain"] = Layer(plainly(ours.forward), ours.trained, ours.weights)
    if dora:
        return made
    for way in ("triton", "addmm"):
        if not W.is_cuda:
            made[f"ours {way}"] = "absent: no CUDA device"
        elif not kernels.available(W.device):
            made[f"ours {way}"] = "absent: triton is not installed (pip install -e '.[kernels]')"
        else:
            made[f"ours {way}"] = kernel_layer(W, A, B, p, way)
    return made


def holder(W: Tensor) -> nn.Sequential:
    """A model of one frozen layer, "0", with a copy of W."""
    layer = nn.Linear(W.shape[1], W.shape[0], bias=False, device="meta").to_empty(device=W.device).to(W.dtype)
    layer.weight = nn.Parameter(W.clone(), requires_grad=False)
    return nn.Sequential(layer)


def only_delta(model: nn.Module) -> Any:
    ((_, _, _, delta),) = deltas(model)
    return delta


def plain_layer(W: Tensor, trained: bool) -> Layer:
    weight = W.clone().requires_grad_(trained)
    return Layer(lambda x: F.linear(x, weight), [weight] if trained else [], [weight])


def our_layer(W: Tensor, A: Tensor, B: Tensor, p: float, dora: bool = False) -> Layer:
    model, rank = holder(W), len(A)
    rule = (dt.DoRA if dora else dt.LoRA).on("0", rank=rank, alpha=SCALE * rank, dropout=p)
    dt.inject(model, rule)
    delta = only_delta(model)
    with torch.no_grad():
        delta.A.copy_(A)
        delta.B.copy_(B)
    model.train()
    trained: list[Tensor] = [delta.A, delta.B, *([delta.m] if dora else [])]
    return Layer(model[0], trained, [model[0].weight, *trained])  # type: ignore[list-item]


def peft_layer(W: Tensor, A: Tensor, B: Tensor, p: float, dora: bool = False, widen: bool = True) -> Layer | str:
    """PEFT's layer; widen: its default, adapters in fp32 whatever the base's dtype."""
    if find_spec("peft") is None:
        return NO_PEFT
    from peft import LoraConfig, get_peft_model

    rank = len(A)
    config = LoraConfig(
        r=rank, lora_alpha=int(SCALE * rank), lora_dropout=p, target_modules=["0"], bias="none", use_dora=dora
    )
    model = get_peft_model(holder(W), config, autocast_adapter_dtype=widen)  # type: ignore[arg-type]
    layer: Any = model.base_model.model[0]  # type: ignore[index,operator]
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(A)
        layer.lora_B["default"].weight.copy_(B)
    model.train()
    trained = [q for q in layer.parameters() if q.requires_grad]
    if dora:  # ours come in this order: A, B, m
        trained = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
        trained.append(layer.lora_magnitude_vector["default"].weight)
    return Layer(layer, trained, [layer.base_layer.weight, *trained])


def compiled_layer(layer: Layer | str) -> Layer | str:
    if isinstance(layer, str):
        return layer
    torch.compiler.reset()  # else the eighth shape would fall back to eager without a word
    return Layer(torch.compile(layer.forward), layer.trained, layer.weights)


def kernel_layer(W: Tensor, A: Tensor, B: Tensor, p: float, way: str) -> Layer:
    """The kernels themselves, on a given path of theirs."""
    weight, a, b = W.clone(), A.clone().requires_grad_(), B.clone().requires_grad_()
    call = partial(kernels.lora_linear, path=way)
    return Layer(lambda x: call(x, weight, None, a, b, SCALE, p), [a, b], [weight, a, b])


def stacked_layer(Ws: Sequence[Tensor], As: Sequence[Tensor], Bs: Sequence[Tensor], p: float) -> Layer:
    """Layers of one input that read it once, outputs side by side: what an injected model does with q, k and v."""
    weights = [W.clone() for W in Ws]
    trained = [t.clone().requires_grad_() for pair in zip(As, Bs) for t in pair]
    layers = [LoRALayer(W, None, A, B, SCALE) for W, A, B in zip(weights, trained[::2], trained[1::2])]

    def forward(x: Tensor) -> Tensor:
        return torch.cat(lora_linears(x, layers, p, path(x, *weights)), -1)

    return Layer(forward, trained, [*weights, *trained])


def routed_call(
    x: Tensor, W: Tensor, As: Sequence[Tensor], Bs: Sequence[Tensor], route: Sequence[int]
) -> Callable[[], Tensor] | str:
    """A batch x (B, T, K) with another adapter a row, all of them at once; on a CPU in plain torch."""
    if find_spec("triton") is None:
        return "absent: triton is not installed (pip install -e '.[kernels]')"
    index = torch.tensor(route, device=x.device).repeat_interleave(x.shape[1])
    return partial(kernels.lora_linear_routed, x, W, None, As, Bs, [SCALE] * len(As), index)
