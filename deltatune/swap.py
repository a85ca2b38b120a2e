"""The class swap: a host's class becomes a subclass of it whose forward runs the live deltas around the original.

Base parameters are never touched, renamed or moved, so nothing that reads them notices. Chosen over wrappers (they
break isinstance, `.weight` and state-dict keys), hooks (the base has already run) and parametrizations (they build
the changed weight).
"""

from __future__ import annotations

import copyreg
import functools
import inspect
import types
import warnings
from collections.abc import Callable
from typing import Any, cast

from torch import nn
from torch.jit import ScriptModule
from torch.nn.parameter import UninitializedParameter

from deltatune.call import run
from deltatune.containers import unseen
from deltatune.core import DeltaError, DeltaModule, NotReached
from deltatune.host import Deltas, Host, deltas_of, excuse, hosts
from deltatune.hosts import modules, stacks
from deltatune.late import starts_later
from deltatune.maps import CHILD, SWAP, Swap, original
from deltatune.still import hold_estimates, let_estimates_go, own_buffers, runs_in_eval
from deltatune.structure import structure


@functools.cache
def host_class(cls: type[nn.Module]) -> type[nn.Module]:
    """The subclass of cls whose forward is `run`; it keeps cls's names and forward's signature, by which code looks
    modules up."""
    signature = inspect.signature(cls.forward)
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    first = next((n for n in signature.parameters if n != "self"), "")

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if CHILD not in self._modules:  # somebody kept this method of a host that has its own class again
            return cls.forward(self, *args, **kwargs)
        return run(self, args, kwargs)

    def __reduce_ex__(self: nn.Module, protocol: Any) -> Any:
        make, args, *rest = cast("tuple[Any, ...]", super(Host, self).__reduce_ex__(max(protocol, 2)))  # type: ignore[arg-type]
        if make is copyreg.__newobj__:  # type: ignore[attr-defined]
            args = (original(self), *args[1:])
        return _remade, (make, args), *rest

    forward.__signature__ = signature  # type: ignore[attr-defined]
    own = {"forward": forward, "__reduce_ex__": __reduce_ex__, SWAP: Swap(cls, first)} | unseen(cls)
    return type(cls.__name__, (Host, cls), names | own)


def _remade(make: Callable[..., nn.Module], args: tuple[Any, ...]) -> nn.Module:
    """What the original class makes of its own pickle, swapped again."""
    module = make(*args)
    if not isinstance(module, Host):
        module.__class__ = host_class(type(module))
    return module


def aligned(host: nn.Module) -> bool:
    """Whether the forward on the instance is accelerate's, which moves inputs and weights and calls `_old_forward`."""
    before = host.__dict__.get("_old_forward")
    return "_hf_hook" in host.__dict__ and getattr(before, "__func__", None) is type(host).forward


def realign(host: nn.Module) -> None:
    """Let accelerate's hooks call the forward of the class that the host has now."""
    if "_hf_hook" in host.__dict__ and "_old_forward" in host.__dict__:
        host._old_forward = types.MethodType(type(host).forward, host)  # type: ignore[assignment]


def check_host(path: str, host: nn.Module, skipped: dict[str, str]) -> None:
    """Raise where a swap would be wrong or silently without effect. skipped: `hosts.unreachable` of the model."""
    if any(isinstance(p, UninitializedParameter) for p in host.parameters()):
        raise DeltaError(f"{path}: {original(host).__name__} knows no sizes yet; run the model once, then inject")
    if "forward" in host.__dict__ and not aligned(host):
        raise DeltaError(f"{path}: forward is patched on the instance, so a swapped class would never be called")
    if any(type(p).__name__ == "DTensor" for p in host.parameters()):
        raise DeltaError(f"{path}: parameters are already sharded (DTensor); inject and eject before sharding")
    if getattr(host.__dict__.get("_hf_hook"), "weights_map", None) is not None:
        raise DeltaError(f"{path}: accelerate keeps its weights elsewhere; put deltas in before offloading")
    if path in skipped:
        raise NotReached(f"{path}: {skipped[path]}; choose the attention module itself as the host")
    if not isinstance(host, Host):
        own = [host.__dict__, *(host.__dict__.get(kept, ()) for kept in ("_parameters", "_buffers", "_modules"))]
        for ours in (CHILD, SWAP):
            if any(ours in names for names in own) or hasattr(type(host), ours):
                raise DeltaError(
                    f"{path}: {type(host).__name__} has an attribute {ours}, which deltas are kept under; rename it"
                )
    if "__slots__" in original(host).__dict__:
        raise DeltaError(f"{path}: {original(host).__name__} has __slots__, so its class cannot be swapped")


def check_removable(model: nn.Module) -> None:
    """Raise where a host cannot have its class back, because another one was made of it after the injection."""
    for path, host in hosts(model):
        if any(type(p).__name__ == "DTensor" for p in host.parameters()):
            raise DeltaError(f"{path}: parameters are sharded (DTensor); eject before sharding")
        if SWAP not in vars(type(host)):
            raise DeltaError(
                f"{path}: its class was changed after the injection, to {type(host).__qualname__} (reparametrised, "
                "sharded); undo that first"
            )


def swapped(host: nn.Module) -> Deltas:
    """What a host carries, its class swapped if it was none before."""
    if not isinstance(host, Host):
        host.__class__ = host_class(type(host))
        realign(host)
        host._modules[CHILD] = Deltas().train(host.training)
    return deltas_of(host)


def lend(model: nn.Module) -> None:
    """Let those who read a host's parameters while it does not run read them with its deltas in them.

    They are known from a run (`structure`). What has no forward at all, such as an nn.ParameterList, is read by a
    module that it lies in, and the first of these that runs puts it in place.
    """
    known = structure(model)
    here = dict(modules(model))
    reads = {} if known is None else known.reads
    for path, host in here.items():
        if any(d.site == "parameters" for stack in stacks(host).values() for d in stack):
            around = [p for p in here if p != path and f"{path}.".startswith(f"{p}." if p else "") and runs(here[p])]
            readers = tuple(here[p] for p in ([reads[path]] if path in reads else [] if runs(host) else around))
            deltas_of(host)._reader = readers
            for reader in readers:
                others = swapped(reader)
                others._reads = (*(m for m in others._reads if m is not host), host)


def runs(module: nn.Module) -> bool:
    """Whether a module has a forward; what has none only holds what others read."""
    return original(module).forward is not nn.Module.forward


def attach(host: nn.Module, name: str, delta: DeltaModule) -> None:
    """Put the delta on top of the host's stack under this name."""
    own = swapped(host)
    if name not in own:
        own[name] = nn.ModuleList().train(host.training)
        own._strengths[name] = 1.0
    cast(nn.ModuleList, own[name]).append(delta)
    if starts_later(delta):
        own._late.append((name, len(cast(nn.ModuleList, own[name])) - 1))
    delta.train(host.training)


def detach(model: nn.Module, *names: str) -> None:
    """Remove the deltas of these names. A host without any gets its class back; with the last delta of the model, so do
    all that hold their buffers still."""
    carriers = [(host, deltas_of(host)) for _, host in hosts(model)]
    for host, own in carriers:
        for n in names:
            if n in own:
                del own[n], own._strengths[n], own._records[n]
        for reader in () if len(own) else own._reader:
            others = deltas_of(reader)
            others._reads = tuple(m for m in others._reads if m is not host)
        own._reader = own._reader if len(own) else ()
    excuse(model)
    some = any(len(own) for _, own in carriers)
    for host, own in carriers:
        if not len(own) and not own._reads and not (some and own._still):
            let_estimates_go(host)
            del host._modules[CHILD]
            host.__class__ = original(host)  # type: ignore[assignment]
            realign(host)


def hold_still(model: nn.Module) -> None:
    """From here on, modules with persistent buffers leave them as they are in training, where no delta moves them.

    A norm whose forward is patched on the instance cannot be held; a warning names it.
    """
    if not hosts(model):
        return
    for path, module in list(modules(model)):
        if not own_buffers(module) or isinstance(module, ScriptModule):
            continue
        if "forward" in module.__dict__:
            if runs_in_eval(module):
                warnings.warn(
                    f"{path}: forward is patched on the instance, so its running statistics move in training; keep it "
                    "in eval mode",
                    stacklevel=4,
                )
            continue
        check_host(path, module, {})
        swapped(module)._still = True
        hold_estimates(module)


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
