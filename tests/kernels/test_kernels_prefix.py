"""Prefix attention joined by log-sum-exp, on this machine's device and, as far as shapes go, on a GPU's kernel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from deltatune import attention
from deltatune.attention import PrefixedCausal
from tests.support.kernel_cases import DEVICE
from tests.support.tolerance import EXP_ULPS, agree

DTYPES = [torch.bfloat16, torch.float16] if DEVICE == "cuda" else [torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [2, 4])
def test_a_prefix_joined_by_log_sum_exp_is_the_masked_one(dtype, heads, monkeypatch):
    """The prefix attends apart on 256 causal tokens; output and gradients are those of the mask in fp64."""
    torch.manual_seed(0)
    shapes = [(2, 4, 256, 8)] * 3 + [(heads, 5, 8)] * 2
    exact = [torch.randn(s, dtype=torch.float64) for s in shapes]
    if dtype is torch.bfloat16:
        exact = [t.bfloat16().double() for t in exact]

    def run(dtype):
        leaves = [t.to(DEVICE, dtype) for t in exact]
        # heads lie behind tokens in memory, as a transformer has them
        leaves[:3] = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in leaves[:3]]
        leaves = [t.requires_grad_() for t in leaves]
        o = attention.attend_prefixed(F.scaled_dot_product_attention, *leaves, is_causal=True)
        torch.manual_seed(1)
        return [o, *torch.autograd.grad(o, leaves, torch.randn(o.shape, dtype=torch.float64).to(DEVICE, dtype))]

    joined = []
    monkeypatch.setattr(attention, "PrefixedCausal", Counted(joined))
    ours = run(dtype)
    assert joined == ["joined"]
    with monkeypatch.context() as patch:
        patch.setenv("DELTATUNE_KERNELS", "off")
        masked_, want = run(dtype), run(torch.float64)
    assert joined == ["joined"]
    # scores and dP over the head size, softmax and output over the keys, gradients over the tokens of both rows
    lengths, ulps = (8, 8, 261, 261, 2 * 256), 0 if dtype is torch.float64 else EXP_ULPS
    # rounded to a half-width dtype: scores, shares, both parts, their sum, dP, dS and its product
    roundings = 8 if dtype.itemsize == 2 else 0
    for computed in (ours, masked_):
        agree(computed, want, *lengths, dtype=dtype, roundings=roundings, ulps=ulps)


def test_a_gpus_kernel_is_called_as_its_schema_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch checks the calls' arguments and gives the shapes, which takes no card; the numbers are the CPU's."""
    monkeypatch.setattr(attention, "can_use_flash_attention", lambda params: True)
    with FakeTensorMode(), torch.no_grad():
        q, k, v, odd = (torch.empty(2, 4, 256, D, dtype=torch.bfloat16, device="cuda") for D in (64, 64, 64, 60))
        assert attention.returns_log_sum_exp(q, k, v) and not attention.returns_log_sum_exp(odd, odd, odd)
        o, lse, rest = attention.causal_flash(q, k, v, 0.125)
        found = attention.causal_flash_backward(o, q, k, v, o, lse, rest, 0.125)
    assert (lse.shape, lse.dtype) == (q.shape[:3], torch.float32)
    assert [(g.shape, g.dtype) for g in (o, *found)] == [(q.shape, q.dtype)] * 4


class Counted:
    """PrefixedCausal, noting its calls."""

    def __init__(self, calls):
        self.calls = calls

    def apply(self, *args):
        self.calls.append("joined")
        return PrefixedCausal.apply(*args)
