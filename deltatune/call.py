"""How a host is called: its own forward, with its live deltas in it and around it.

All are functions over the host: a method of the swapped class would hide an attribute of the module that is the host.
"""

from __future__ import annotations

import functools
import inspect
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from deltatune.attention import SDPA
from deltatune.containers import inside
from deltatune.core import DeltaError, DeltaModule, NotReached, Opaque, Stacked
from deltatune.hidden import Hidden, given, returned
from deltatune.host import Host, Live, deltas_of, live, place_of, to_run
from deltatune.hosts import own_parameters, stacks
from deltatune.late import start
from deltatune.maps import SWAP, Swap, frozen, linear_map, original
from deltatune.products import Step, plain_layout
from deltatune.still import buffers, held_still, own_buffers
from deltatune.written import Watch, summed, written_of

swapping = threading.RLock()  # held while parameters stand replaced: every thread runs the one module that holds them


# torch's own function asks whether somebody looks in, and hides itself from who does; a copy that does not ask is open.
OPEN_ATTENTION = types.FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": lambda tensors: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)


class Intercept(TorchFunctionMode):
    """Hands the host's attention to its attention deltas, torch's own or written out; held during its forward only."""

    def __init__(self, host: nn.Module):
        super().__init__()
        self.host, self.reached = host, False
        self.watch: Watch | None = Watch()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            with self:
                return OPEN_ATTENTION(*args, **kwargs)
        if is_compiling():  # a graph cannot hold what a watch keeps
            term = around(func, live(self.host)["attention"]) if func is SDPA else func
            return term(*args, **kwargs)
        if func is SDPA:
            self.reached = True
            return around(func, live(self.host)["attention"])(*args, **kwargs)
        if self.watch is None:
            return func(*args, **kwargs)
        begun = self.watch.begins(func, args)
        if begun is not None:
            self.reached = True
            return written_out(self.host, func, args, kwargs, *begun)
        out = func(*args, **kwargs)
        self.watch.note(func, args, kwargs, out)
        return out


def written_out(host: nn.Module, func: Any, args: Any, kwargs: Any, path: tuple[Step, ...], at: int) -> Tensor:
    """The sum of values, args by func, of an attention that the host writes out, its attention deltas around it."""
    for delta, _ in live(host)["attention"]:
        if "written" not in inspect.signature(type(delta).forward).parameters:
            raise NotReached(
                f"{original(host).__name__} writes its attention out, and {type(delta).__name__}.forward takes no "
                "`written`, by which a delta enters that; load the model with attn_implementation='sdpa'"
            )
    term = around(lambda *_, written, **__: written, live(host)["attention"])
    heads = max((getattr(delta, "heads", 1) for delta, _ in live(host)["attention"]), default=1)
    return summed(term(*plain_layout(path, args, at, heads), written=written_of(path)), func, args, kwargs, at)


def attended(host: nn.Module, call: Callable[..., Any]) -> Callable[..., Any]:
    """The host's attention function with its live attention deltas around it."""
    if not is_compiling():  # `hf.eager` calls this without any function of torch's
        for mode in _get_current_function_mode_stack():
            if isinstance(mode, Intercept) and mode.host is host:
                mode.reached, mode.watch = True, None  # what it writes out in there is no attention of its own
    return around(call, live(host)["attention"])


def around(call: Callable[..., Any], live: Live) -> Callable[..., Any]:
    """The stack of live deltas around a callable."""
    term: Any = call
    for delta, strength in live:
        term = Stacked(delta, term, strength)
    return term


def run(host: nn.Module, args: Any, kwargs: Any) -> Any:
    """What a swapped class calls `forward`: `run_live`, refused where weights changed hands meanwhile."""
    if is_compiling():
        return run_live(host, args, kwargs)
    own = deltas_of(host)
    if alone(host):
        with swapping:  # so nobody else has them in hand while it runs
            return run_live(host, args, kwargs)
    with swapping if own._swaps % 2 else nullcontext():  # odd while another thread has them in hand
        swaps = own._swaps
    out = run_live(host, args, kwargs)
    if own._swaps != swaps:
        raise DeltaError(
            f"{original(host).__name__}: another thread merged deltas into the weights, or took them out, while this "
            "one computed; run this one again"
        )
    return out


def alone(host: nn.Module) -> bool:
    """Whether parameters stand replaced while it runs, so that one thread at a time may run it."""
    own = deltas_of(host)
    changed = any(delta.site == "parameters" for stack in stacks(host).values() for delta in stack)
    return bool(own._reads or own._reader) or (changed and linear_map(host) is None)


def run_live(host: nn.Module, args: Any, kwargs: Any) -> Any:
    """The host's forward with its live deltas."""
    own = deltas_of(host)
    if own._late:
        start_late(host)
    return run_placed(host, own._reads, args, kwargs)


def start_late(host: nn.Module) -> None:
    """Give values to deltas that were made on the meta device, now that the host has some."""
    own = deltas_of(host)
    if any(p.is_meta for p in host.parameters()):
        raise DeltaError(f"{original(host).__name__} is on the meta device: materialise the model, then run it")
    with swapping:
        waiting, own._late = own._late, []
        start(host, [own[name][i] for name, i in waiting if name in own])  # type: ignore[index, misc]


def run_placed(host: nn.Module, reads: tuple[nn.Module, ...], args: Any, kwargs: Any) -> Any:
    """The host's forward while what it reads of other hosts, which do not run then, stands changed in its place."""
    if not reads:
        return run_sites(host, args, kwargs)
    other, *rest = reads
    own, changes = deltas_of(other), live(other)["parameters"]
    if own._placed or not changes:
        return run_placed(host, tuple(rest), args, kwargs)
    with replaced(other, changed_parameters(other, changes)):
        own._placed = True
        try:
            return run_placed(host, tuple(rest), args, kwargs)
        finally:
            own._placed = False


def run_sites(host: nn.Module, args: Any, kwargs: Any) -> Any:
    """The host's forward with the deltas on the host itself."""
    strengths = to_run(host)
    if 0 in strengths.values():
        for name, stack in stacks(host).items():
            for delta in stack:
                if strengths[name] == 0 and type(delta).inactive is not DeltaModule.inactive:
                    delta.inactive(*args, *kwargs.values())
    sites = live(host, strengths)
    for own in sites.values():
        for delta, _ in own:
            if type(delta).fits is not DeltaModule.fits:
                delta.fits(host)
    if not sites["attention"]:
        return run_inner(host, sites, args, kwargs)
    with Intercept(host) as held:
        out = run_inner(host, sites, args, kwargs)
    if not is_compiling() and not held.reached:
        raise NotReached(
            f"{original(host).__name__} computed no attention of queries, keys and values, so its attention deltas had "
            "no effect; choose the module that does, or load with attn_implementation='sdpa'"
        )
    return out


def run_inner(host: nn.Module, sites: dict[str, Live], args: Any, kwargs: Any) -> Any:
    """The host's own forward with its parameter deltas inside and its module deltas around it."""
    parameters, module = [] if deltas_of(host)._placed else sites["parameters"], sites["module"]
    call = super(Host, host).forward  # type: ignore[arg-type]
    if "_modules" in vars(type(host)):
        call = functools.partial(walked, host, call)
    if sites["buffers"] or (deltas_of(host)._still and host.training):
        call = functools.partial(run_on_buffers, host, sites["buffers"], call)
    if not parameters and not module:
        return call(*args, **kwargs)
    together = deltas_of(host)._together
    if together is not None and len(args) == 1 and not kwargs and not is_compiling():
        h = together.output(host, args[0])
        if h is not None:
            return h
    first = cast(Swap, getattr(type(host), SWAP)).first_input
    if not parameters or (linear_map(host) is not None and host._parameters.get("weight") is not None):
        linear = frozen(host, changed_parameters(host, parameters))
        if linear is None:
            return around_hidden(call, module, first, args, kwargs)
        if not args and first in kwargs:
            args = (kwargs[first],)
            kwargs = {name: value for name, value in kwargs.items() if name != first}
        return around(linear, module)(*args, **kwargs)
    lock = nullcontext() if is_compiling() else swapping  # dynamo cannot trace a lock
    with lock, replaced(host, changed_parameters(host, parameters)):
        return around_hidden(call, module, first, args, kwargs) if module else call(*args, **kwargs)


def walked(host: nn.Module, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The forward of a host that looks through its children."""
    with inside(host):
        return call(*args, **kwargs)


def run_on_buffers(host: nn.Module, own: Live, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The host's forward on the buffers of its deltas, which move with it; without any, on its own, held still."""
    with nullcontext() if is_compiling() else swapping:
        if not own:
            return held_still(host, call, *args, **kwargs)
        with buffers(host, changed_parameters(host, own, own_buffers(host))):
            return call(*args, **kwargs)


def changed_parameters(host: nn.Module, live: Live, own: dict[str, Any] | None = None) -> dict[str, Any]:
    """A host's parameters after its parameter deltas, innermost first. own: their start, if another."""
    changed = read_by(host, (delta for delta, _ in live)) if own is None else dict(own)
    try:
        for delta, strength in live:
            changed = delta(functools.partial(dict, changed), strength=strength)
    except DeltaError as error:
        raise type(error)(f"{place_of(host)}: {error}") from None
    return changed


def read_by(host: nn.Module, deltas: Iterable[DeltaModule]) -> dict[str, Any]:
    """The host's own parameters, and those below it that these deltas read. Raises DeltaError where one is gone."""
    try:
        return own_parameters(host, (name for delta in deltas for name in delta.reads()))
    except DeltaError as error:
        raise DeltaError(f"{place_of(host)}: {error}") from None


@contextmanager
def replaced(module: nn.Module, values: dict[str, Any]) -> Iterator[None]:
    """The module's own parameters replaced by these tensors inside the block; identities and key order kept.

    Hold `swapping` where it is entered and where it is left.
    """
    before = own_parameters(module, values)
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
    recompute(module)


def recompute(module: nn.Module) -> None:
    """What torch keeps beside a module's parameters, made of these anew: a weight that a hook computes before each
    forward (weight norm, spectral norm, pruning), the flat weights of a recurrent layer."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, SpectralNorm):
            setattr(module, hook.name, hook.compute_weight(module, do_power_iteration=False))
        elif isinstance(hook, (WeightNorm, BasePruningMethod)):
            hook(module, ())
    if isinstance(module, nn.RNNBase):
        module._update_flat_weights()


def around_hidden(run: Callable[..., Any], live: Live, first: str, args: Any, kwargs: Any) -> Any:
    """Deltas around the hidden state that a host of any kind is given and returns; the rest passes through."""
    inputs = given(first, args, kwargs)
    outputs: list[Hidden] = []

    def base(x: Tensor) -> Tensor:
        args, kwargs = inputs.put(x)
        outputs.append(returned(run(*args, **kwargs)))
        return outputs[0].x

    h = around(Opaque(base), live)(inputs.x)
    return outputs[0].put(h)
