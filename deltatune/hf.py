"""What deltatune knows of transformers. The one file that imports it; loaded when such a model is met.

Conv1D is a linear map with its weight transposed. Attention in models that run "eager" goes through transformers'
AttentionInterface: the model is switched to an interface of ours that computes the same and lets deltas in.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.pytorch_utils import Conv1D

from deltatune.call import attended
from deltatune.core import NotReached
from deltatune.host import Host, deltas
from deltatune.hosts import modules
from deltatune.inject import CLOSERS, OPENERS
from deltatune.maps import FORWARD, MAPS, Map, linear_of, transposed

EAGER = "deltatune_eager"

MAPS[Conv1D] = Map(FORWARD, transposed, linear_of)


def eager(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' eager attention, with the module's attention deltas around it.

    query (B, H, T, D), key and value (B, H_kv, S, D) -> output (B, T, H, D) and weights (B, H, T, S), the prefix's
    columns first.
    """
    for special in ("softcap", "s_aux"):
        if kwargs.get(special) is not None:
            raise NotReached(f"{type(module).__name__}: attention with {special} has no prefix form here")
    weights: Tensor | None = None
    bias = kwargs.get("position_bias")
    if bias is not None:
        attention_mask = bias if attention_mask is None else bias + attention_mask

    def attend(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        nonlocal weights
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            scores = scores + attn_mask
        shares = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
        weights = shares
        return F.dropout(shares, dropout_p, dropout_p > 0) @ v

    rate = dropout if module.training else 0.0
    term = attended(module, attend) if isinstance(module, Host) else attend
    out = term(query, key, value, attn_mask=attention_mask, dropout_p=rate, scale=scaling)
    return out.transpose(1, 2).contiguous(), weights


AttentionInterface.register(EAGER, eager)
AttentionMaskInterface.register(EAGER, eager_mask)


def configs(model: nn.Module) -> list[Any]:
    """The configs of the model and of its parts, each once."""
    found = {id(m.config): m.config for _, m in modules(model) if isinstance(m, PreTrainedModel)}
    for _, m in modules(model):
        config = vars(m).get("config")
        if config is not None and "_attn_implementation" in dir(config):
            found[id(config)] = config
    return list(found.values())


def open_attention(model: nn.Module, host: nn.Module) -> None:
    """Let attention deltas in: sdpa is intercepted as it is, eager is switched to ours, others are refused."""
    config = vars(host).get("config")
    kind = None if config is None else config._attn_implementation
    if kind in (None, "sdpa", EAGER):
        return
    if kind != "eager":
        raise NotReached(
            f"{type(host).__name__} attends with {kind!r}, which no prefix can enter; load the model with "
            "attn_implementation='sdpa'"
        )
    for each in configs(model):
        if each._attn_implementation == "eager":
            each._attn_implementation = EAGER


def close_attention(model: nn.Module) -> None:
    """Back to eager when the last attention delta is out."""
    if not any(delta.site == "attention" for *_, delta in deltas(model)):
        for each in configs(model):
            if each._attn_implementation == EAGER:
                each._attn_implementation = "eager"


OPENERS.append(open_attention)
CLOSERS.append(close_attention)
