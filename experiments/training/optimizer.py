"""AdamW over fp32 masters, with warmup, decay and clipping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import deltatune as dt
from experiments.config.schema import Decay, OptimConfig


def groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters of the model: those under weight decay, and those without.

    A delta's method says whether decay makes sense for it; in the base, norms and biases (1-D) have none.
    """
    spared = {
        id(p)
        for module in model.modules()
        if isinstance(module, dt.DeltaModule) and not module.weight_decay
        for p in module.parameters()
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    plain = [p for p in trained if id(p) in spared or p.dim() < 2]
    chosen = {id(p) for p in plain}
    return [p for p in trained if id(p) not in chosen], plain


def learning_rate(step: int, optim: OptimConfig) -> float:
    """Of a step, from 0: a linear rise over the warmup's share of the steps, then the decay to zero at the end."""
    rise = round(optim.warmup * optim.steps)
    if step < rise:
        return optim.lr * (step + 1) / rise
    done = (step - rise) / max(1, optim.steps - rise)
    if optim.decay is Decay.constant:
        return optim.lr
    return optim.lr * (1 - done if optim.decay is Decay.linear else (1 + math.cos(math.pi * done)) / 2)


class Optimizer:
    """AdamW. A parameter below fp32 gets an fp32 master, which also collects its gradient, so sums of parts and small
    updates are not lost to rounding (in pure bf16, at 1e-5, most steps change most weights not at all)."""

    def __init__(self, decayed: Sequence[nn.Parameter], plain: Sequence[nn.Parameter], optim: OptimConfig):
        self.optim = optim
        self.parameters = [*decayed, *plain]
        self.masters = [self.master(p) for p in self.parameters]
        n = len(decayed)
        parts = [
            {"params": self.masters[:n], "weight_decay": optim.weight_decay},
            {"params": self.masters[n:], "weight_decay": 0.0},
        ]
        parts = [part for part in parts if part["params"]]
        self.adam = torch.optim.AdamW(parts, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True)

    @staticmethod
    def master(p: nn.Parameter) -> Tensor:
        """The parameter itself where it is fp32 or wider, else a copy that takes each gradient over at once."""
        if torch.finfo(p.dtype).bits >= 32:
            return p
        master = p.detach().float()

        def move(p: Tensor) -> None:
            assert p.grad is not None
            grad = p.grad.float()
            master.grad = grad if master.grad is None else master.grad.add_(grad)
            p.grad = None

        p.register_post_accumulate_grad_hook(move)
        return master

    def step(self, step: int) -> float:
        """Clip, update, and forget the gradients; the gradient's norm before clipping, which may be NaN."""
        norm = float(nn.utils.clip_grad_norm_(self.masters, self.optim.clip))
        if math.isfinite(norm):
            for part in self.adam.param_groups:
                part["lr"] = learning_rate(step, self.optim)
            self.adam.step()
            self.copy_out()
        self.adam.zero_grad(set_to_none=True)
        return norm

    @torch.no_grad()
    def copy_out(self) -> None:
        for p, master in zip(self.parameters, self.masters):
            if p is not master:
                p.copy_(master)

    def state_dict(self) -> dict[str, Any]:
        return {"masters": [m.detach() for m in self.masters], "adam": self.adam.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for master, saved in zip(self.masters, state["masters"], strict=True):
            master.copy_(saved)
        self.copy_out()
        self.adam.load_state_dict(state["adam"])
