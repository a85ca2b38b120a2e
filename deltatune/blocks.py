"""Where in a model the usual sites are: its repeated blocks, their attention and feed-forward parts, its ends.

Sites are found from structure: blocks are the repeated children of a list; within a block, the attention part is the
child that holds the query, key and value projections, and what writes back to the model's width ends a sublayer.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from deltatune.core import DeltaError
from deltatune.hosts import Heads, features, is_linear, learned_heads, linears, modules
from deltatune.maps import original

QUERY = {"q_proj", "query", "q", "q_lin", "wq", "to_q", "query_proj"}
KEY = {"k_proj", "key", "k", "k_lin", "wk", "to_k", "key_proj"}
VALUE = {"v_proj", "value", "v", "v_lin", "wv", "to_v", "value_proj"}
FUSED = {"c_attn", "qkv", "qkv_proj", "query_key_value", "Wqkv", "in_proj", "attn_qkv"}


class Block(NamedTuple):
    """One repeated block: its width, its attention modules, and its feed-forward linears."""

    path: str
    module: nn.Module
    width: int
    attention: list[tuple[str, nn.Module]]
    feed_forward: list[tuple[str, nn.Module]]


def blocks(model: nn.Module) -> list[Block]:
    """The repeated blocks with their parts."""
    return [_block(p, m) for p, m in repeated(model)]


def repeated(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The repeated blocks: outermost lists of children that all hold linear layers; else the whole model."""
    found: list[tuple[str, nn.Module]] = []
    for path, module in modules(model):
        if any(path == p or path.startswith(p + ".") for p, _ in found):
            continue
        children = list(module.named_children())
        one_class = len({original(c) for _, c in children}) == 1
        listed = isinstance(module, nn.ModuleList) or (isinstance(module, nn.Sequential) and one_class)
        if children and listed and all(len(linears(c)) > 1 for _, c in children):
            found += [(f"{path}.{n}" if path else n, c) for n, c in children]
    return found or [("", model)]


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
    by_role = {role: next((c for n, c in children.items() if n in names), None) for role, names in roles.items()}
    return {r: c for r, c in by_role.items() if c is not None} if all(c is not None for c in by_role.values()) else {}


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
    parts: list[tuple[str, nn.Module, tuple[int, int] | None]] = []
    for path, module in block.attention:
        names = {id(c): f"{path}.{n}" if path else n for n, c in module.named_children()}
        for role, child in _projections(module).items():
            if role == "fused":
                into, out = features(child)
                parts.append((names[id(child)], child, (into, out)))
            elif role != "query":
                parts.append((names[id(child)], child, None))
    return parts


def readers(block: Block) -> list[list[nn.Module]]:
    """Linear layers of the block that read one tensor: query, key and value, and a gated feed-forward's first two.

    Of the block's first attention alone: a second one takes its keys and values from elsewhere.
    """
    groups = [list(_projections(module).values()) for _, module in block.attention[:1]]
    beside: dict[str, list[nn.Module]] = {}
    for path, module in block.feed_forward:
        if features(module).into == block.width:
            beside.setdefault(path.rpartition(".")[0], []).append(module)
    return [group for group in (*groups, *beside.values()) if len(group) > 1]


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


def attention_shape(host: nn.Module) -> Heads:
    """(key/value heads, size of keys, size of values) of an attention module, as a run showed them, else from its own
    attributes."""
    if (seen := learned_heads.get(host)) is not None:
        return seen
    if isinstance(host, nn.MultiheadAttention):
        return Heads(host.num_heads, host.head_dim, host.head_dim)
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
            return Heads(features(any_key).out // size, size, size)
        return Heads((features(any_key).out - features(any_key).into) // (2 * size), size, size)
    raise DeltaError(
        f"{original(host).__name__} does not show its key/value heads and head size; give heads= and head_dim="
    )
