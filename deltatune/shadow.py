"""A shadow of a model: modules of the same classes and attributes that can be run without leaving a trace on it.

Parameters are shared (or stand on the meta device), buffers and other tensors are copies, deltas are left out, and
every module is in eval mode. What the shadow's forward writes to its modules, lists and buffers stays in the shadow.
"""

from __future__ import annotations

import functools
import types
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from deltatune.core import DeltaError
from deltatune.maps import CHILD, children, original, plain

LIBRARIES = ("torch", "transformers")  # whose hooks are part of how a module computes
KEPT = ("_forward_hooks", "_forward_pre_hooks")
FORGOTTEN = {n for n in nn.Module().__dict__ if "hooks" in n} - set(KEPT)
PLUMBING = FORGOTTEN | {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", *KEPT}
DESCRIBING = {bool, int, float, str, tuple}
PLAIN = (bool, int, float, str, type(None), torch.dtype)
LISTS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)
ATOMS = {bool, int, float, str, type(None)}


class NotShadowed(DeltaError):
    """A model holds something that a shadow of it cannot hold."""


class Shadow:
    """root: the shadow of the model. hollow: blocks like one before them in their list are left empty until filled."""

    def __init__(self, model: nn.Module, meta: bool = False, hollow: bool = True):
        self.meta, self.leaves_hollow = meta, hollow
        self.memo: dict[int, Any] = {}
        self.hollow: dict[int, nn.Module] = {}
        self.described: dict[int, tuple[Any, ...]] = {}
        self.originals: dict[int, nn.Module] = {}
        self.root = self.module(model)

    def module(self, module: nn.Module) -> nn.Module:
        if id(module) not in self.memo:
            self.memo[id(module)] = object.__new__(original(module))
            self.originals[id(self.memo[id(module)])] = module
            self.fill(module)
        return self.memo[id(module)]

    def children(self, module: nn.Module) -> dict[str, nn.Module | None]:
        """The shadows of a module's children: in a list, of the first of each kind; the others are hollow."""
        own = named_children(module)
        if not (self.leaves_hollow and is_list(module)):
            return {n: m if m is None else self.module(m) for n, m in own.items()}
        kinds: list[tuple[int, tuple[Any, ...]]] = []
        shadows: dict[str, nn.Module | None] = {}
        for i, (n, m) in enumerate(own.items()):
            if m is None or not children(m) or id(m) in self.memo:
                shadows[n] = m if m is None else self.module(m)
                continue
            holds = self.contents(m)
            if any(alike(holds, other, i - j) for j, other in kinds):
                shadows[n] = self.empty(m)
            else:
                kinds.append((i, holds))
                shadows[n] = self.module(m)
        return shadows

    def empty(self, module: nn.Module) -> nn.Module:
        copy = self.memo[id(module)] = object.__new__(original(module))
        copy.__dict__.update(nn.Module().__dict__)
        copy.__dict__.update((n, v) for n, v in module.__dict__.items() if type(v) in DESCRIBING)
        copy.__dict__["training"] = False
        self.originals[id(copy)] = self.hollow[id(copy)] = module
        return copy

    def contents(self, module: nn.Module) -> tuple[Any, ...]:
        """What a module is: class, plain attributes, shapes of its tensors, and the same of all below."""
        known = self.described.get(id(module))
        if known is None:
            own = tuple((n, v) for n, v in module.__dict__.items() if type(v) in DESCRIBING and n != "training")
            tensors = tuple((n, t.shape, t.dtype) for n, t in module._parameters.items() if t is not None)
            buffers = tuple((n, t.shape) for n, t in module._buffers.items() if t is not None)
            below = tuple((n, self.contents(m)) for n, m in named_children(module).items() if m)
            known = self.described[id(module)] = (original(module), own, tensors, buffers, below)
        return known

    def fill(self, module: nn.Module) -> None:
        """Give a shadow what its module holds."""
        copy = self.memo[id(module)]
        self.hollow.pop(id(copy), None)
        if isinstance(module, torch.jit.ScriptModule):
            raise NotShadowed(f"{original(module).__name__} is a compiled ScriptModule")
        cls = original(module)
        state = dict(module.__dict__)
        for n, v in state.items():
            if n not in PLUMBING:
                state[n] = v if type(v) in ATOMS else self.value(v)
        for n in FORGOTTEN & state.keys():
            state[n] = OrderedDict()
        for n in KEPT:
            state[n] = OrderedDict((k, h) for k, h in state[n].items() if of_library(h))
        if "_old_forward" in state:  # accelerate keeps it, and moves weights and inputs before it
            state.pop("forward", None)
        elif isinstance(state.get("forward"), types.FunctionType):
            raise NotShadowed(f"the forward of a {cls.__name__} is patched on the instance")
        state["_parameters"] = {n: t if t is None else self.tensor(t) for n, t in module._parameters.items()}
        state["_buffers"] = {n: t if t is None else self.tensor(t) for n, t in module._buffers.items()}
        state["_modules"] = self.children(module)
        state["training"], state["_compiled_call_impl"] = False, None
        copy.__dict__.update(state)
        if isinstance(copy, nn.TransformerEncoderLayer):  # its fast path calls no children
            copy.__dict__["activation_relu_or_gelu"] = 0

    def value(self, value: Any, depth: int = 0) -> Any:
        """The shadow of an attribute: tensors, modules and what is bound to them, in containers too."""
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, nn.Module):
            return self.module(value)
        kind = type(value)
        if depth > 2 or kind in ATOMS:
            return value
        if kind in (list, tuple, set):
            return kind([self.value(v, depth + 1) for v in value])
        if kind in (dict, OrderedDict):
            return kind((k, self.value(v, depth + 1)) for k, v in value.items())
        if isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module):
            return types.MethodType(value.__func__, self.module(value.__self__))
        if isinstance(value, functools.partial):
            args = [self.value(v, depth + 1) for v in value.args]
            keywords = {k: self.value(v, depth + 1) for k, v in value.keywords.items()}
            return functools.partial(self.value(value.func, depth + 1), *args, **keywords)
        return value

    def tensor(self, t: Tensor) -> Tensor:
        if id(t) not in self.memo:
            if self.meta:
                copy = torch.empty_like(t, device="meta")
            elif isinstance(t, nn.Parameter):
                copy = t.detach() if plain(t) else t
            else:
                copy = t.detach().clone()
            if plain(t):
                copy = nn.Parameter(copy, requires_grad=False)
            self.memo[id(t)] = copy
        return self.memo[id(t)]


def named_children(module: nn.Module) -> dict[str, nn.Module | None]:
    """The module's own children by name, without what a swap added."""
    return {n: m for n, m in module._modules.items() if n != CHILD}


def of_library(hook: Any) -> bool:
    return (getattr(hook, "__module__", None) or "").startswith(LIBRARIES)


def is_list(module: nn.Module) -> bool:
    """Whether a module's children are alike by position: one of torch's lists, or children that are numbered."""
    return isinstance(module, LISTS) or all(n.isdigit() for n in module._modules)


def alike(a: Any, b: Any, shift: int) -> bool:
    """Whether two descriptions are equal but for whole numbers that count the blocks, `shift` apart."""
    if a == b:
        return True
    if type(a) is tuple and type(b) is tuple:
        return len(a) == len(b) and all(alike(x, y, shift) for x, y in zip(a, b))
    return type(a) is int and type(b) is int and a - b == shift


def described(value: Any) -> Any:
    """What two calls have to have in common to do the same: types, shapes and plain values."""
    if isinstance(value, Tensor):
        return "tensor", tuple(value.shape), value.dtype
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(described(v) for v in value)
    if isinstance(value, dict):
        return tuple((k, described(v)) for k, v in value.items())
    return type(value)
