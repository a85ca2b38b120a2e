"""What a LoRA layer must cost: floating-point operations, elements moved, and the two roofs of a machine.

Legend: M rows, K inputs, N outputs, R rank. y = x Wᵀ + s · x Aᵀ Bᵀ with W frozen. Modelled numbers all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from benchmarks.timing import Timed, measure

PARTS = {"fwd": ("fwd",), "bwd": ("bwd",), "both": ("fwd", "bwd")}


def lora_limit(K: int, N: int, R: int) -> float:
    """1 + 1.5 R (1/K + 1/N): operations of forward and backward over the frozen layer's."""
    return 1 + 1.5 * R * (1 / K + 1 / N)


def frozen_flops(op: str, M: int, K: int, N: int, dx: bool = True) -> int:
    """2MKN forward, 2MKN backward (dX = dY W) where dX is wanted."""
    return 2 * M * K * N * (("fwd" in PARTS[op]) + ("bwd" in PARTS[op] and dx))


def full_flops(op: str, M: int, K: int, N: int, dx: bool = True) -> int:
    """The frozen layer's and dW = dYᵀ x, 2MKN."""
    return frozen_flops(op, M, K, N, dx) + 2 * M * K * N * ("bwd" in PARTS[op])


def lora_flops(op: str, M: int, K: int, N: int, R: int, dx: bool = True) -> int:
    """The frozen layer's; S = x Aᵀ and S Bᵀ forward; dS = dY B, dB = dYᵀ S, dA = dSᵀ x and, with dX, dS A."""
    forward = 2 * M * R * (K + N)
    backward = 2 * M * R * (2 * N + K + K * dx)
    extra = forward * ("fwd" in PARTS[op]) + backward * ("bwd" in PARTS[op])
    return frozen_flops(op, M, K, N, dx) + extra


def limit(op: str, K: int, N: int, R: int, dx: bool = True) -> float | None:
    """`lora_flops` over `frozen_flops`; None where the frozen layer has nothing to do (a backward without dX)."""
    frozen = frozen_flops(op, 1, K, N, dx)
    return lora_flops(op, 1, K, N, R, dx) / frozen if frozen else None


def adapter_limit(op: str, K: int, N: int, width: int, dx: bool = True) -> float | None:
    """The same of a serial bottleneck behind it: h W₁ᵀ and a W₂ᵀ forward; dY W₂, dW₂, dW₁ and, with dX, du W₁."""
    frozen = frozen_flops(op, 1, K, N, dx)
    extra = 2 * N * width * (2 * ("fwd" in PARTS[op]) + (3 + dx) * ("bwd" in PARTS[op]))
    return 1 + extra / frozen if frozen else None


def moved(path: str, M: int, K: int, N: int, dropout: bool = False) -> int:
    """Elements read and written in forward and backward, the R-wide ones left out.

    Frozen 2MK + 2MN + 2NK; above it PEFT 6MK + 10MN (dropout + 5MK), addmm 5MK + 5MN, the split design 2MK + MN, the
    floor MK (x once more, for dA).
    """
    extra = {
        "frozen": 0,
        "peft": 6 * M * K + 10 * M * N + 5 * M * K * dropout,
        "addmm": 5 * M * K + 5 * M * N,
        "split": 2 * M * K + M * N,
        "floor": M * K,
    }
    if path not in extra:
        raise ValueError(f"no model of the path {path!r}; there are: {', '.join(extra)}")
    return 2 * M * K + 2 * M * N + 2 * N * K + extra[path]


class Machine(NamedTuple):
    """Peaks: TFLOP/s of one dtype and GB/s of memory."""

    tflops: float
    gb_s: float

    def roof(self, intensity: float) -> float:
        """Attainable TFLOP/s at `intensity` operations a byte."""
        return min(self.tflops, intensity * self.gb_s / 1e3)

    def ms(self, flops: float, moved_bytes: float) -> float:
        """The time of the slower roof, as if the other were hidden under it."""
        return max(flops / self.tflops / 1e9, moved_bytes / self.gb_s / 1e6)


def measured(device: torch.device, dtype: torch.dtype, size: int | None = None, repeats: int = 10) -> Machine:
    """Peaks as reached here: a square product, and the copy of a tensor far over the caches."""
    size = size or (8192 if device.type == "cuda" else 1024)
    a = torch.randn(size, size, device=device).to(dtype)
    source = torch.empty(size * size * 16, dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    calls = {"product": Timed(lambda: a @ a), "copy": Timed(lambda: target.copy_(source))}
    times = measure(calls, device, repeats)
    product, copy = times["product"], times["copy"]
    if isinstance(product, str) or isinstance(copy, str):
        raise RuntimeError(f"the peaks of {device} in {dtype} cannot be measured: {product}, {copy}")
    return Machine(2 * size**3 / product.y_min / 1e9, 2 * source.nbytes / copy.y_min / 1e6)
