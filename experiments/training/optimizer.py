"""AdamW over fp32 masters, with warm-up, decay and clipping; a rate for each role of the parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

import deltatune as dt
from deltatune.blocks import output_head
from experiments.config.schema import Decay, OptimConfig

WARMUP_STEPS, WARMUP_SHARE = 20, 3  # the usual rise, and of a short training its third


class Role(Enum):
    """What a parameter is to the method: its delta, the head that is new to the task, or the base it started from."""

    delta = "delta"
    head = "head"
    base = "base"


@dataclass(frozen=True)
class Group:
    """Parameters of one role, all under weight decay or none."""

    role: Role
    decayed: bool
    parameters: tuple[nn.Parameter, ...]

    def lr(self, optim: OptimConfig) -> float:
        """The group's rate at its highest: optim.head_lr of a task head, optim.lr of the others."""
        return optim.head_lr if self.role is Role.head else optim.lr


def groups(model: nn.Module) -> list[Group]:
    """The trainable parameters of the model by role and decay; groups without any are left out.

    A delta's method says whether decay makes sense for it; in the base and a head, norms and biases (1-D) have none.
    """
    roles: dict[int, Role] = {}
    spared: set[int] = set()
    embeddings = getattr(model, "get_output_embeddings", lambda: None)()
    if embeddings is None:  # what a language model ends in is its own, not new
        roles |= {id(p): Role.head for _, module in output_head(model) for p in module.parameters()}
    for module in model.modules():
        if isinstance(module, dt.DeltaModule):
            role = Role.head if isinstance(module, dt.Head) else Role.delta
            roles |= {id(p): role for p in module.parameters()}
            spared |= set() if module.weight_decay else {id(p) for p in module.parameters()}
    chosen: dict[tuple[Role, bool], list[nn.Parameter]] = {}
    for p in model.parameters():
        if p.requires_grad:
            decayed = p.dim() >= 2 and id(p) not in spared
            chosen.setdefault((roles.get(id(p), Role.base), decayed), []).append(p)
    return [
        Group(role, decayed, tuple(chosen[role, decayed]))
        for role in Role
        for decayed in (True, False)
        if (role, decayed) in chosen
    ]


def rise(optim: OptimConfig) -> int:
    """The steps of the warm-up: optim.warmup_steps, or what is usual for a training so long."""
    usual = min(WARMUP_STEPS, optim.steps // WARMUP_SHARE)
    return usual if optim.warmup_steps is None else optim.warmup_steps


def schedule(step: int, optim: OptimConfig) -> float:
    """The share of its rate that a group has in a step, from 0: a linear rise to 1, then the decay to 0 at the end."""
    rising = rise(optim)
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, optim.steps - rising)
    if optim.decay is Decay.constant:
        return 1.0
    return 1 - done if optim.decay is Decay.linear else (1 + math.cos(math.pi * done)) / 2


class Optimizer:
    """AdamW. A parameter below fp32 gets an fp32 master, which also collects its gradient, so sums of parts and small
    updates are not lost to rounding (in pure bf16, at 1e-5, most steps change most weights not at all)."""

    def __init__(self, groups: Sequence[Group], optim: OptimConfig):
        self.optim, self.groups = optim, groups
        self.parameters = [p for group in groups for p in group.parameters]
        masters: Iterator[Tensor] = map(self.master, self.parameters)
        parts = [
            {
                "params": [next(masters) for _ in group.parameters],
                "weight_decay": optim.weight_decay if group.decayed else 0.0,
                "lr": group.lr(optim),
            }
            for group in groups
        ]
        self.masters = [master for part in parts for master in part["params"]]
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
            for group, part in zip(self.groups, self.adam.param_groups):
                part["lr"] = group.lr(self.optim) * schedule(step, self.optim)
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
