"""What is certified: every architecture of transformers, those of timm and torchvision, single hosts.

An architecture is a name and a function that makes it, tiny, with random weights and a batch that it runs on.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Batch = dict[str, Any]
LARGEST = 12_000_000  # parameters of a model that is still called tiny


class CannotBuild(Exception):
    """No recipe gives a model that is tiny, runs and repeats itself; the last reason is its message."""


@dataclass
class Subject:
    """A model to certify, on a batch. alone: a single layer, on which every method is put as the whole model."""

    model: nn.Module
    batch: Batch
    generates: bool = False
    alone: bool = False
    output: Tensor = field(default_factory=lambda: torch.empty(0))

    def fresh(self) -> nn.Module:
        """A copy of the model as it was made."""
        return copy.deepcopy(self.model)

    @functools.cached_property
    def trains(self) -> bool:
        """Whether the model alone gets through a backward; some write over what they have read."""
        return self.backward(self.fresh())

    @functools.cached_property
    def checkpoints(self) -> bool:
        """Whether the model alone trains with gradient checkpointing, and gives the same."""
        if not self.trains or not getattr(self.model, "supports_gradient_checkpointing", False):
            return False
        model: Any = self.fresh()
        try:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        except Exception:
            return False
        return self.backward(in_training(model))

    def backward(self, model: nn.Module) -> bool:
        model.requires_grad_(True)
        try:
            out = run(model, self.batch)
            out.square().mean().backward()
        except Exception:
            return False
        return torch.allclose(out.detach(), self.output, rtol=1e-3, atol=1e-3)

    @functools.cached_property
    def unused(self) -> set[str]:
        """Modules that this batch neither calls nor reads: with other weights the outputs are the same."""
        called: set[nn.Module] = set()
        model = self.fresh()
        handles = [m.register_forward_pre_hook(lambda m, _: called.add(m)) for m in model.modules()]
        with torch.no_grad():
            run(model, self.batch)
        for handle in handles:
            handle.remove()
        idle = {path: m for path, m in model.named_modules() if m not in called}
        return {path for path, m in idle.items() if not self.reads(m, model)}

    @torch.no_grad()
    def reads(self, module: nn.Module, model: nn.Module) -> bool:
        """Whether the outputs change with the module's own weights."""
        own = [p for p in module.parameters(recurse=False) if p.is_floating_point()]
        before = [p.clone() for p in own]
        for p in own:
            p.add_(0.5)
        try:
            return bool(own) and not torch.equal(run(model, self.batch), self.output)
        finally:
            for p, value in zip(own, before, strict=True):
                p.copy_(value)


@dataclass(frozen=True)
class Architecture:
    """family: where it is from, such as transformers."""

    name: str
    family: str
    make: Callable[[], Subject]


def architectures() -> list[Architecture]:
    """All that is installed, each once, by name."""
    from tests.certify import single, transformer, vision

    listed = [*transformer.architectures(), *vision.architectures(), *single.architectures()]
    return sorted({a.name: a for a in listed}.values(), key=lambda a: a.name)


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def roughened(model: nn.Module) -> nn.Module:
    """The model in eval, frozen, its weights moved from where they start: biases, norms and gates begin at 0 and 1,
    where errors hide. Matrices get a spread of about 1/√fan-in, so that outputs stay of order 1."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            if p.is_floating_point() and p.numel():
                spread = 0.1 if p.dim() < 2 else 0.7 / max(1, p[0].numel()) ** 0.5
                p += spread * torch.randn(p.shape, generator=generator).to(p.dtype)
    return model.eval().requires_grad_(False)


def in_training(model: nn.Module) -> nn.Module:
    """The model in train mode, where checkpointing is on; nothing is dropped out, and statistics stay as they are."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd):
            module.eval()
    return model


def leaves(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors of an output, caches and states left out."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            if not any(word in key for word in ("past", "cache", "state_", "mems", "loss")) and key != "state":
                yield from leaves(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from leaves(part)


def run(model: nn.Module, batch: Batch, seed: int = 0) -> Tensor:
    """All that the model gives for a batch, as one vector in fp32; what it draws, it draws from this seed."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = model(**batch)
    parts = [t.flatten().float() for t in leaves(out)]
    if not parts:
        raise CannotBuild("the model gives no floating-point tensor")
    return torch.cat(parts)


def checked(subject: Subject) -> Subject:
    """The subject, if it is small, finite, and gives the same twice."""
    model = subject.model
    if (size := sum(p.numel() for p in model.parameters())) > LARGEST:
        raise CannotBuild(f"{size:,} parameters")
    with torch.no_grad():
        once, again = run(model, subject.batch), run(model, subject.batch)
    if not torch.isfinite(once).all():
        raise CannotBuild("its outputs are not finite")
    if not torch.equal(once, again):
        raise CannotBuild("it does not give the same twice")
    subject.output = once
    return subject
