"""Floor 0, installed as `deltatune.kernels`: fused kernels, on torch and triton alone.

Every kernel has a plain twin in `deltatune.functional`, which defines what it computes and which runs where
`available` says no. Importing this package imports no triton and asks no device anything: the names below are looked
up in their files when first used.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .lora import lora_linear
    from .measure import tune
    from .routed import lora_linear_routed
    from .stacked import lora_linear_stacked

__all__ = ["available", "lora_linear", "lora_linear_routed", "lora_linear_stacked", "tune"]

HOMES = {
    "lora_linear": "lora",
    "lora_linear_routed": "routed",
    "lora_linear_stacked": "stacked",
    "tune": "measure",
}


def available(device: torch.device | str) -> bool:
    """Whether fused kernels can run on `device`: it is a CUDA device and triton is installed.

    Says nothing about a kernel's own limits on dtype or size; each states those itself.
    """
    return torch.device(device).type == "cuda" and find_spec("triton") is not None


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f".{HOMES[name]}", __name__), name)
    globals()[name] = found
    return found
