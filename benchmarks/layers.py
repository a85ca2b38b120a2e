"""A layer as a timed case: forward, backward, both; its error against fp64, its bytes.

Legend: x (M, K), y and dY (M, N).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.memory import call_peak_bytes, saved_for_backward
from benchmarks.providers import Layer
from benchmarks.timing import Timed, attempt


def timed_layer(
    layer: Layer | str, op: str, x: Tensor, dY: Tensor, *, flops: float | None = None, moved_bytes: float | None = None,
    exact: Sequence[Tensor] | None = None,
) -> Timed | str:  # fmt: skip
    """The layer's `op` on x, its input's gradient included where x requires one. exact: `results` in fp64, or None.

    Forward records for the backward, as in training; a backward alone gets a fresh graph before each call.
    """
    if isinstance(layer, str):
        return layer
    wanted = [*([x] if x.requires_grad else []), *layer.trained]
    graph: dict[str, Tensor] = {}

    def record() -> None:
        graph["y"] = layer.forward(x)

    def backward() -> None:
        torch.autograd.grad(graph.pop("y"), wanted, dY)

    def both() -> None:
        y = layer.forward(x)
        if wanted:
            torch.autograd.grad(y, wanted, dY)

    if op == "fwd":
        timed = Timed(lambda: layer.forward(x))
    elif op == "both":
        timed = Timed(both)
        both()
        timed.peak_bytes = call_peak_bytes(both, x.device)
    elif not wanted:
        return "absent: nothing to differentiate"
    else:
        timed = Timed(backward, before=record)
    if wanted:
        timed.saved_bytes = saved_for_backward(lambda: layer.forward(x), layer.weights)
    timed.flops, timed.moved_bytes = flops, moved_bytes
    if exact is not None:
        timed.rel_error = max(relative_error(a, e) for a, e in zip(results(layer, x, dY), exact))
    return timed


def results(layer: Layer, x: Tensor, dY: Tensor) -> list[Tensor]:
    """y, then dX where wanted, then the trained parameters' gradients."""
    y = layer.forward(x)
    wanted = [*([x] if x.requires_grad else []), *layer.trained]
    return [y.detach(), *(torch.autograd.grad(y, wanted, dY) if wanted else ())]


def relative_error(a: Tensor, exact: Tensor) -> float:
    """‖a − exact‖ / ‖exact‖, Frobenius."""
    return float((a.double() - exact).norm() / exact.norm())


def exact_results(
    forward: Callable[..., Tensor], x: Tensor, dY: Tensor, W: Tensor, trained: Sequence[Tensor]
) -> list[Tensor]:
    """`results` of forward(x, W, *trained) in fp64, from the values as the providers get them."""
    wide = [t.detach().double().requires_grad_() for t in trained]
    x64 = x.detach().double().requires_grad_(x.requires_grad)
    layer = Layer(lambda x: forward(x, W.double(), *wide), [*wide])
    return results(layer, x64, dY.double())


def draw(seed: int, device: torch.device, dtype: torch.dtype, *shape: int, scale: float = 1.0) -> Tensor:
    """Normal values of a seed, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * scale).to(device, dtype)


def timed_layers(layers: Mapping[str, Layer | str], *args: Any, **kwargs: Any) -> dict[str, Timed | str]:
    """`timed_layer` of each; without an error for "full" and "frozen", which compute something else."""
    made = {}
    for name, layer in layers.items():
        mine = dict(kwargs)
        if name in ("full", "frozen"):
            mine["exact"] = None
        for key in ("flops", "moved_bytes"):  # a function of the provider, or one number for all
            if callable(mine.get(key)):
                mine[key] = mine[key](name)
        made[name] = attempt(partial(timed_layer, layer, *args, **mine))
    return made
