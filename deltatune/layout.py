"""What a host is: its linear map, its sizes, and where in a model the usual sites are. The one file that probes.

Known linear maps are read by type (`MAPS`); a packed or wrapped weight is never taken for one. Sites are found from
structure: blocks are the repeated children of a list; within a block, the attention part is the child that holds
the query, key and value projections, and what writes back to the model's width ends a sublayer.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltatune.core import DeltaError, DeltaModule, Frozen, Opaque, Stacked

QUERY = {"q_proj", "query", "q", "q_lin", "wq", "to_q", "query_proj"}
KEY = {"k_proj", "key", "k", "k_lin", "wk", "to_k", "key_proj"}
VALUE = {"v_proj", "value", "v", "v_lin", "wv", "to_v", "value_proj"}
FUSED = {"c_attn", "qkv", "qkv_proj", "query_key_value", "Wqkv", "in_proj", "attn_qkv"}


class Features(NamedTuple):
    """Sizes of a host's input and output vectors."""

    into: int
    out: int


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
EXTENSIONS = {"transformers": "deltatune.hf"}  # loaded when a model of that package is met, never before


def extend(model: nn.Module) -> None:
    """Load what deltatune knows of the packages that this model's modules come from."""
    for package in {type(m).__module__.partition(".")[0] for m in model.modules()} & EXTENSIONS.keys():
        importlib.import_module(EXTENSIONS[package])


def original(module: nn.Module) -> type[nn.Module]:
    """The module's class without deltatune's subclass."""
    return getattr(type(module), "original_class", type(module))


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
        hidden = "deltas" if hasattr(type(module), "original_class") else None
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


class Block(NamedTuple):
    """One repeated block: its width, its attention modules, and its feed-forward linears."""

    path: str
    module: nn.Module
    width: int
    attention: list[tuple[str, nn.Module]]
    feed_forward: list[tuple[str, nn.Module]]


def blocks(model: nn.Module) -> list[Block]:
    """The repeated blocks: outermost lists of children of one class that hold linear layers; else the whole model."""
    found: list[tuple[str, nn.Module]] = []
    for path, module in modules(model):
        if any(path == p or path.startswith(p + ".") for p, _ in found):
            continue
        children = list(module.named_children())
        alike = isinstance(module, (nn.ModuleList, nn.Sequential)) and len({original(c) for _, c in children}) == 1
        if alike and all(len(linears(c)) > 1 for _, c in children):
            found += [(f"{path}.{n}" if path else n, c) for n, c in children]
    return [_block(p, m) for p, m in found or [("", model)]]


def _block(path: str, module: nn.Module) -> Block:
    attention = [(p, m) for p, m in modules(module, path) if isinstance(m, nn.MultiheadAttention) or _projections(m)]
    inside = tuple(p + "." for p, _ in attention)
    # What BERT and ViT keep beside the attention module (`attention.output.dense`) belongs to attention too:
    # everything up to the last attention part in module order that shares its parent.
    outs = {id(attention_out(Block(path, module, 0, [a], []))[1]) for a in attention}
    outside = [(p, m) for p, m in linears(module, path) if not p.startswith(inside) and id(m) not in outs]
    projections = [m for _, a in attention for m in _projections(a).values()]
    if attention and isinstance(attention[0][1], nn.MultiheadAttention):
        width = attention[0][1].embed_dim
    elif projections:
        width = features(projections[0]).into
    else:
        inner = linears(module, path)
        width = features(inner[0][1]).into if inner else 0
    return Block(path, module, width, attention, [(p, m) for p, m in outside])


def _projections(module: nn.Module) -> dict[str, nn.Module]:
    """The direct query, key and value projections of an attention module, by role; empty for anything else."""
    children = {n: c for n, c in module.named_children() if is_linear(c)}
    for name, child in children.items():
        if name in FUSED and features(child).out > features(child).into:
            return {"fused": child}
    roles = {"query": QUERY, "key": KEY, "value": VALUE}
    found = {role: next((c for n, c in children.items() if n in names), None) for role, names in roles.items()}
    return {r: c for r, c in found.items() if c is not None} if all(c is not None for c in found.values()) else {}


def attention_out(block: Block) -> tuple[str, nn.Module]:
    """Where the block's (first) attention sublayer ends, before the residual add: a linear layer, or the module."""
    path, module = block.attention[0]
    if isinstance(module, nn.MultiheadAttention):
        return path, module
    projections = {id(m) for m in _projections(module).values()}
    own = [(p, m) for p, m in linears(module, path) if id(m) not in projections]
    if own:
        return own[-1]
    parent = path.rpartition(".")[0]  # BERT, ViT: attention.attention beside attention.output.dense
    beside = [(p, m) for p, m in linears(block.module, block.path) if p.startswith(parent + ".")]
    later = [(p, m) for p, m in beside if not p.startswith(path + ".")]
    return later[0] if later else (path, module)


def sublayer_outs(block: Block) -> list[tuple[str, nn.Module]]:
    """The end of every attention and of the feed-forward sublayer, before the residual add."""
    ends = [attention_out(block._replace(attention=[a])) for a in block.attention]
    last = [(p, m) for p, m in block.feed_forward if features(m).out == block.width]
    return ends + last[-1:]


def feed_forward_module(block: Block) -> tuple[str, nn.Module] | None:
    """The module that spans the feed-forward part alone (width to width), or None where the block has no such."""
    if not block.feed_forward:
        return None
    paths = [p.split(".") for p, _ in block.feed_forward]
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    path = ".".join(common)
    spans_more = not path.startswith(block.path) or len(path) <= len(block.path)
    if spans_more or len(block.feed_forward) < 2 or any(p.startswith(path + ".") for p, _ in block.attention):
        return None
    module = dict(modules(block.module, block.path))[path]
    return None if isinstance(module, nn.ModuleList) else (path, module)


def key_value(block: Block) -> list[tuple[str, nn.Module, tuple[int, int] | None]]:
    """The key and value projections; of a fused one, the outputs that are keys and values."""
    found: list[tuple[str, nn.Module, tuple[int, int] | None]] = []
    for path, module in block.attention:
        names = {id(c): f"{path}.{n}" if path else n for n, c in module.named_children()}
        for role, child in _projections(module).items():
            if role == "fused":
                into, out = features(child)
                found.append((names[id(child)], child, (into, out)))
            elif role != "query":
                found.append((names[id(child)], child, None))
    return found


def readers(block: Block) -> list[list[nn.Module]]:
    """Linear layers of the block that read one tensor: query, key and value, and a gated feed-forward's first two.

    Of the block's first attention alone: a second one takes its keys and values from elsewhere.
    """
    found = [list(_projections(module).values()) for _, module in block.attention[:1]]
    beside: dict[str, list[nn.Module]] = {}
    for path, module in block.feed_forward:
        if features(module).into == block.width:
            beside.setdefault(path.rpartition(".")[0], []).append(module)
    return [group for group in (*found, *beside.values()) if len(group) > 1]


def input_embedding(model: nn.Module) -> tuple[str, nn.Module] | None:
    """The token embedding: the model's own word for it, an encoder's before a decoder's, else its first nn.Embedding.

    (T5's own word is `shared`, which holds the tied table and is never called: its encoder has the one that is.)
    """
    named = getattr(model, "get_input_embeddings", None)
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        named = getattr(model.get_encoder(), "get_input_embeddings", named)  # type: ignore[operator]
    tables = [(p, m) for p, m in modules(model) if isinstance(m, nn.Embedding)]
    if named is not None:
        try:
            own = named()
        except NotImplementedError:
            own = None
        return next(((p, m) for p, m in tables if m is own), None)
    return tables[0] if tables else None


def output_head(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The task head of a Hugging Face model: the children beside its backbone that hold parameters of their own."""
    backbone = getattr(model, "base_model_prefix", None)
    if not backbone:
        return []
    shared = {id(p) for n, c in model.named_children() if n == backbone for p in c.parameters()}
    if not shared:  # a bare backbone, or a model that keeps its parts beside its head, as T5 does
        return []
    return [
        (p, m)
        for p, m in modules(model)
        if p.partition(".")[0] not in ("", backbone) and any(id(q) not in shared for q in m.parameters(recurse=False))
    ]


def attention_shape(host: nn.Module) -> tuple[int, int]:
    """(key/value heads, head size) of an attention module, read from its projections and its own attributes."""
    projections = _projections(host)
    numbers = {n: v for n, v in vars(host).items() if isinstance(v, int) and not isinstance(v, bool)}

    def first(*names: str) -> int | None:
        return next((numbers[n] for n in names if n in numbers), None)

    size = first("head_dim", "attention_head_size", "key_value_proj_dim", "head_size")
    heads = first("num_heads", "num_attention_heads", "n_heads", "n_head")
    if projections and (size or heads):
        any_key = projections.get("key", projections.get("fused"))
        assert any_key is not None
        query = projections.get("query")
        size = size or (features(query).out if query is not None else features(any_key).into) // (heads or 1)
        if query is not None:
            return features(any_key).out // size, size
        return (features(any_key).out - features(any_key).into) // (2 * size), size
    raise DeltaError(
        f"{original(host).__name__} does not show its key/value heads and head size; give heads= and head_dim="
    )


def unreachable(model: nn.Module) -> dict[str, str]:
    """Modules whose forward is never called though they look like layers: path -> why."""
    return {
        f"{p}.out_proj" if p else "out_proj": "nn.MultiheadAttention reads out_proj.weight and never calls the module"
        for p, m in modules(model)
        if isinstance(m, nn.MultiheadAttention)
    }
