"""What linear map a host holds, as a term: `frozen` reads it, `stored` gives parameters back.

Maps are known by type (`MAPS`); a packed or wrapped weight is never taken for one. A subclass with a forward of its
own is one if a probe shows that it computes the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from deltatune.convolution import Convolution, turned
from deltatune.core import DeltaModule, Frozen, Opaque, Stacked


class Map(NamedTuple):
    """How a host type holds its linear map.

    methods: names of what a subclass must not override. turn: (host, weight) from the parameter to W (N, ...), and
    back. op: of a host. axis: of the channels in what it gives.
    """

    methods: tuple[str, ...]
    turn: Callable[[nn.Module, Tensor], Tensor]
    op: Callable[[nn.Module], Callable[..., Tensor]]
    axis: int = -1


def look_up(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: int | None = None, by_frequency: bool = False
) -> Tensor:
    """Embedding as a linear map of one-hot rows: weight (N, V), x (...) of ids -> (..., N). No gradient for padding."""
    h = F.embedding(x, weight.T, padding, scale_grad_by_freq=by_frequency)
    return h if bias is None else h + bias


def look_up_of(host: nn.Module) -> Callable[..., Tensor]:
    assert isinstance(host, nn.Embedding)
    if host.padding_idx is None and not host.scale_grad_by_freq:
        return look_up
    return functools.partial(look_up, padding=host.padding_idx, by_frequency=host.scale_grad_by_freq)


def linear_of(host: nn.Module) -> Callable[..., Tensor]:
    return F.linear


def as_it_is(host: nn.Module, weight: Tensor) -> Tensor:
    return weight


def transposed(host: nn.Module, weight: Tensor) -> Tensor:
    return weight.T


def turned_in_groups(host: nn.Module, weight: Tensor) -> Tensor:
    return turned(weight, cast(Any, host).groups)


CONVOLVED, FORWARD = ("forward", "_conv_forward"), ("forward",)
MAPS: dict[type[nn.Module], Map] = {
    nn.Linear: Map(FORWARD, as_it_is, linear_of),
    nn.Embedding: Map(FORWARD, transposed, look_up_of),
    nn.Conv1d: Map(CONVOLVED, as_it_is, Convolution.of, -2),
    nn.Conv2d: Map(CONVOLVED, as_it_is, Convolution.of, -3),
    nn.Conv3d: Map(CONVOLVED, as_it_is, Convolution.of, -4),
    nn.ConvTranspose1d: Map(FORWARD, turned_in_groups, Convolution.of, -2),
    nn.ConvTranspose2d: Map(FORWARD, turned_in_groups, Convolution.of, -3),
    nn.ConvTranspose3d: Map(FORWARD, turned_in_groups, Convolution.of, -4),
}


CHILD, SWAP = "_deltas", "_delta_swap"  # the names that a swap adds: a child of the host, an attribute of its class


class Swap(NamedTuple):
    """What a swapped class remembers of the one it was made from: the class, and the name of forward's first input."""

    original: type[nn.Module]
    first_input: str


def original(module: nn.Module) -> type[nn.Module]:
    """The module's class without deltatune's subclass."""
    swap = getattr(type(module), SWAP, None)
    return swap.original if isinstance(swap, Swap) else type(module)


def plain(p: Tensor) -> bool:
    """Whether a parameter's numbers are its values: neither codes in integers nor a quantiser's tensor subclass."""
    return type(p) is nn.Parameter and p.is_floating_point()


def children(module: nn.Module) -> list[nn.Module]:
    """The module's own children, without the deltas that stand on it."""
    return [child for name, child in module._modules.items() if child is not None and name != CHILD]


def weight_of(host: nn.Module) -> Tensor | None:
    """The host's weight: its parameter, or what a reparametrisation (weight norm, pruning, …) computes in its place."""
    parameters = host.__dict__.get("_parameters", {})
    if parameters.get("weight") is not None:
        return parameters["weight"]
    return reparametrised(host) if is_parametrized(host, "weight") else host.__dict__.get("weight")


def reparametrised(host: nn.Module) -> Tensor:
    """The weight that a reparametrisation computes, as in eval: spectral norm would improve its estimate, a buffer of
    the base, each time that the weight is looked at."""
    training = [m for m in host.parametrizations["weight"].modules() if m.training]  # type: ignore[index]
    for module in training:
        module.training = False
    try:
        return cast(Tensor, host.weight)
    finally:
        for module in training:
            module.training = True


def map_of(cls: type[nn.Module]) -> tuple[Map, bool] | None:
    """The linear map of a class or of the one that it derives from, and whether it overrides nothing of it."""
    for base in cls.__mro__:
        if base in MAPS:
            known = MAPS[base]
            return known, all(getattr(cls, name) is getattr(base, name) for name in known.methods)
    return None


def linear_map(host: nn.Module) -> Map | None:
    """The known linear map of a host, or None: subclasses that compute otherwise and packed weights are not one."""
    weight = weight_of(host)
    if weight is None or type(weight) not in (nn.Parameter, Tensor) or not weight.is_floating_point():
        return None
    known = map_of(cls := original(host))
    if known is None and weight.shape == (getattr(host, "out_features", None), getattr(host, "in_features", None)):
        known = MAPS[nn.Linear], False  # a linear layer of another library, if it computes as one
    if known is None or getattr(host, "max_norm", None) is not None:
        return None
    return known[0] if known[1] or computes(host, cls, known[0]) else None


PROBED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def computes(host: nn.Module, cls: type[nn.Module], known: Map) -> bool:
    """Whether a linear layer with a forward of its own computes x Wᵀ + b all the same; tried once, on two rows.

    Not tried where that could leave a trace or say little: in layers with buffers, children, hooks of their own.
    """
    if known.op is not linear_of or host._buffers or children(host):
        return False
    if host not in PROBED:
        W, b = cast(Tensor, weight_of(host)), host._parameters.get("bias")
        x = torch.linspace(-1, 1, 2 * W.shape[1], dtype=torch.float64).sin().view(2, -1).to(W)
        try:
            with torch.no_grad():
                y = cls.forward(host, x)
                PROBED[host] = isinstance(y, Tensor) and y.shape == (2, len(W)) and close(y, F.linear(x, W, b))
        except Exception:  # whatever a stranger's forward raises on a plain input, it is no plain linear map
            PROBED[host] = False
    return PROBED[host]


def close(y: Tensor, want: Tensor) -> bool:
    """Equal but for the order of a sum."""
    return bool((y - want).abs().max() <= 16 * torch.finfo(want.dtype).eps * want.shape[-1] ** 0.5 * want.abs().max())


def frozen(host: nn.Module, parameters: dict[str, Any]) -> Frozen | None:
    """The host's linear map over the given parameters (its own or changed ones), or None."""
    known = linear_map(host)
    if known is None:
        return None
    weight: Any = parameters.get("weight")
    weight = weight_of(host) if weight is None else weight
    return Frozen(known.turn(host, weight), parameters.get("bias"), known.op(host))


def term(base: Any) -> Frozen | Opaque | Stacked:
    """Any base as a term: terms as they are, modules read, `partial(delta, base)` as the stack that it is."""
    if isinstance(base, (Frozen, Opaque, Stacked)):
        return base
    if isinstance(base, functools.partial) and isinstance(base.func, DeltaModule) and len(base.args) == 1:
        return Stacked(base.func, term(base.args[0]), **base.keywords)
    linear = frozen(base, dict(base._parameters)) if isinstance(base, nn.Module) else None
    return Opaque(base) if linear is None else linear


def stored(host: nn.Module, at: Frozen) -> dict[str, Tensor | None]:
    """The inverse of `frozen`: parameters as the host keeps them."""
    known = linear_map(host)
    assert known is not None
    return {"weight": known.turn(host, at.weight), "bias": at.bias}
