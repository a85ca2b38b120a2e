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
from deltatune.host import Host, deltas
from deltatune.hosts import modules
from deltatune.inject import CLOSERS, OPENERS
from deltatune.maps import FORWARD, MAPS, Map, linear_of, transposed

OURS = "deltatune_"  # stands before the name of the attention that ours replaces

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
    columns first where it knows neither softcap nor sinks.
    """
    weights: Tensor | None = None
    bias = kwargs.get("position_bias")
    if bias is not None:
        attention_mask = bias if attention_mask is None else bias + attention_mask
    cap, sinks, rate = kwargs.get("softcap"), kwargs.get("s_aux"), dropout if module.training else 0.0
    if cap is not None or sinks is not None:
        return written_out(query, key, value, attention_mask, scaling, rate, cap, sinks)

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

    term = attended(module, attend) if isinstance(module, Host) else attend
    out = term(query, key, value, attn_mask=attention_mask, dropout_p=rate, scale=scaling)
    return out.transpose(1, 2).contiguous(), weights


def written_out(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float | None,
    rate: float,
    cap: float | None,
    sinks: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Attention with capped scores, cap · tanh(s / cap), and a sink (H,) that takes a share of each row and gives
    nothing; the host's attention deltas find their way in as they do into a module's own softmax."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = torch.matmul(q, k.transpose(-1, -2)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    if mask is not None:
        scores = scores + mask
    if sinks is not None:
        column = sinks.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, column], -1)
    shares = F.softmax(scores, -1, dtype=torch.float32).to(q.dtype)
    shares = F.dropout(shares[..., : k.shape[-2]], rate, rate > 0)
    return torch.matmul(shares, v).transpose(1, 2).contiguous(), shares


def configs(model: nn.Module) -> list[Any]:
    """The configs of the model and of its parts, each once."""
    found = {id(m.config): m.config for _, m in modules(model) if isinstance(m, PreTrainedModel)}
    for _, m in modules(model):
        config = vars(m).get("config")
        if config is not None and "_attn_implementation" in dir(config):
            found[id(config)] = config
    return list(found.values())


def open_attention(model: nn.Module, host: nn.Module) -> None:
    """Let attention deltas in: sdpa is intercepted as it is; eager, flash, flex and others are switched to ours."""
    config = vars(host).get("config")
    kind = None if config is None else config._attn_implementation
    if kind in (None, "sdpa") or kind.startswith(OURS):
        return
    AttentionInterface.register(OURS + kind, eager)
    AttentionMaskInterface.register(OURS + kind, eager_mask)
    for each in configs(model):
        if each._attn_implementation == kind:
            each._attn_implementation = OURS + kind


def close_attention(model: nn.Module) -> None:
    """Each config's own attention again when the last attention delta is out."""
    if not any(delta.site == "attention" for *_, delta in deltas(model)):
        for each in configs(model):
            if (each._attn_implementation or "").startswith(OURS):
                each._attn_implementation = each._attn_implementation.removeprefix(OURS)


OPENERS.append(open_attention)
CLOSERS.append(close_attention)
