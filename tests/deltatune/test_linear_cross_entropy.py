"""Cross-entropy through the head in chunks, against torch's over all logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from deltatune.loss import linear_cross_entropy
from tests.support.tolerance import ExactProducts, agree, bound, error


def draw(rows, width, vocabulary, bias):
    torch.manual_seed(rows + vocabulary)
    h, W = torch.randn(rows, width), torch.randn(vocabulary, width)
    return [h, W, torch.randn(vocabulary) if bias else None], torch.randint(vocabulary, (rows,))


def ours(h, W, b, t, chunk):
    return linear_cross_entropy(h, W, t, b, chunk=chunk)


def plain(h, W, b, t, chunk):
    z = F.linear(h, W, b)
    return F.cross_entropy(z.to(torch.promote_types(z.dtype, torch.float32)), t, reduction="sum")


def results(compute, tensors, t, dtype, chunk):
    """The loss and the gradients in fp64, computed in dtype."""
    leaves = [None if p is None else p.to(dtype).requires_grad_() for p in tensors]
    loss = compute(*leaves, t, chunk)
    given = [p for p in leaves if p is not None]
    return [loss.double(), *(g.double() for g in torch.autograd.grad(loss * 0.5, given))]


@given(st.integers(1, 23), st.sampled_from([1, 5, 16]), st.sampled_from([2, 37]), st.booleans(), st.integers(1, 30))
def test_it_is_the_plain_loss_to_rounding(rows, width, vocabulary, bias, chunk):
    tensors, t = draw(rows, width, vocabulary, bias)
    # Softmax less onehot may cancel: the loss and dz are measured by the sizes of logits and of both, and what is
    # made of dz by that of its other factor.
    h, W, b = tensors
    logit = (h.abs() @ W.abs().t()).max() + (0 if b is None else b.abs().max())
    sizes = [rows * logit, rows**0.5 * W.norm(), rows**0.5 * h.norm(), rows]
    for dtype in (torch.float32, torch.float64):
        pairs = zip(results(ours, tensors, t, dtype, chunk), results(plain, tensors, t, dtype, chunk))
        for (mine, torchs), size in zip(pairs, sizes):
            agree(mine, torchs, rows, width, vocabulary, dtype=dtype, scale=size * (1 + logit))


def test_bf16_is_as_near_to_fp64_as_the_plain_form():
    tensors, t = draw(64, 32, 50, False)
    tensors = [None if p is None else p.bfloat16() for p in tensors]
    exact, ours_ = results(plain, tensors, t, torch.float64, 0), results(ours, tensors, t, torch.bfloat16, 16)
    with ExactProducts():
        theirs = results(plain, tensors, t, torch.bfloat16, 0)
    for mine, torchs, true in zip(ours_, theirs, exact):
        assert error(mine, true) <= 1.3 * error(torchs, true) + bound(torch.float32, 64, 32, 50)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_computes_it_in_its_own_dtype(dtype, bias):
    """It takes h, W and b as they come, as torch's does; the loss is fp32, each gradient in its leaf's dtype."""
    tensors, t = draw(64, 32, 50, bias)
    tensors[0] = tensors[0].to(dtype)
    exact = results(plain, tensors, t, torch.float64, 0)

    def cast(compute):
        leaves = [p.clone().requires_grad_() for p in tensors if p is not None]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = compute(*leaves[:2], leaves[2] if bias else None, t, 16)
        grads = torch.autograd.grad(loss * 0.5, leaves)
        assert loss.dtype is torch.float32 and [g.dtype for g in grads] == [p.dtype for p in leaves]
        return [loss.double(), *(g.double() for g in grads)]

    mine_ = cast(ours)
    with ExactProducts():
        theirs = cast(plain)
    for mine, torchs, true in zip(mine_, theirs, exact):
        assert error(mine, true) <= 1.3 * error(torchs, true) + bound(torch.float32, 64, 32, 50)


def test_autocast_leaves_fp64_alone():
    tensors, t = draw(5, 4, 7, True)
    want = results(ours, tensors, t, torch.float64, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(results(ours, tensors, t, torch.float64, 2), want))


def test_no_row_gives_zero():
    h = torch.zeros(0, 4, requires_grad=True)
    loss = linear_cross_entropy(h, torch.zeros(3, 4), torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0 and h.grad.shape == (0, 4)


def test_it_keeps_no_logits():
    """What the backward keeps is the gradient of h alone."""
    h = torch.randn(32, 8, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        linear_cross_entropy(h, torch.randn(1000, 8), torch.randint(1000, (32,)), chunk=4)
    assert sum(kept) == h.numel()


def test_wrong_shapes_and_targets_are_refused():
    h, W = torch.zeros(2, 3, 4), torch.zeros(5, 4)
    with pytest.raises(ValueError, match=r"h \(M, D\).*\[2, 3, 4\].*labelled rows first"):
        linear_cross_entropy(h, W, torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        linear_cross_entropy(h[0], W, torch.full((3,), -100))


def test_a_second_derivative_is_refused():
    h = torch.randn(4, 3, requires_grad=True)
    loss = linear_cross_entropy(h, torch.randn(5, 3), torch.zeros(4, dtype=torch.long))
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(loss, h, create_graph=True)
