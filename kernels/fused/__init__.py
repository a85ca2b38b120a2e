"""Floor 0, installed as `deltatune.kernels`: fused kernels, on torch and triton alone.

Every kernel has a plain twin in `deltatune.functional`, which defines what it computes and which runs where
`available` says no. Importing this package imports no triton and asks no device anything.
"""

from importlib.util import find_spec

import torch

__all__ = ["available"]


def available(device: torch.device | str) -> bool:
    """Whether fused kernels can run on `device`: it is a CUDA device and triton is installed.

    Says nothing about a kernel's own limits on dtype or size; each states those itself.
    """
    return torch.device(device).type == "cuda" and find_spec("triton") is not None
