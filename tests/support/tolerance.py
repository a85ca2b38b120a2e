"""How far rounding may take one computation of a number from another, on any CPU or GPU.

By dtype and lengths of sums alone, never by what one machine printed; CONTRIBUTING.md, "Tolerances", derives it. With
u the unit roundoff, half of eps, a sum of n rounded products is off by at most γₙ = n u / (1 − n u) times the sum of
their absolute values, in whatever order, in whatever blocks, fused or not (N. J. Higham, Accuracy and Stability of
Numerical Algorithms, 2nd ed. 2002, sections 3.1 and 3.5). Roundings go up and down, so the error walks at random and
ends near √n u (Higham and Mary 2019, SIAM J. Sci. Comput. 41(5), theorem 2.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

DEVIATIONS = 8  # standard deviations of the walk; by Higham and Mary one sum in 10¹³ goes farther
EXP_ULPS = 20  # what torch's fused attention on a CPU allows its exponential (`exp_u20`)


def roundoff(dtype: torch.dtype) -> float:
    """u, the largest relative error of one rounding to nearest."""
    return torch.finfo(dtype).eps / 2


def bound(dtype: torch.dtype, *lengths: int, roundings: int = 0, ulps: int = 0) -> float:
    """The relative error allowed to a chain of sums of these lengths, each of which is kept in at least fp32.

    roundings: how often a tensor of the chain is rounded to dtype, u each; 1 at least where sums are wider than dtype.
    ulps: what an elementary function of the chain is off by, in units of 2 u of the dtype that it is computed in.
    """
    wide = torch.promote_types(dtype, torch.float32)
    rounded = max(roundings, int(wide is not dtype)) * roundoff(dtype)
    return (DEVIATIONS * sum(lengths) ** 0.5 + 2 * ulps) * roundoff(wide) + rounded


def error(got: Tensor, want: Tensor, scale: Tensor | float | None = None) -> float:
    """‖got − want‖ / ‖scale‖ in fp64; scale is what the terms of the sums add up to, want itself where none cancel."""
    got, want = got.detach().double(), want.detach().double()
    assert got.shape == want.shape and bool(got.isfinite().all()) and bool(want.isfinite().all())
    size = want if scale is None else torch.as_tensor(scale).double()
    return float((got - want).norm() / size.norm().clamp_min(torch.finfo(torch.float64).tiny))


def agree(got: Any, want: Any, *lengths: int, dtype: torch.dtype | None = None, **more: Any) -> None:
    """Assert that tensors, or lists and mappings of them, differ by no more than `bound`; dtype: by default got's.

    more: `roundings` and `ulps` of `bound`, `scale` of `error`.
    """
    if isinstance(want, Mapping):
        assert got.keys() == want.keys()
        got, want = list(got.values()), list(want.values())
    if not isinstance(want, Tensor):
        assert len(got) == len(want)
        for one, other in zip(got, want):
            agree(one, other, *lengths, dtype=dtype, **more)
        return
    scale = more.pop("scale", None)
    off, allowed = error(got, want, scale), bound(dtype or got.dtype, *lengths, **more)
    assert off <= allowed, f"off by {off:.2e}, where {allowed:.2e} is allowed"


def reduction(model: nn.Module) -> int:
    """The number of products summed along the longest path from input to output."""
    return sum(p.shape[-1] for p in model.parameters() if p.dim() == 2)


def largest(tensors: Iterable[Tensor]) -> float:
    """The largest norm of any of them, the scale of a model's gradients: one may cancel to nothing (a key's bias)."""
    return max(float(t.detach().norm()) for t in tensors)


class ExactProducts(TorchDispatchMode):
    """A block in which every product and its sum is computed in fp64 and rounded once to its result's dtype.

    A layer in bf16, as PyTorch spells it, has the error that its roundings make and no machine's besides.
    """

    PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "sum")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name not in self.PRODUCTS or not isinstance(out, Tensor) or not out.is_floating_point():
            return out
        wide = [a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args]
        given = {k: v for k, v in (kwargs or {}).items() if k != "dtype"}
        return func(*wide, **given).to(out.dtype)
