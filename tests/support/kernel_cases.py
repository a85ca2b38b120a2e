"""Layers for the kernel tests, their fp64 reference, and how far each dtype may be from it.

Without a GPU the kernels run in Triton's interpreter (tests/conftest.py switches it on), with one they run on it.

Legend: M rows, N outputs, K inputs, R rank; x (..., K), W (N, K), b (N,), A (R, K), B (N, R).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from deltatune.kernels.dispatch import arch_of, runs
from deltatune.kernels.mask import draw_seed, keep, rescale, threshold
from tests.support import tolerance

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SCALE = 1.7
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
NAMES = ("y", "dx", "db", "dA", "dB")


class Layer(NamedTuple):
    x: Tensor
    W: Tensor
    b: Tensor | None
    A: Tensor
    B: Tensor
    dY: Tensor


def layer(
    M: int, N: int, K: int, R: int, dtype: torch.dtype = torch.float32, master: torch.dtype | None = None,
    bias: bool = True, seed: int = 0,
) -> Layer:  # fmt: skip
    """A layer whose numbers are about 1; factors in `master`, by default x's dtype."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int, over: float = 1.0, to: torch.dtype = dtype) -> Tensor:
        return (torch.randn(*shape, generator=g) / over**0.5).to(DEVICE, to)

    master = master or dtype
    return Layer(
        normal(M, K).requires_grad_(),
        normal(N, K, over=K),
        normal(N).requires_grad_() if bias else None,
        normal(R, K, over=K, to=master).requires_grad_(),
        normal(N, R, over=R, to=master).requires_grad_(),
        normal(M, N),
    )


def mask_of(x: Tensor, p: float, seed: int) -> Tensor:
    """The factor keep / (1-p) that a call draws after torch.manual_seed(seed), (M, K) in fp64."""
    if not p:
        return torch.ones(x.shape[:-1].numel(), x.shape[-1], dtype=torch.float64, device=x.device)
    torch.manual_seed(seed)
    t = threshold(p)
    return keep(draw_seed(x), x.shape[:-1].numel(), x.shape[-1], t).double() * rescale(t)


def gradients(y: Tensor, at: Layer) -> list[Tensor | None]:
    """[y, dx, db, dA, dB]; None for what needs no gradient."""
    wanted = [t for t in (at.x, at.b, at.A, at.B) if t is not None and t.requires_grad]
    found = iter(torch.autograd.grad(y, wanted, at.dY.view_as(y).to(y.dtype)))
    return [y, *(next(found) if t is not None and t.requires_grad else None for t in (at.x, at.b, at.A, at.B))]


def eager(at: Layer, factor: Tensor | None = None, s: float = SCALE) -> list[Tensor | None]:
    """The layer as PEFT spells it, in its own dtype; `factor` is keep / (1-p)."""
    x = at.x if factor is None else at.x * factor.view_as(at.x).to(at.x.dtype)
    S = F.linear(x, at.A.to(at.x.dtype))
    return gradients(F.linear(at.x, at.W, at.b) + s * F.linear(S, at.B.to(at.x.dtype)), at)


def reference(at: Layer, factor: Tensor | None = None, s: float = SCALE) -> list[Tensor | None]:
    """The same in fp64."""
    wide = Layer(*(t if t is None else t.detach().double().requires_grad_(t.requires_grad) for t in at))
    return eager(wide, factor, s)


def error(found: Tensor | None, true: Tensor | None) -> float:
    """‖found - true‖ / ‖true‖, and 0 where neither is there."""
    if found is None or true is None:
        assert found is None and true is None
        return 0.0
    return tolerance.error(found, true)


def allowed(dtype: torch.dtype, *lengths: int) -> float:
    """The relative error of a layer with sums of these lengths, kept in fp32: S or dS is rounded, and the result.

    The interpreter cuts bf16 off where a GPU rounds to nearest, which doubles a rounding's error.
    """
    if dtype is torch.float32:
        return tolerance.bound(dtype, *lengths)
    return tolerance.bound(dtype, *lengths, roundings=4 if dtype is torch.bfloat16 and DEVICE == "cpu" else 2)


def close(found: list[Tensor | None], true: list[Tensor | None], at: Layer) -> None:
    """Assert that these are the layer's numbers up to rounding; its sums are over rows, inputs, outputs and ranks."""
    limit = allowed(at.x.dtype, at.x.shape[:-1].numel(), *at.W.shape, len(at.A))
    for name, ours, theirs in zip(NAMES, found, true):
        assert error(ours, theirs) <= limit, f"{name}: {error(ours, theirs):.2e} of {limit:.2e}"


def triton_runs() -> bool:
    """Whether the Triton path can run here at all; a suite that quietly took the plain path would prove nothing."""
    return runs(arch_of(torch.device(DEVICE)), torch.float32)
