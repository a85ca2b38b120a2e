"""The hand-written backwards against the plain mathematics, in fp64 and by their own rounding error."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import deltatune as dt
from deltatune import functional
from deltatune.fast import LoRALinears, Rescale, dropped, zeroed
from deltatune.hosts import stacks
from tests.support.tolerance import ExactProducts, agree, error

SIZES = st.sampled_from([1, 2, 3, 7, 16, 33])


def factors(M, K, N, R, bias=True):
    torch.manual_seed(M * 1000 + K * 100 + N * 10 + R)
    b = torch.randn(N) if bias else None
    return torch.randn(M, K), torch.randn(N, K), b, torch.randn(R, K), torch.randn(N, R)


def run(compute, tensors, dtype, factor_dtype=None, project=lambda dy: dy):
    """Output and gradients (x, A, B) of a random projection, as fp64."""
    x, W, b, A, B = tensors
    x, W, b = (None if t is None else t.to(dtype) for t in (x, W, b))
    A, B = (t.to(factor_dtype or dtype) for t in (A, B))
    leaves = [t.clone().requires_grad_() for t in (x, A, B)]
    y = compute(leaves[0], W, b, *leaves[1:])
    torch.manual_seed(5)
    grads = torch.autograd.grad(y, leaves, project(torch.randn(y.shape, dtype=torch.float64)).to(y.dtype))
    return [t.detach().double() for t in (y, *grads)]


def fast(x, W, b, A, B, s=0.7, p=0.0):
    return LoRALinears.apply(x, p, (s,), W, b, A, B)[0]


def plain(x, W, b, A, B, s=0.7):
    return F.linear(x, W, b) + functional.low_rank(x, A, B, s)


@given(SIZES, SIZES, SIZES, st.sampled_from([1, 4, 8, 24]), st.booleans())
def test_it_is_the_plain_layer_to_rounding(M, K, N, R, bias):
    tensors = factors(M, K, N, R, bias)
    exact = run(plain, tensors, torch.float64)
    sizes = run(plain, [None if t is None else t.abs() for t in tensors], torch.float64, project=torch.abs)
    for dtype in (torch.float64, torch.float32):
        for mine, true, size in zip(run(fast, tensors, dtype), exact, sizes, strict=True):
            # a projection is rounded beside its sums: the sizes of terms are then those of 1 + 4 factors
            agree(mine, true, M, K, N, R, 5, dtype=dtype, scale=size)


@pytest.mark.parametrize("factor_dtype", [torch.float32, torch.bfloat16])
def test_in_bf16_it_is_no_farther_from_fp64_than_the_plain_layer(factor_dtype):
    tensors = [None if t is None else t.bfloat16() for t in factors(64, 96, 48, 8)]
    exact = run(plain, tensors, torch.float64)
    ours = run(fast, tensors, torch.bfloat16, factor_dtype)
    with ExactProducts():
        theirs = run(plain, tensors, torch.bfloat16, factor_dtype)
    for mine, torchs, true in zip(ours, theirs, exact, strict=True):
        assert error(mine, true) <= 1.1 * error(torchs, true)


def test_dropout_multiplies_by_the_mask_of_its_seed_in_both_directions():
    x, W, b, A, B = factors(9, 20, 6, 3)
    p = 0.3
    torch.manual_seed(11)
    seed = int(torch.randint(2**63 - 1, ()))
    keep = zeroed(torch.ones_like(x), dropped(x.numel(), p, seed))

    def by_hand(x, W, b, A, B):
        return F.linear(x, W, b) + 0.7 * (x * keep / (1 - p)) @ A.t() @ B.t()

    def ours(x, W, b, A, B):
        torch.manual_seed(11)
        return fast(x, W, b, A, B, p=p)

    for mine, true in zip(
        run(ours, (x, W, b, A, B), torch.float64), run(by_hand, (x, W, b, A, B), torch.float64), strict=True
    ):
        agree(mine, true, 9, 20, 6, 3)


@pytest.mark.parametrize("p", [0.001, 0.05, 0.1, 0.5, 0.999, 0.999999])
def test_each_element_is_dropped_with_probability_p_whatever_its_neighbours_are(p):
    n = 100_003

    def mask(seed):
        return zeroed(torch.ones(n, dtype=torch.bfloat16), dropped(n, p, seed)) == 0

    gone = mask(3)
    assert torch.equal(gone, mask(3)) and (p > 0.9 or not torch.equal(gone, mask(4)))
    for rate, seen in ((p, gone), (p**2, gone[1:] & gone[:-1]), (p**2, gone & mask(4)), (p, gone[: n // 8])):
        assert abs(seen.double().mean() - rate) <= 6 * math.sqrt(rate * (1 - rate) / len(seen)) + 1 / len(seen)


def test_a_large_tensor_is_dropped_to_its_ends():
    n = 1 << 33  # more than 32 bits can count; only places are drawn
    places = dropped(n, 1e-5, 0)
    assert 0 <= places.min() < n * 1e-3 and n * 0.999 < places.max() < n
    assert abs((places < n // 2).mean() - 0.5) < 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_is_dropped_is_zero_and_the_rest_keeps_its_bits(dtype):
    x = torch.tensor([[1.5, math.nan, -2.0], [math.inf, math.nan, -0.0]], dtype=dtype).t()
    out = zeroed(x, np.array([0, 1, 1, 2]))
    assert out.shape == x.shape and out.is_contiguous()
    assert torch.equal(out[:1], torch.zeros(1, 2, dtype=dtype)) and out[1, 0] == 0 and out[1, 1].isnan()
    assert torch.equal(out[2], x[2]) and torch.equal(x[0].isfinite(), torch.tensor([True, False]))


def test_checkpointing_draws_the_mask_again():
    tensors = factors(12, 10, 8, 2)

    def checkpointed(*args):
        torch.manual_seed(1)
        return checkpoint(lambda *a: fast(*a, p=0.5), *args, use_reentrant=False)

    def direct(*args):
        torch.manual_seed(1)
        return fast(*args, p=0.5)

    for a, b in zip(run(checkpointed, tensors, torch.float32), run(direct, tensors, torch.float32), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("p", [0.0, 0.25])
def test_it_keeps_x_and_the_low_rank_rows_alone(p):
    M, K, N, R = 64, 32, 48, 4
    x, W, b, A, B = factors(M, K, N, R)
    x.requires_grad_(), A.requires_grad_(), B.requires_grad_()
    known = {t.data_ptr() for t in (x, W, b, A, B)}
    kept = []

    def pack(t):
        kept.append(0 if t.data_ptr() in known else t.numel() * t.element_size())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        fast(x, W, b, A, B, p=p)
    assert sum(kept) == M * R * 4


@pytest.mark.parametrize("frozen", ["x", "A", "B"])
def test_what_needs_no_gradient_gets_none(frozen):
    x, W, b, A, B = factors(6, 5, 4, 2)
    given = {"x": x, "A": A, "B": B}
    for name, t in given.items():
        t.requires_grad_(name != frozen)
    for compute in (fast, plain):
        for t in given.values():
            t.grad = None
        compute(given["x"], W, b, given["A"], given["B"]).square().sum().backward()
        found = {name: None if t.grad is None else t.grad.clone() for name, t in given.items()}
        if compute is fast:
            ours = found
    assert ours[frozen] is None and found[frozen] is None
    for name in given.keys() - {frozen}:
        agree(ours[name], found[name], 6, 5, 4, 2)


def test_the_whole_function_by_finite_differences():
    x, W, b, A, B = (t.double() for t in factors(4, 5, 6, 2))
    for t in (x, A, B):
        t.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, A, B: fast(x, W, b, A, B), (x, A, B))
    assert torch.autograd.gradcheck(lambda x, A, B: plain(x, W, b, A, B), (x, A, B))
    g = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Rescale.apply, (x, g))
    assert torch.autograd.gradcheck(Rescale.apply, (x.view(2, 2, 5), g))


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 1, 3, 5), (0, 5), (2, 0, 5)])
@pytest.mark.parametrize("transposed", [False, True])
def test_any_leading_shape(shape, transposed):
    x = torch.randn(shape[::-1]).permute(*reversed(range(len(shape)))) if transposed else torch.randn(shape)
    _, W, b, A, B = factors(1, 5, 4, 2)
    before = x.clone()
    leaves = [t.requires_grad_() for t in (x.detach().requires_grad_(), A, B)]
    y = functional.lora_linear(leaves[0], W, b, A, B, 0.7)
    agree(y, plain(x, W, b, A, B), 5, 2)
    y.sum().backward(retain_graph=True)
    first = [t.grad.clone() for t in leaves]
    y.sum().backward()
    for t, g in zip(leaves, first, strict=True):
        assert torch.equal(t.grad, 2 * g)
    assert torch.equal(x, before) and leaves[0].grad.shape == shape


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 1, 5), (0, 5)])
def test_a_rescaled_row_or_rows(shape):
    h, g = torch.randn(shape, requires_grad=True), torch.randn(5, requires_grad=True)
    got = torch.autograd.grad(functional.rescaled(h, g).square().sum(), (h, g))
    want = torch.autograd.grad((h + h * g).square().sum(), (h, g))
    for mine, true in zip(got, want, strict=True):
        agree(mine, true, 2, 5)


@pytest.mark.parametrize("shape", [(12,), (3, 12), (2, 3, 12)])
def test_the_output_may_be_changed_in_place(shape, monkeypatch):
    model = nn.Sequential(nn.Linear(12, 12), nn.ReLU(inplace=True), nn.Linear(12, 9))
    dt.inject(model, dt.LoRA.on("0|2", rank=3))
    ours, x = [p for _, p in dt.parameters(model)], torch.randn(shape)
    for p in ours:
        nn.init.normal_(p)

    def grads():
        y = model(x)
        y += 1
        return torch.autograd.grad(y.square().sum(), ours)

    got = grads()
    monkeypatch.setenv("DELTATUNE_KERNELS", "off")
    for mine, true in zip(got, grads(), strict=True):
        agree(mine, true, *(12, 12, 3, 9) * 3)  # two layers forward and back, and the two sums of a gradient


def test_a_second_derivative_is_refused():
    x, W, b, A, B = factors(3, 4, 5, 2)
    for compute, args in (
        (fast, (x, W, b, A.requires_grad_(), B)),
        (Rescale.apply, (x, A[0].detach().requires_grad_())),
    ):
        leaf = next(t for t in args if t is not None and t.requires_grad)
        with pytest.raises(RuntimeError, match="DELTATUNE_KERNELS=off"):
            torch.autograd.grad(compute(*args).square().sum(), leaf, create_graph=True)


def layer(**hparams):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 9))
    dt.inject(model, dt.LoRA.on("0", rank=3, **hparams))
    nn.init.normal_(stacks(model[0])["default"][0].B)
    return model


def ways(monkeypatch, call):
    """The ways that `functional.path` chose during a call."""
    said, choose = [], functional.path
    monkeypatch.setattr(functional, "path", lambda *a: said.append(choose(*a)) or said[-1])
    call()
    return said


def test_the_switch_and_what_is_plain_by_itself(monkeypatch):
    model, x = layer(), torch.randn(5, 12)
    assert ways(monkeypatch, lambda: model(x)) == ["fast"]
    on = model(x)
    with monkeypatch.context() as patch:
        patch.setenv("DELTATUNE_KERNELS", "off")
        assert ways(patch, lambda: model(x)) == ["plain"]
        agree(model(x), on, 12, 3)

    with monkeypatch.context() as patch:
        patch.setenv("DELTATUNE_KERNELS", "of")
        with pytest.raises(ValueError, match="DELTATUNE_KERNELS='of': say off"):
            model(x)

    def vmapped():
        agree(torch.func.vmap(model)(x), on, 12, 3)

    def autocast():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model(x).dtype is torch.bfloat16

    def trained_base():
        model[0].weight.requires_grad_()
        model(x).sum().backward()
        assert model[0].weight.grad is not None

    for call in (vmapped, autocast, trained_base):
        assert ways(monkeypatch, call)[-1] == "plain"


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own formulas of forward mode call it
def test_forward_mode_is_plain(monkeypatch):
    model, x = layer(), torch.randn(5, 12)

    def tangent():
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(model(forward_ad.make_dual(x, x))).tangent

    agree(tangent(), model(x) - model(torch.zeros_like(x)), 12, 3)
    assert ways(monkeypatch, tangent) == ["plain"] and ways(monkeypatch, lambda: model(x)) == ["fast"]


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_it_is_traced_as_the_plain_layer(tmp_path):
    model, x = layer(), torch.randn(5, 12)
    torch.jit.save(torch.jit.trace(model, x), tmp_path / "traced.pt")
    agree(torch.jit.load(tmp_path / "traced.pt")(x), model(x), 12, 3)


def test_dropout_is_for_training_and_drops_the_deltas_input_alone():
    model, x = layer(dropout=0.5), torch.randn(2000, 12)
    base = F.linear(x, model[0].weight, model[0].bias)
    full = model.eval()(x) - base
    model.train()
    torch.manual_seed(0)
    mean = sum(model(x) - base for _ in range(200)) / 200
    assert not torch.equal(model(x), model(x))
    assert (mean - full).norm() < 0.15 * full.norm()
