"""What was reached: which of a model's linear maps, convolutions and experts included, LoRA's usual sites cover."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from torch import nn

import deltatune as dt
from deltatune.blocks import output_head
from tests.certify.architectures import Subject

NORM = re.compile(r"norm", re.IGNORECASE)


def linear_maps(model: nn.Module) -> dict[str, str]:
    """Path -> kind of every linear map inside the model: layers with a matrix, and matrices of experts held bare.

    Token embeddings, norms and the output head are none: the head is another method's, a table's rows are no layer.
    """
    heads = {path for path, _ in output_head(model)}
    found: Any = getattr(model, "get_output_embeddings", lambda: None)
    try:
        last = found()
    except Exception:
        last = None
    maps = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding) or NORM.search(type(module).__name__) or path in heads or module is last:
            continue
        weight = module._parameters.get("weight")
        if weight is not None and weight.dim() >= 2:
            maps[path] = type(module).__name__
            continue
        for name, p in module._parameters.items():
            if p is not None and p.dim() == 3 and len(p) > 1 and min(p.shape[1:]) > 1:
                maps[f"{path}.{name}" if path else name] = "experts"
            elif p is not None and p.dim() == 2 and name.endswith("proj_weight"):
                maps[f"{path}.{name}" if path else name] = "projection"
    return {path: kind for path, kind in maps.items() if path not in heads}


def reach(subject: Subject) -> dict[str, Any]:
    """covered and all of the maps that the batch has a use for; what is left out, by kind and place; and how many of
    those the plan leaves out without a word."""
    maps = {
        path: kind
        for path, kind in linear_maps(subject.model).items()
        if path not in subject.unused and path.rpartition(".")[0] not in subject.unused
    }
    try:
        plan = dt.plan(subject.fresh(), dt.LoRA.on(rank=1))
    except dt.DeltaError as error:
        return {"covered": 0, "maps": len(maps), "silent": 0, "left": {f"refused: {error}": len(maps)}}
    sites, words = {row.path for row in plan.rows}, "\n".join(plan.notes)
    left = {path: kind for path, kind in maps.items() if path not in sites and path.rpartition(".")[0] not in sites}
    named = Counter(f"{re.sub(r'[0-9]+', '*', path)} ({kind})" for path, kind in left.items())
    silent = sum(folded(path) not in words and folded(path.rpartition(".")[0]) not in words for path in left)
    return {"covered": len(maps) - len(left), "maps": len(maps), "silent": silent, "left": dict(named.most_common(12))}


def folded(path: str) -> str:
    """A path as a plan prints it, numbers of layers as stars."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", path)
