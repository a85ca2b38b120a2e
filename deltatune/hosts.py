"""What a host is: its sizes, its parameters and modules. Like `blocks`, it probes."""

from __future__ import annotations

import copy
import importlib
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from deltatune.core import DeltaError, DeltaModule
from deltatune.maps import CHILD, SWAP, children, linear_map, linear_of, original, weight_of

SIZES = (
    ("in_features", "out_features"),
    ("in_channels", "out_channels"),
    ("in1_features", "out_features"),
    ("num_embeddings", "embedding_dim"),
)
NORMS: dict[type[nn.Module], int] = {
    nn.LayerNorm: -1,
    nn.RMSNorm: -1,
    nn.GroupNorm: 1,
    nn.BatchNorm1d: 1,
    nn.BatchNorm2d: 1,
    nn.BatchNorm3d: 1,
    nn.SyncBatchNorm: 1,
    nn.InstanceNorm1d: -2,
    nn.InstanceNorm2d: -3,
    nn.InstanceNorm3d: -4,
}


WRAPPERS = {  # torch's classes that wrap a module, and what they call it
    "OptimizedModule": "_orig_mod",
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}


class Features(NamedTuple):
    """Sizes of a host's input and output vectors."""

    into: int
    out: int


class Axes(NamedTuple):
    """Where the channels lie in what a host takes and gives; from the end where the number of axes varies."""

    into: int
    out: int


Shape = tuple[int, ...]


class Heads(NamedTuple):
    """Key/value heads of an attention, the size of its keys, and that of its values."""

    heads: int
    key_size: int
    value_size: int


# What a run showed of modules (`structure`), where their attributes do not say it, or say otherwise.
learned: weakref.WeakKeyDictionary[nn.Module, tuple[Shape, Shape]] = weakref.WeakKeyDictionary()  # taken, given
learned_heads: weakref.WeakKeyDictionary[nn.Module, Heads] = weakref.WeakKeyDictionary()


EXTENSIONS = {"transformers": "deltatune.hf"}  # loaded when a model of that package is met, never before


def extend(model: nn.Module) -> None:
    """Load what deltatune knows of the packages that this model's modules come from."""
    for package in {type(m).__module__.partition(".")[0] for m in model.modules()} & EXTENSIONS.keys():
        importlib.import_module(EXTENSIONS[package])


def stacks(module: nn.Module) -> dict[str, list[DeltaModule]]:
    """The deltas on a module by name, in the order of injection; none where it is no host."""
    return cast("Any", vars(module)["_modules"][CHILD])._modules if hasattr(type(module), SWAP) else {}


def channels(host: nn.Module) -> tuple[Features, Axes] | None:
    """Sizes and axes of the channels, as a run showed them: the last axis, or in feature maps one as long as a map."""
    own = list(host.parameters(recurse=False))
    a_norm = bool(own) and not children(host) and all(p.dim() == 1 for p in own)  # its weight says more
    if host not in learned or a_norm:
        return None
    into, out = learned[host]
    inner = [m for _, m in maps(host) if m is not host]
    if not any(isinstance(m, _ConvNd) for m in inner):
        return Features(into[-1], out[-1]), Axes(-1, -1)
    sizes = Features(features(inner[0]).into, features(inner[-1]).out)
    sides = []
    for shape, size in ((into, sizes.into), (out, sizes.out)):
        fitting = {axis for axis in (-1, 1 - len(shape)) if len(shape) > 1 and shape[axis] == size}
        if len(fitting) != 1:
            return None
        sides += fitting
    return sizes, Axes(*sides)


def features(host: nn.Module) -> Features:
    """Input and output sizes of a host. A container's are those of its first and its last linear map.

    Raises DeltaError where they cannot be told.
    """
    known = linear_map(host)
    if known is not None:
        weight = known.turn(host, cast(Tensor, weight_of(host)))
        return Features(weight.shape[1] * cast(int, getattr(host, "groups", 1)), weight.shape[0])
    for into, out in SIZES:
        first, last = getattr(host, into, None), getattr(host, out, None)
        if isinstance(first, int) and isinstance(last, int):
            return Features(first, last)
    if isinstance(host, nn.MultiheadAttention):
        return Features(host.embed_dim, host.embed_dim)
    if isinstance(host, nn.RNNBase):
        return Features(host.input_size, (host.proj_size or host.hidden_size) * (1 + host.bidirectional))
    shape = getattr(host, "normalized_shape", None)
    if isinstance(shape, tuple):
        return Features(shape[-1], shape[-1])
    if (seen := channels(host)) is not None:
        return seen[0]
    inner = [m for _, m in maps(host)]
    if inner:
        return Features(features(inner[0]).into, features(inner[-1]).out)
    weights = [p for p in host.parameters(recurse=False) if p.dim() == 1]
    if weights and len({len(w) for w in weights}) == 1:  # norms of any library: one vector per channel
        return Features(len(weights[0]), len(weights[0]))
    raise DeltaError(f"{original(host).__name__} has no sizes to read; choose a linear layer or a norm as the host")


def axes(host: nn.Module) -> Axes:
    """The channels' axes: the last one, but for convolutions and the norms of feature maps.

    Raises DeltaError where they cannot be told.
    """
    known = linear_map(host)
    if known is not None:
        return Axes(known.axis, known.axis)
    if isinstance(host, _ConvNd):
        return Axes(-1 - len(host.kernel_size), -1 - len(host.kernel_size))
    cls = original(host)
    if isinstance(shape := getattr(host, "normalized_shape", None), tuple) and len(shape) > 1:
        raise DeltaError(f"{cls.__name__} normalises over {len(shape)} axes, so no one of them holds the channels")
    for base, axis in NORMS.items():
        if issubclass(cls, base) and cls.forward is base.forward:
            return Axes(axis, axis)
    weights = list(host.parameters(recurse=False))
    if weights and not children(host) and {p.shape for p in weights} == {weights[0].shape[:1]}:
        axis = probed_axis(host, weights[0])
        return Axes(axis, axis)
    if (seen := channels(host)) is not None:
        return seen[1]
    inner = [m for _, m in maps(host) if m is not host]
    return Axes(axes(inner[0]).into, axes(inner[-1]).out) if inner else Axes(-1, -1)


def probed_axis(host: nn.Module, weight: Tensor) -> int:
    """The axis at which a norm of any library takes its C channels, told from the inputs that a copy of it accepts."""
    size, taken = len(weight), []
    trial, forward = copy.deepcopy(host).eval(), original(host).forward
    rows, first, second = [n for n in (2, 3, 5, 7) if n != size][:3]
    for shape, axis in (((rows, first, size), -1), ((rows, size, first, second), -3), ((rows, size, first), -2)):
        with suppress(Exception), torch.no_grad():  # a stranger's forward may refuse a shape by any error
            y = forward(trial, torch.ones(shape, dtype=weight.dtype, device=weight.device))
            taken += [axis] if isinstance(y, Tensor) and y.shape == shape else []
    if taken == [-3, -2]:  # the second axis, whatever follows
        return 1
    if len(taken) != 1:
        raise DeltaError(f"{original(host).__name__} does not show which axis holds its channels; choose another host")
    return taken[0]


def own_parameters(host: nn.Module, besides: Iterable[str] = ()) -> dict[str, nn.Parameter | None]:
    """The parameters that the host's forward reads itself, by name; nn.MultiheadAttention reads its out_proj's.

    besides: names of more, of modules inside it.
    """
    own = dict(host._parameters)
    if isinstance(host, nn.MultiheadAttention):
        own |= {f"out_proj.{n}": p for n, p in host.out_proj._parameters.items()}
    return own | {n: parameter_at(host, n) for n in besides if n not in own}


def parameter_at(host: nn.Module, name: str) -> nn.Parameter:
    """A parameter at or below a host that deltas read. Raises DeltaError where it is none any more."""
    try:
        return host.get_parameter(name)
    except AttributeError:
        raise gone(name) from None


def gone(name: str) -> DeltaError:
    return DeltaError(
        f"the host has no parameter {name} any more, which a delta was made for: it was pruned, reparametrised or "
        "taken out after the injection; undo that, or eject before it and inject after it"
    )


def paired(own: dict[str, Any], delta: nn.Module) -> list[tuple[str, Tensor, nn.Parameter]]:
    """(name, tensor, the delta's parameter of that name, "." as "_") of the own parameters that the delta covers.

    Raises DeltaError where the host has one of them no more.
    """
    found = [(n, p, delta._parameters.get(n.replace(".", "_"))) for n, p in own.items() if p is not None]
    pairs = [(n, p, mine) for n, p, mine in found if mine is not None]
    if len(pairs) < len(delta._parameters):
        there = {n.replace(".", "_") for n, _, _ in pairs}
        raise gone(next(n for n in delta._parameters if n not in there))
    return pairs


def device_of(host: nn.Module) -> torch.device:
    """Where the host's parameters are (the CPU if it has none)."""
    return next((p.device for p in host.parameters()), torch.device("cpu"))


def delta_dtype(host: nn.Module) -> torch.dtype:
    """Deltas are fp32 on any base, so that small updates are not rounded away; fp64 on an fp64 base."""
    return torch.float64 if any(p.dtype is torch.float64 for p in host.parameters()) else torch.float32


def modules(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """(path, module) of the model itself, never of deltas in it; each module once.

    What a wrapper of torch's wraps (`WRAPPERS`) has the wrapper's path, and the wrapper none: a compiled or a
    distributed model, or one with such parts, has the names of the bare one.
    """
    seen: set[int] = set()
    waiting = [(prefix, model)]  # not recursive: a value yielded through every level of a model takes twice the time
    while waiting:
        path, module = waiting.pop()
        if id(module) in seen or isinstance(module, DeltaModule):
            continue
        seen.add(id(module))
        if type(module).__name__ in WRAPPERS and (inside := wrapped(module)):
            waiting.append((path, inside))
            continue
        yield path, module
        hidden = CHILD if hasattr(type(module), SWAP) else None
        below = [(name, child) for name, child in module._modules.items() if child is not None and name != hidden]
        waiting += [(f"{path}.{name}" if path else name, child) for name, child in reversed(below)]


def wrapped(module: nn.Module) -> nn.Module | None:
    """What a wrapper of torch's wraps; None where the module is no wrapper."""
    child = WRAPPERS.get(type(module).__name__)
    return module._modules.get(child) if child and type(module).__module__.startswith("torch.") else None


def is_linear(module: nn.Module) -> bool:
    """A linear layer of any kind, quantised ones included; an Embedding is not one."""
    known = linear_map(module)
    if known is not None:
        return known.op is linear_of
    sizes = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return all(isinstance(s, int) for s in sizes) and not children(module)


def is_map(module: nn.Module) -> bool:
    """A linear layer or a convolution: what multiplies its input by a weight."""
    return is_linear(module) or isinstance(module, _ConvNd)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside what torch.compile and torch's parallel wrappers put around it; its paths are the same."""
    while (inside := wrapped(model)) is not None:
        model = inside
    return model


def linears(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """The linear layers at and below a module that its forward calls."""
    return [(p, m) for p, m in maps(module, prefix) if is_linear(m)]


def maps(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """The linear layers and convolutions at and below a module that its forward calls."""
    skipped = {id(m.out_proj) for _, m in modules(module) if isinstance(m, nn.MultiheadAttention)}
    return [(p, m) for p, m in modules(module, prefix) if id(m) not in skipped and is_map(m)]


def unreachable(model: nn.Module) -> dict[str, str]:
    """Modules whose forward is never called though they look like layers: path -> why."""
    return {
        f"{p}.out_proj" if p else "out_proj": "nn.MultiheadAttention reads out_proj.weight and never calls the module"
        for p, m in modules(model)
        if isinstance(m, nn.MultiheadAttention)
    }
