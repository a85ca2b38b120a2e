"""Hosts that read one tensor, such as query, key and value, computed at the first one's call.

Which they are is known from the model's structure, never assumed: a later call finds its output only if it brings the
very tensor that the first one brought.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from deltatune.host import Host, deltas_of, live
from deltatune.hosts import features
from deltatune.maps import frozen
from deltatune.sites import readers

Draws = tuple[Tensor, Tensor | None]


class Passing(threading.local):
    """What one thread keeps between the calls of a pass."""

    ready: tuple[Tensor, int, dict[int, Tensor]] | None = None  # x, its version, the outputs not fetched yet
    drawn: tuple[weakref.ref[Tensor], Draws, set[int]] | None = None  # x, the generators before, hosts served


class Together:
    """The hosts, and what each thread keeps between their calls.

    Their outputs come from one node of autograd's graph: a backward from one of them gives the other hosts' factors
    gradients of zero, not None, and a second one needs retain_graph=True.
    """

    def __init__(self, hosts: Sequence[nn.Module]):
        self.hosts, self.here = tuple(hosts), Passing()

    def __getstate__(self) -> dict[str, Any]:
        return {"hosts": self.hosts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.hosts, self.here = state["hosts"], Passing()

    def output(self, host: nn.Module, x: Tensor) -> Tensor | None:
        """The host's output, or None where it is to be computed alone.

        That is so where somebody watches the calls (hooks), and where the hosts do not have one live delta each.
        Without gradients little is gained, and where somebody packs what is kept for the backward, activation
        checkpointing may stop between two hosts when it computes them again: there each is computed at its own call,
        but draws what the first one drew, so that checkpointing changes no dropout mask.
        """
        hosts, here = self.hosts, self.here  # another thread may find the structure misread
        one_by_one = not torch.is_grad_enabled() or saved_tensors_hooks() or x.is_inference()
        ready, here.ready = here.ready, None
        if ready is not None and ready[0] is x and ready[1] == x._version and id(host) in ready[2]:
            y = ready[2].pop(id(host))
            here.ready = ready if ready[2] else None
            return None if one_by_one else y  # computed with gradients, where it is called without
        if ready is not None:  # what was computed for the others was not wanted: the structure was misread
            hosts = self.hosts = ()
        if one_by_one and not host.training:
            return None
        if all(other is not host for other in hosts):  # a replica is not the host
            return None
        calls = [call for other in hosts if (call := only_call(other)) is not None]
        if len(calls) < len(hosts):
            return None
        together = type(calls[0][0]).together
        if one_by_one:
            with self.same_draws(host, x):
                ys = together(x, [calls[hosts.index(host)]])
            return None if ys is None else ys[0]
        ys = together(x, calls)
        if ys is None:
            return None
        outputs = {id(other): y for other, y in zip(hosts, ys, strict=True)}
        y = outputs.pop(id(host))
        here.ready = (x, x._version, outputs)
        return y

    @contextmanager
    def same_draws(self, host: nn.Module, x: Tensor) -> Iterator[None]:
        """A block that draws what the first host drew for this very x, if that was in the same pass."""
        drawn = self.here.drawn
        if drawn is None or drawn[0]() is not x or id(host) in drawn[2]:
            self.here.drawn = (weakref.ref(x), draws(x.device), {id(host)})
            yield
        else:
            drawn[2].add(id(host))
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                redraw(x.device, drawn[1])
                yield


def only_call(host: nn.Module) -> tuple[Any, Any, float] | None:
    """(delta, base, strength) of a host that has this one live delta around its linear map, and no hooks."""
    if not isinstance(host, Host) or hooked(host) or deltas_of(host)._late:
        return None
    sites, base = live(host), frozen(host, host._parameters)
    module = sites["module"]
    if sites["parameters"] or len(module) != 1 or base is None or hooked(module[0][0]):
        return None
    return module[0][0], base, module[0][1]


def draws(device: torch.device) -> Draws:
    """Where torch's generators stand: the CPU's, and the device's own if it is a GPU."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def redraw(device: torch.device, at: Draws) -> None:
    torch.set_rng_state(at[0])
    if at[1] is not None:
        torch.cuda.set_rng_state(at[1], device)


def saved_tensors_hooks() -> bool:
    """Whether somebody packs what is kept for the backward, as activation checkpointing does."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None  # type: ignore[attr-defined]


def hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_pre_hooks
        or module._backward_hooks
        or "forward" in module.__dict__
    )


def gather(model: nn.Module) -> None:
    """Let the model's hosts know which others read what they read."""
    for group in readers(model):
        alike: dict[int, list[nn.Module]] = {}
        for host in group:
            if isinstance(host, Host):
                alike.setdefault(features(host).into, []).append(host)  # other sizes are of other tensors
        for hosts in alike.values():
            together = Together(hosts) if len(hosts) > 1 else None
            for host in hosts:
                deltas_of(host)._together = together
