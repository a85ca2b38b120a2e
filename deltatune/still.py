"""Buffers are part of the base: frozen modules leave them as they are, in training too.

What keeps running statistics, or an estimate that it improves at each training step, runs as in eval. Any other module
with persistent buffers runs as it is, on copies of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from deltatune.maps import original

ITERATIONS = "deltatune_iterations"  # the key under which a hook keeps its number of them


def own_buffers(host: nn.Module) -> dict[str, Tensor]:
    """The module's own persistent buffers by name."""
    passing = host._non_persistent_buffers_set
    return {name: b for name, b in host._buffers.items() if b is not None and name not in passing}


def runs_in_eval(module: nn.Module) -> bool:
    """Whether the module is of those whose training mode is about their statistics alone."""
    return issubclass(original(module), (_NormBase, _SpectralNorm)) and bool(own_buffers(module))


def held_still(host: nn.Module, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The host's own forward `call` in training, its buffers as they were. Hold `call.swapping`."""
    if runs_in_eval(host):
        host.training = False
        try:
            return call(*args, **kwargs)
        finally:
            host.training = True
    with buffers(host, {name: b.clone() for name, b in own_buffers(host).items()}):
        return call(*args, **kwargs)


def estimates(module: nn.Module) -> list[SpectralNorm]:
    """The hooks of spectral norm, of which each improves its estimate before the module's forward runs."""
    return [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, SpectralNorm)]


def hold_estimates(module: nn.Module) -> None:
    """Let spectral norm by hooks take its estimates as they are, in training too."""
    for hook in estimates(module):
        hook.__dict__.setdefault(ITERATIONS, hook.n_power_iterations)
        hook.n_power_iterations = 0


def let_estimates_go(module: nn.Module) -> None:
    for hook in estimates(module):
        hook.n_power_iterations = hook.__dict__.pop(ITERATIONS, hook.n_power_iterations)


@contextmanager
def buffers(host: nn.Module, values: dict[str, Tensor]) -> Iterator[None]:
    """The module's buffers replaced by these inside the block; what it puts in their place is copied into them."""
    before = {name: host._buffers[name] for name in values}
    try:
        host._buffers.update(values)
        yield
        for name, value in values.items():
            now = host._buffers[name]
            if now is not value and now is not None:
                value.data.copy_(now.data)
    finally:
        host._buffers.update(before)
