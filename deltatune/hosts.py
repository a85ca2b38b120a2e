"""What a host is: its linear map, its sizes, its parameters and modules. Like `blocks`, it probes.

Known linear maps are read by type (`MAPS`); a packed or wrapped weight is never taken for one.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltatune.core import DeltaError, DeltaModule, Frozen, Opaque, Stacked


class Features(NamedTuple):
    """Sizes of a host's input and output vectors."""

    into: int
    out: int


class Swap(NamedTuple):
    """What a swapped class remembers of the one it was made from: the class, and the name of forward's first input."""

    original: type[nn.Module]
    first_input: str


class Map(NamedTuple):
    """How a host type holds its linear map: the forward it must still have, and weight (N, K) from its parameter."""

    forward: Callable[..., Any]
    transposed: bool
    op: Callable[[Tensor, Tensor, Tensor | None], Tensor]


def look_up(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Embedding as a linear map of one-hot rows: weight (N, V), x (...) of ids -> (..., N)."""
    h = F.embedding(x, weight.T)
    return h if bias is None else h + bias


MAPS: dict[type[nn.Module], Map] = {
    nn.Linear: Map(nn.Linear.forward, False, F.linear),
    nn.Embedding: Map(nn.Embedding.forward, True, look_up),
}
CHILD, SWAP = "_deltas", "_delta_swap"  # the names that a swap adds: a child of the host, an attribute of its class
EXTENSIONS = {"transformers": "deltatune.hf"}  # loaded when a model of that package is met, never before


def extend(model: nn.Module) -> None:
    """Load what deltatune knows of the packages that this model's modules come from."""
    for package in {type(m).__module__.partition(".")[0] for m in model.modules()} & EXTENSIONS.keys():
        importlib.import_module(EXTENSIONS[package])


def original(module: nn.Module) -> type[nn.Module]:
    """The module's class without deltatune's subclass."""
    swap = getattr(type(module), SWAP, None)
    return type(module) if swap is None else swap.original


def stacks(module: nn.Module) -> dict[str, list[DeltaModule]]:
    """The deltas on a module by name, in the order of injection; none where it is no host."""
    return cast("Any", module._modules[CHILD])._modules if hasattr(type(module), SWAP) else {}


def plain(p: Tensor) -> bool:
    """Whether a parameter's numbers are its values: neither codes in integers nor a quantiser's tensor subclass."""
    return type(p) is nn.Parameter and p.is_floating_point()


def linear_map(host: nn.Module) -> Map | None:
    """The known linear map of a host, or None: subclasses that compute otherwise and packed weights are not one."""
    cls = original(host)
    known = next((m for base, m in MAPS.items() if issubclass(cls, base) and cls.forward is m.forward), None)
    weight = host.__dict__.get("_parameters", {}).get("weight")
    if known is None or weight is None or not plain(weight):
        return None
    if weight.dim() != 2 or getattr(host, "max_norm", None) is not None:
        return None
    return known


def frozen(host: nn.Module, parameters: dict[str, Any]) -> Frozen | None:
    """The host's linear map over the given parameters (its own or changed ones), or None."""
    known = linear_map(host)
    if known is None:
        return None
    weight = parameters["weight"]
    return Frozen(weight.T if known.transposed else weight, parameters.get("bias"), known.op)


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
    return {"weight": at.weight.T if known.transposed else at.weight, "bias": at.bias}


def features(host: nn.Module) -> Features:
    """Input and output sizes of a host. A container's are those of its first and its last linear map.

    Raises DeltaError where they cannot be told.
    """
    known = linear_map(host)
    if known is not None:
        n, k = host._parameters["weight"].shape  # type: ignore[union-attr]
        return Features(n, k) if known.transposed else Features(k, n)
    into, out = getattr(host, "in_features", None), getattr(host, "out_features", None)
    if isinstance(into, int) and isinstance(out, int):
        return Features(into, out)
    shape = getattr(host, "normalized_shape", None)
    if isinstance(shape, tuple):
        return Features(shape[-1], shape[-1])
    if isinstance(host, nn.MultiheadAttention):
        return Features(host.embed_dim, host.embed_dim)
    inner = [m for _, m in linears(host)]
    if inner:
        return Features(features(inner[0]).into, features(inner[-1]).out)
    weights = [p for p in host.parameters(recurse=False) if p.dim() == 1]
    if weights and len({len(w) for w in weights}) == 1:  # norms of any library: one vector per channel
        return Features(len(weights[0]), len(weights[0]))
    raise DeltaError(f"{original(host).__name__} has no sizes to read; choose a linear layer or a norm as the host")


def own_parameters(host: nn.Module) -> dict[str, nn.Parameter | None]:
    """The parameters that the host's forward reads itself, by name; nn.MultiheadAttention reads its out_proj's."""
    own = dict(host._parameters)
    if isinstance(host, nn.MultiheadAttention):
        own |= {f"out_proj.{n}": p for n, p in host.out_proj._parameters.items()}
    return own


def paired(own: dict[str, Any], delta: nn.Module) -> list[tuple[str, Tensor, nn.Parameter]]:
    """(name, tensor, the delta's parameter of that name, "." as "_") of the own parameters that the delta covers."""
    mine = {n: delta._parameters.get(n.replace(".", "_")) for n in own}
    return [(n, own[n], p) for n, p in mine.items() if p is not None]


def device_of(host: nn.Module) -> torch.device:
    """Where the host's parameters are (the CPU if it has none)."""
    return next((p.device for p in host.parameters()), torch.device("cpu"))


def delta_dtype(host: nn.Module) -> torch.dtype:
    """Deltas are fp32 on any base, so that small updates are not rounded away; fp64 on an fp64 base."""
    return torch.float64 if any(p.dtype is torch.float64 for p in host.parameters()) else torch.float32


def modules(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """(path, module) of the model itself, never of deltas in it; each module once."""
    seen: set[int] = set()
    waiting = [(prefix, model)]  # not recursive: a value yielded through every level of a model takes twice the time
    while waiting:
        path, module = waiting.pop()
        if id(module) in seen or isinstance(module, DeltaModule):
            continue
        seen.add(id(module))
        yield path, module
        hidden = CHILD if hasattr(type(module), SWAP) else None
        below = [(name, child) for name, child in module._modules.items() if child is not None and name != hidden]
        waiting += [(f"{path}.{name}" if path else name, child) for name, child in reversed(below)]


def is_linear(module: nn.Module) -> bool:
    """A linear layer of any kind, quantised ones included; an Embedding is not one."""
    known = linear_map(module)
    if known is not None:
        return known.op is F.linear
    sizes = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return all(isinstance(s, int) for s in sizes) and not list(module.named_children())


def linears(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """The linear layers at and below a module that its forward calls."""
    skipped = {id(m.out_proj) for _, m in modules(module) if isinstance(m, nn.MultiheadAttention)}
    return [(p, m) for p, m in modules(module, prefix) if is_linear(m) and id(m) not in skipped]


def unreachable(model: nn.Module) -> dict[str, str]:
    """Modules whose forward is never called though they look like layers: path -> why."""
    return {
        f"{p}.out_proj" if p else "out_proj": "nn.MultiheadAttention reads out_proj.weight and never calls the module"
        for p, m in modules(model)
        if isinstance(m, nn.MultiheadAttention)
    }
