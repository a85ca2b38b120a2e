"""PEFT's own layers as arms of a comparison, so that the same protocol says whether ours are equivalent to them.

    python -m experiments.compare plugins=[benchmarks.peft_arms] 'methods=[lora,peft_lora,ia3,peft_ia3]' margin=0.02

Injection, optimizer, data and evaluation are deltatune's; initialisation, forward and backward of the added parameters
are PEFT's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peft import IA3Config, LoraConfig
from peft.tuners import ia3, lora
from torch import Tensor, nn

import deltatune as dt
from deltatune.hosts import delta_dtype, device_of, features
from experiments.extend import method

ADAPTER = "default"  # PEFT's name of the adapter in a layer


class Through(nn.Linear):
    """A layer of the host's shape for PEFT to stand around; what it gives is the host's own output."""

    def __init__(self, host: nn.Module) -> None:
        size = features(host)
        super().__init__(size.into, size.out, device=device_of(host), dtype=delta_dtype(host))
        self.base: Callable[[Tensor], Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        assert self.base is not None
        return self.base(input)


class PeftDelta(dt.DeltaModule):
    """The forward of a layer of PEFT around the host; its trained parts alone are the delta's."""

    def stand(self, layer: nn.Module, *parts: str) -> None:
        """Keep the layer beside this module, whose children are the parts that train."""
        object.__setattr__(self, "layer", layer)
        for part in parts:
            self.add_module(part, getattr(layer, part))

    def forward(self, base: Callable[..., Any], x: Tensor, *args: Any, strength: float = 1.0, **kwargs: Any) -> Tensor:
        layer: Any = self.layer
        layer.train(self.training)
        layer.base_layer.base = base
        h = layer(x)
        if strength == 1.0:
            return h
        plain = base(x, *args, **kwargs)
        return plain + strength * (h - plain)


@method("peft_lora", lr=3e-3, rank=16, alpha=32)
class PeftLoRA(PeftDelta):
    """PEFT's LoRA; sites and hyperparameters as ours."""

    def __init__(self, host: nn.Module, *, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.rank, self.alpha, self.dropout = rank, alpha, dropout
        config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout)  # type: ignore[arg-type]
        self.stand(lora.layer.Linear(Through(host), ADAPTER, config, r=rank, lora_alpha=alpha), "lora_A", "lora_B")  # type: ignore[arg-type]

    @classmethod
    def usual(cls, model: nn.Module, hparams: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        return dt.LoRA.usual(model, {})


@method("peft_ia3", lr=9e-2)
class PeftIA3(PeftDelta):
    """PEFT's IA3; sites as ours."""

    weight_decay = False

    def __init__(self, host: nn.Module, *, form: str = "output") -> None:
        super().__init__()
        self.form = form
        inner = ia3.layer.Linear(Through(host), ADAPTER, IA3Config(), is_feedforward=form == "input")
        self.stand(inner, "ia3_l")

    @classmethod
    def usual(cls, model: nn.Module, hparams: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        return dt.IA3.usual(model, {})
