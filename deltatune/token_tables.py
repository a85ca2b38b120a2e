"""Where token ids become vectors: a model's token embeddings, and what stands right behind them."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from deltatune.hosts import modules

Table = tuple[str, nn.Embedding]


def token_tables(model: nn.Module) -> list[Table]:
    """The token embeddings: the one that the model names, and those that hold the very same weight.

    Asked are the encoder and the decoder where there are both, then the model, then the models inside it, which know
    their own where the whole does not (CLIP) or names another kind of input (Whisper's encoder); a model that names
    none has its first nn.Embedding. A table that only holds what encoder and decoder share is called by nobody.
    """
    tables = {id(m): (p, m) for p, m in modules(model) if isinstance(m, nn.Embedding)}
    if not tables:
        return []
    both = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    stacks = [answer(model, verb) for verb in ("get_encoder", "get_decoder") if both]
    own = [table for stack in stacks if (table := tables.get(id(answer(stack, "get_input_embeddings"))))]
    held = answer(model, "get_input_embeddings")
    if not own:
        asked = [m for _, m in modules(model) if hasattr(m, "get_input_embeddings")]
        named = (tables.get(id(answer(m, "get_input_embeddings"))) for m in asked)
        first = next((table for table in named if table), None if asked else next(iter(tables.values())))
        if first is None:  # pixels, sound: no model in it has a table of tokens
            return []
        own = [first]
    weight, calls = own[0][1].weight, {id(m) for _, m in own}
    alike = [t for t in tables.values() if t[1].weight is weight and (id(t[1]) in calls or t[1] is not held)]
    return alike or own[:1]


def answer(model: Any, verb: str) -> Any:
    """What a model says when it is asked this, None where it has no answer."""
    ask = getattr(model, verb, None)
    try:
        return None if ask is None else ask()
    except (NotImplementedError, AttributeError):
        return None


def normalised(model: nn.Module, path: str) -> bool:
    """Whether a norm stands right behind a table, which would undo any scale of its rows (Funnel, BLOOM, ModernBERT).

    Told from the order in which the table's parent holds its parts: the next one with parameters is a norm.
    """
    parent, _, name = path.rpartition(".")
    parts = list(model.get_submodule(parent).named_children())
    width = cast(nn.Embedding, model.get_submodule(path)).weight.shape[1]
    behind = parts[[n for n, _ in parts].index(name) + 1 :] if name else []
    shapes = next(([p.shape for p in m.parameters()] for _, m in behind if any(True for _ in m.parameters())), [])
    return bool(shapes) and all(shape == (width,) for shape in shapes)
