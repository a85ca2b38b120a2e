"""What the tests of methods on one linear map share: the map's sizes, and equality up to rounding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.support.cases import tolerance

K, N, R = 6, 7, 3  # inputs, outputs, rank


def near(got: Tensor, want: Tensor, products: int = K * N * R) -> None:
    """Assert that the tensors are equal up to the rounding of sums of this many products."""
    got, want = got.detach(), want.detach()
    assert got.shape == want.shape and got.dtype == want.dtype
    assert torch.allclose(got, want, rtol=0, atol=tolerance(want.dtype, products) * float(want.abs().max()))


def linear(bias: bool = True, dtype: torch.dtype = torch.float64) -> nn.Module:
    return nn.Linear(K, N, bias, dtype=dtype)
