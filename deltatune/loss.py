"""Cross-entropy through an output head without keeping its logits.

Legend: M rows, D width, V vocabulary; h (M, D) hidden states, W (V, D) and b (V,) the head, t (M,) targets.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deltatune.fast import refuse_second_order

# The size of one chunk's logits in fp32. On a CPU they stay near its caches. A GPU reads the head once more for every
# chunk: an H200 took 42 ms with 32 MiB (4096 x 4096 -> 128256), and takes 17 in one pass that keeps all logits.
CPU_BYTES, GPU_BYTES = 1 << 25, 1 << 29


def linear_cross_entropy(h: Tensor, W: Tensor, t: Tensor, b: Tensor | None = None, chunk: int | None = None) -> Tensor:
    """Σₘ −log softmax(W hₘ + b)[tₘ], the sum over rows, in fp32.

    Equal to F.cross_entropy((h Wᵀ + b).float(), t, reduction="sum") to fp32 rounding; but the rows go through the
    head `chunk` at a time (by default as many as make 32 MiB of fp32 logits, on a GPU 512), and each chunk's gradient
    is made while its logits exist, so that memory is M·D + chunk·V, not 4·M·V. Give it the labelled rows alone. A head
    that is trained gets its gradient too. Raises ValueError where shapes do not fit; a target outside 0 ≤ t < V is an
    IndexError of torch. Under autocast h, W and b are cast as F.linear casts them.
    """
    if h.dim() != 2 or W.shape[1:] != h.shape[1:] or t.shape != h.shape[:1]:
        raise ValueError(
            f"linear_cross_entropy takes h (M, D), W (V, D), t (M,), not {list(h.shape)}, {list(W.shape)}, "
            f"{list(t.shape)}; pick the labelled rows first: hidden[labels != -100]"
        )
    device = h.device.type
    if torch.is_autocast_enabled(device) and h.dtype is not torch.float64:  # which autocast leaves alone
        dtype = torch.get_autocast_dtype(device)
        h, W, b = h.to(dtype), W.to(dtype), None if b is None else b.to(dtype)
        with torch.autocast(device, enabled=False):
            return linear_cross_entropy(h, W, t, b, chunk)
    logits = CPU_BYTES if device == "cpu" else GPU_BYTES
    return LinearCrossEntropy.apply(h, W, b, t, chunk or max(1, logits // (4 * len(W))))


class LinearCrossEntropy(torch.autograd.Function):
    """dz = softmax(z) − onehot(t) where z = W h + b; dh = dz W, dW = dzᵀ h, db = Σ dz, made in the forward."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, W: Tensor, b: Tensor | None, t: Tensor, chunk: int) -> Tensor:
        wants_h, wants_W, wants_b, *_ = ctx.needs_input_grad
        dh = torch.empty_like(h) if wants_h else None
        dW = torch.zeros_like(W) if wants_W else None
        db = torch.zeros_like(b) if wants_b and b is not None else None
        total = torch.zeros((), dtype=torch.promote_types(h.dtype, torch.float32), device=h.device)
        for rows in (slice(i, i + chunk) for i in range(0, len(h), chunk)):
            target = t[rows, None]
            logp = F.log_softmax(F.linear(h[rows], W, b), -1, dtype=total.dtype)
            total -= logp.gather(1, target).sum()
            if not any((wants_h, wants_W, wants_b)):
                continue
            logp.exp_().scatter_add_(1, target, -torch.ones_like(target, dtype=total.dtype))
            dz = logp.to(h.dtype)
            if dh is not None:
                torch.mm(dz, W, out=dh[rows])
            if dW is not None:
                dW.addmm_(dz.t(), h[rows])
            if db is not None:
                db += logp.sum(0).to(db.dtype)
        ctx.save_for_backward(dh, dW, db)
        return total

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_order()
        return *(None if g is None else g * d.to(g.dtype) for g in ctx.saved_tensors), None, None
