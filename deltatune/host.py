"""The class swap: a host's class becomes a subclass of it whose forward runs the live deltas around the original.

Base parameters are never touched, renamed or moved, so nothing that reads them notices. Chosen over wrappers (they
break isinstance, `.weight` and state-dict keys), hooks (the base has already run) and parametrizations (they build
the changed weight).
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from deltatune.attention import SDPA
from deltatune.core import DeltaError, DeltaModule, NotReached, Opaque, Stacked
from deltatune.hosts import frozen, linear_map, modules, original, own_parameters

Live = list[tuple[DeltaModule, float]]
swapping = threading.RLock()  # held while parameters stand replaced: every thread runs the one module that holds them


class Intercept(TorchFunctionMode):
    """Hands the host's scaled_dot_product_attention to its attention deltas; held during the host's forward only."""

    def __init__(self, host: Host):
        super().__init__()
        self.host, self.reached = host, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is SDPA:
            if not torch.compiler.is_compiling():
                self.reached = True
            func = self.host.attention(func)
        return func(*args, **(kwargs or {}))


def around(call: Callable[..., Any], live: Live) -> Callable[..., Any]:
    """The stack of live deltas around a callable."""
    term: Any = call
    for delta, strength in live:
        term = Stacked(delta, term, strength)
    return term


class Host(nn.Module):
    """What the swapped class adds. deltas[name] is a list, one per rule; strengths[name] is 0 when switched off."""

    original_class: type[nn.Module]
    first_input: str  # the name of the forward's first parameter
    deltas: nn.ModuleDict
    strengths: dict[str, float]
    together: Any = None  # `together.Together`, where other hosts read the same tensor

    def live(self) -> dict[str, Live]:
        """The live deltas by site."""
        found: dict[str, Live] = {"module": [], "parameters": [], "attention": []}
        for name, stack in self.deltas.items():
            strength = self.strengths[name]
            if strength != 0:
                for delta in cast("list[DeltaModule]", stack):
                    found[delta.site].append((delta, strength))
        return found

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if 0 in self.strengths.values():
            for name, stack in self.deltas.items():
                for delta in cast("list[DeltaModule]", stack):
                    if self.strengths[name] == 0 and type(delta).inactive is not DeltaModule.inactive:
                        delta.inactive(*args, *kwargs.values())
        live = self.live()
        if not live["attention"]:
            return self.inner(live, super().forward, args, kwargs)
        with Intercept(self) as held:
            out = self.inner(live, super().forward, args, kwargs)
        if not torch.compiler.is_compiling() and not held.reached:
            raise NotReached(
                f"{self.original_class.__name__} attended without scaled_dot_product_attention, so its attention "
                "deltas had no effect; choose the module that calls it, or load with attn_implementation='sdpa'"
            )
        return out

    def attention(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The host's attention function with its live attention deltas around it."""
        if not torch.compiler.is_compiling():  # `hf.eager` calls this without any function of torch's
            for mode in _get_current_function_mode_stack():
                if isinstance(mode, Intercept) and mode.host is self:
                    mode.reached = True
        return around(call, self.live()["attention"])

    def inner(self, live: dict[str, Live], run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The host's own forward `run` with its parameter deltas inside and its module deltas around it."""
        parameters, module = live["parameters"], live["module"]
        if not parameters and not module:
            return run(*args, **kwargs)
        if self.together is not None and len(args) == 1 and not kwargs and not torch.compiler.is_compiling():
            h = self.together.output(self, args[0])
            if h is not None:
                return h
        if not parameters or linear_map(self) is not None:
            linear = frozen(self, changed_parameters(own_parameters(self), parameters))
            if linear is None:
                return around_hidden(run, module, self.first_input, args, kwargs)
            (x,) = (*args, *kwargs.values())
            return around(linear, module)(x)
        lock = nullcontext() if torch.compiler.is_compiling() else swapping  # dynamo cannot trace a lock
        with lock, replaced(self, changed_parameters(own_parameters(self), parameters)):
            return around_hidden(run, module, self.first_input, args, kwargs) if module else run(*args, **kwargs)

    def _get_name(self) -> str:
        return f"Delta({self.original_class.__name__})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild, (self.original_class,), self.__dict__


def changed_parameters(own: dict[str, Any], live: Live) -> dict[str, Any]:
    """A host's own parameters after its parameter deltas, innermost first."""
    for delta, strength in live:
        own = delta(functools.partial(dict, own), strength=strength)
    return own


@contextmanager
def replaced(module: nn.Module, values: dict[str, Any]) -> Iterator[None]:
    """The module's own parameters replaced by these tensors inside the block; identities and key order kept.

    Hold `swapping` where it is entered and where it is left.
    """
    before = own_parameters(module)
    try:
        put(module, values)
        yield
    finally:
        put(module, before)


def put(module: nn.Module, values: dict[str, Any]) -> None:
    """Set own parameters by name (as `hosts.own_parameters` names them) to tensors, Parameters or None."""
    for name, value in values.items():
        path, _, last = name.rpartition(".")
        module.get_submodule(path)._parameters[last] = value


def around_hidden(run: Callable[..., Any], live: Live, first: str, args: Any, kwargs: Any) -> Any:
    """Deltas around a host whose first input and (first) output is the hidden state; the rest passes through."""
    if args:
        x, args = args[0], args[1:]
    elif first in kwargs:
        kwargs = dict(kwargs)
        x = kwargs.pop(first)
    else:
        raise DeltaError(f"the host was called without its first input {first!r}; its deltas have nothing to read")
    rest: list[tuple[Any, ...]] = []  # what the host returned beside the hidden state

    def base(x: Tensor) -> Tensor:
        out = run(x, *args, **kwargs)
        if isinstance(out, tuple) and out and isinstance(out[0], Tensor):
            rest.append(out[1:])
            out = out[0]
        if not isinstance(out, Tensor):
            raise DeltaError(
                f"the host returned {type(out).__name__}; a delta changes a tensor, or a tuple that starts with one: "
                "choose a module inside it as the host"
            )
        return out

    h = around(Opaque(base), live)(x)
    return (h, *rest[0]) if rest else h


def _rebuild(cls: type[nn.Module]) -> nn.Module:
    swapped = host_class(cls)
    return cast(nn.Module, object.__new__(swapped))


@functools.cache
def host_class(cls: type[nn.Module]) -> type[nn.Module]:
    """The subclass of cls with Host's forward; it keeps cls's names, since code looks modules up by them."""
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    first = next((n for n in inspect.signature(cls.forward).parameters if n != "self"), "")
    return type(cls.__name__, (Host, cls), {**names, "original_class": cls, "first_input": first})


def hosts(model: nn.Module) -> list[tuple[str, Host]]:
    """(path, host) of every module that carries deltas."""
    return [(p, m) for p, m in modules(model) if isinstance(m, Host)]


def deltas(model: nn.Module, name: str | None = None) -> list[tuple[str, str, int, DeltaModule]]:
    """(host path, delta's name, position in its stack, delta) of every delta, or of those of one name."""
    return [
        (path, n, i, cast(DeltaModule, delta))
        for path, host in hosts(model)
        for n, stack in host.deltas.items()
        if name is None or n == name
        for i, delta in enumerate(cast("list[nn.Module]", stack))
    ]


def names(model: nn.Module) -> list[str]:
    """The names of the injected deltas, in the order of their injection at the first host that has them."""
    return list(dict.fromkeys(n for _, host in hosts(model) for n in host.deltas))


def check_host(path: str, host: nn.Module, skipped: dict[str, str]) -> None:
    """Raise where a swap would be wrong or silently without effect. skipped: `hosts.unreachable` of the model."""
    if "forward" in host.__dict__:
        raise DeltaError(f"{path}: forward is patched on the instance, so a swapped class would never be called")
    if any(type(p).__name__ == "DTensor" for p in host.parameters()):
        raise DeltaError(f"{path}: parameters are already sharded (DTensor); inject and eject before sharding")
    if path in skipped:
        raise NotReached(f"{path}: {skipped[path]}; choose the attention module itself as the host")
    if "__slots__" in original(host).__dict__:
        raise DeltaError(f"{path}: {original(host).__name__} has __slots__, so its class cannot be swapped")


def attach(path: str, host: nn.Module, name: str, delta: DeltaModule) -> None:
    """Swap the host's class, if need be, and put the delta on top of its stack under this name."""
    if not isinstance(host, Host):
        host.__class__ = host_class(type(host))
        host.deltas = nn.ModuleDict()
        host.strengths = {}  # type: ignore[assignment]
    own = cast(Host, host)
    if name not in own.deltas:
        own.deltas[name] = nn.ModuleList()
        own.strengths[name] = 1.0
    cast(nn.ModuleList, own.deltas[name]).append(delta)
    delta.train(host.training)


def detach(host: Host, name: str | None = None) -> None:
    """Remove the deltas of one name, or all; the last one gives the host its class back."""
    for n in list(host.deltas) if name is None else [name]:
        if n in host.deltas:
            del host.deltas[n]
            del host.strengths[n]
    if not len(host.deltas):
        cls = host.original_class
        del host.deltas
        del host.strengths
        host.__dict__.pop("together", None)
        host.__class__ = cls  # type: ignore[assignment]


def fast_paths(model: nn.Module) -> list[nn.TransformerEncoderLayer]:
    """The encoder layers whose fast path in eval reads weights instead of calling modules."""
    return [m for _, m in modules(model) if isinstance(m, nn.TransformerEncoderLayer)]


def close_fast_path(model: nn.Module) -> None:
    """Turn torch's fast path off for encoder layers with deltas in or on them, and on again for those without.

    The layer takes it only while `activation_relu_or_gelu` is nonzero; the value is kept under another name.
    """
    for layer in fast_paths(model):
        carries = any(isinstance(m, Host) for _, m in modules(layer))
        kept = layer.__dict__.get("_fast_path_activation")
        if carries and kept is None:
            layer._fast_path_activation = layer.activation_relu_or_gelu  # type: ignore[assignment]
            layer.activation_relu_or_gelu = 0
        elif not carries and kept is not None:
            layer.activation_relu_or_gelu = kept
            del layer._fast_path_activation
