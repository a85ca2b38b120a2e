"""What one forward does, seen by operation and by module: values, who computed them from which, who read what.

A `Trace` runs a shadow of the model. Blocks that repeat (children of one list that hold the same things and are called
the same way) run once; what the first one showed holds for all.

Legend: a node is a value, numbered in the order of computation; a call is one run of a module's forward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from deltatune.attention import SDPA
from deltatune.hosts import is_map, modules
from deltatune.maps import children
from deltatune.shadow import Shadow, alike, described, is_list
from deltatune.values import Attended, Call, Node, continuous, flat, key, named, storage

SHAPE_ALONE = ("zeros_like", "ones_like", "empty_like", "full_like", "new_", "rand")  # read no values
PRODUCTS = ("mm", "bmm", "baddbmm", "addmm")


class Functions(TorchFunctionMode):
    """Sees scaled_dot_product_attention as a whole."""

    def __init__(self, trace: Trace):
        super().__init__()
        self.trace = trace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is SDPA:
            return self.trace.attention(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


class Operations(TorchDispatchMode):
    """Sees every operation."""

    def __init__(self, trace: Trace):
        super().__init__()
        self.trace = trace

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.trace.meta and func is torch.ops.aten._local_scalar_dense.default:
            return args[0].new_zeros((), device="cpu").item()  # a guess: nobody knows
        out = func(*args, **(kwargs or {}))
        if not self.trace.quiet:
            self.trace.operation(func, args, kwargs, out)
        return out


class Trace:
    """One forward of the model's shadow on an example (keyword arguments), recorded. meta: by shapes alone."""

    def __init__(self, model: nn.Module, example: Mapping[str, Any], meta: bool = False, hollow: bool = True):
        self.skips = hollow
        self.meta, self.shadow = meta, Shadow(model, meta, hollow)
        self.nodes: list[Node] = []
        self.calls: list[Call] = []
        self.attended: list[Attended] = []
        self.products: dict[int, tuple[Tensor, ...]] = {}  # factors of a product that is no parameter's
        self.reads: dict[str, set[str]] = {}  # owner of parameters -> who read them while it did not run
        self.repeats: dict[str, str] = {}  # a block that did not run -> the one that ran for it
        self.places: list[str] = []  # lists of which one block alone was called
        self.quiet = False
        self._stack: list[int] = []
        self._of: dict[Any, int] = {}  # the node of each view of a storage
        self._last: dict[int, int] = {}  # the last node on a storage
        self._writes: dict[int, int] = {}  # the last that was written in place
        self._owners: dict[int, list[str]] = {}
        self._kept: list[Tensor] = []  # a storage that is freed could be taken for another
        self._ran: dict[str, list[list[Any]]] = {}
        self._names: dict[int, str] = {}
        self._maps: set[int] = set()
        self._forwards: dict[int, Callable[..., Any]] = {}
        self._blocks: dict[int, tuple[str, int]] = {}
        self._lists: dict[str, list[tuple[str, nn.Module]]] = {}
        self._prepare(self.shadow.root)
        example = tree_map(self._own, dict(example))
        with torch.enable_grad(), Functions(self), Operations(self):
            out = self.shadow.root(**example)
        self.outputs = [self.node(t) for t in tree_leaves(out) if isinstance(t, Tensor)]
        self._presume()

    def _own(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return torch.empty_like(value, device="meta") if self.meta else value.detach().clone()

    def _prepare(self, root: nn.Module, prefix: str = "") -> None:
        """Put a forward of ours on every module of the shadow, and learn whose each parameter is."""
        here = list(modules(root, prefix))
        self._names |= {id(m): p for p, m in here}
        self._maps |= {id(m) for _, m in here if is_map(self.shadow.originals[id(m)])}
        for path, module in here:
            for p in module._parameters.values():
                if p is not None:
                    self._owners.setdefault(storage(p), []).append(path)
            if is_list(module):
                blocks = [m for m in module._modules.values() if m is not None]
                blocks = [m for m in blocks if children(self.shadow.originals[id(m)])]
                self._lists[path] = [(self._names[id(m)], m) for m in blocks]
                self._blocks |= {id(m): (path, i) for i, m in enumerate(blocks)}
        for path, module in here:
            self._forwards[id(module)] = own = module.forward
            run = functools.partial(self._call, path, module)
            run.__wrapped__ = own  # type: ignore[attr-defined] # signatures are asked for
            module.__dict__["forward"] = run

    def _presume(self) -> None:
        """A block that was not called (an expert without a token) is like others of its list that were.

        Where one alone was, it was taken for its place, and other blocks that hold such a list may take another.
        """
        called = {c.path for c in self.calls} | self.repeats.keys()
        for path, blocks in self._lists.items():
            ran = [(i, p, m) for i, (p, m) in enumerate(blocks) if p in called]
            if len(ran) == 1 and len(blocks) > 1:
                self.places.append(path)
                continue
            for i, (path, module) in enumerate(blocks):
                if path not in called and path not in self.repeats:
                    same = (p for j, p, m in ran if alike(self._contents(module), self._contents(m), i - j))
                    if (other := next(same, None)) is not None:
                        self.repeats[path] = other

    # what modules do

    def _call(self, path: str, module: nn.Module, *args: Any, **kw: Any) -> Any:
        block = self._blocks.get(id(module))
        quiet, self.quiet = self.quiet, True
        tensors = [t for t in tree_leaves((args, kw)) if isinstance(t, Tensor)]
        inputs = tuple(self.node(t) for t in tensors)
        entry: list[Any] | None = None
        if block is not None and self.skips:
            entry = self._entry(path, module, block, args, kw)
            if entry[2] != path:
                self.repeats[path] = entry[2]
                self.quiet = quiet
                return tree_map(lambda t: self._repeated(t, inputs), entry[3])
            if id(module) in self.shadow.hollow:
                del module.__dict__["forward"]
                self.shadow.fill(self.shadow.hollow[id(module)])
                self._prepare(module, path)
        first = args[0] if args else next(iter(kw.values()), None)
        single = len(args) == 1 and not kw and isinstance(first, Tensor)
        parent = self._stack[-1] if self._stack else -1
        call = Call(path, module, parent, inputs, len(self.nodes), id(module) in self._maps, single)
        call.into = tuple(first.shape) if isinstance(first, Tensor) else ()
        self._stack.append(len(self.calls))
        self.calls.append(call)
        self.quiet = quiet
        out = self._forwards[id(module)](*args, **kw)
        self.quiet = True
        self._stack.pop()
        call.last = len(self.nodes)
        if call.is_map and isinstance(out, Tensor) and out.is_floating_point():
            node, call.leaf = self.node(out), out.detach().requires_grad_()
            out = call.leaf.clone()  # what happens in place to it may not happen to a leaf
            self._know(out, node)
        call.outputs = tuple(self.node(t) for t in tree_leaves(out) if isinstance(t, Tensor))
        head = out[0] if isinstance(out, (tuple, list)) and out else out
        call.out = tuple(head.shape) if isinstance(head, Tensor) else ()
        if entry is not None:
            entry[3] = out
        self.quiet = quiet
        return out

    def _entry(self, path: str, module: nn.Module, block: tuple[str, int], args: Any, kw: Any) -> list[Any]:
        """[index, what it is and is given, path, output] of the block that runs for this one, or of itself."""
        where, i = block
        given, ran = (self._contents(module), described((args, kw))), self._ran.setdefault(where, [])
        for entry in ran:
            if entry[2] != path and entry[3] is not None and alike(given, entry[1], i - entry[0]):
                return entry
        ran.append([i, given, path, None])
        return ran[-1]

    def _contents(self, module: nn.Module) -> tuple[Any, ...]:
        return self.shadow.contents(self.shadow.originals[id(module)])

    def _repeated(self, value: Any, inputs: tuple[int, ...]) -> Any:
        if not isinstance(value, Tensor):
            return value
        self.quiet, quiet = True, self.quiet
        value = value.detach().clone()
        self.quiet = quiet
        self._add(Node("block", inputs, -1, tuple(value.shape), continuous(value)), value)
        return value

    # what operations do

    def operation(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        name, mutable = named(func)
        ins = list(flat(args)) + (list(flat(kwargs.values())) if kwargs else [])
        inputs = tuple(self.node(t) for t in ins)
        if not name.startswith(SHAPE_ALONE):
            for t in ins:
                if owners := self._owners.get(storage(t)):
                    self._read(owners)
        call = self._stack[-1] if self._stack else -1
        outs = list(flat(out if isinstance(out, (tuple, list)) else (out,))) or (ins[:1] if mutable else [])
        for t in outs:
            if not mutable and self._of.get(key(t)) in inputs:
                continue  # the very same values
            dim = args[1] if name.endswith("softmax") and len(args) > 1 else None
            self._add(Node(name, inputs, call, tuple(t.shape), continuous(t), dim), t)
            if mutable:
                self._writes[storage(t)] = len(self.nodes) - 1
        if name in PRODUCTS:
            self.products[len(self.nodes) - 1] = tuple(ins[-2:])
        elif name.startswith("_scaled_dot_product"):  # nn.MultiheadAttention calls it
            self.attended.append(Attended(call, inputs[:3], tuple(ins[:3]), whole=False))

    def attention(self, func: Any, args: Any, kwargs: Any) -> Any:
        """scaled_dot_product_attention, as one operation."""
        names = ("query", "key", "value")
        tensors = tuple(args[i] if i < len(args) else kwargs[n] for i, n in enumerate(names))
        others = (*args[3:], *(v for n, v in kwargs.items() if n not in names))
        call = self._stack[-1] if self._stack else -1
        quiet, self.quiet = self.quiet, True
        nodes = tuple(self.node(t) for t in tensors)
        self.attended.append(Attended(call, nodes, tensors))
        out = func(*args, **kwargs)
        rest = tuple(self.node(t) for t in flat(others))
        self._add(Node("attention", nodes + rest, call, tuple(out.shape)), out)
        self.quiet = quiet
        return out

    def _read(self, owners: list[str]) -> None:
        """Note who reads a parameter while no module that owns it runs."""
        running = [self.calls[i].path for i in self._stack]
        if running and not set(owners) & set(running):
            for owner in owners:
                self.reads.setdefault(owner, set()).add(running[-1])

    # values

    def node(self, t: Tensor) -> int:
        """The node of a tensor, whatever view of its storage it is and whatever was written to that."""
        place, where = storage(t), key(t)
        known, write = self._of.get(where), self._writes.get(place, -1)
        if known is not None and known >= write:
            return known
        behind = known if known is not None else self._last.get(place)
        inputs = tuple(dict.fromkeys(n for n in (behind, write) if n is not None and n >= 0))
        op = "view" if inputs else "parameter" if place in self._owners else "input"
        return self._add(Node(op, inputs, -1, tuple(t.shape), continuous(t)), t)

    def _add(self, node: Node, t: Tensor) -> int:
        self.nodes.append(node)
        self._know(t, len(self.nodes) - 1)
        return len(self.nodes) - 1

    def _know(self, t: Tensor, node: int) -> None:
        self._kept.append(t)
        self._of[key(t)] = self._last[storage(t)] = node
