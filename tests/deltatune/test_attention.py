"""Attention on short training sequences against torch's own, and where it stays out of the way."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deltatune import attention
from deltatune.attention import SDPA, SHORT, attend, attend_short, fast_attention
from tests.support.tolerance import EXP_ULPS, ExactProducts, agree, error, largest

LENGTHS = (8, 8, 7, 7, 7)  # head sizes of scores and dP; keys or queries in softmax, output and gradients
MASKS = ["none", "causal", "bool", "float", "keys alone", "empty rows", "2-D"]


def case(B=2, H=6, G=2, T=5, S=7, D=8, Dv=8) -> list[Tensor]:
    torch.manual_seed(T * S + H * G + Dv)
    return [torch.randn(B, n, length, d) for n, length, d in ((H, T, D), (G, S, D), (G, S, Dv))]


def how(kind: str, B: int, T: int, S: int) -> dict[str, Any]:
    torch.manual_seed(7)
    seen = torch.rand(B, 1, T, S) < 0.6
    seen[..., 0] = True
    given: dict[str, Any] = {"causal": {"is_causal": True}, "bool": {"attn_mask": seen}, "none": {}}
    given["float"] = {"attn_mask": torch.randn(B, 1, T, S)}
    given["keys alone"] = {"attn_mask": seen[:, :, :1]}
    given["2-D"] = {"attn_mask": seen[0, 0]}
    given["empty rows"] = {"attn_mask": seen & (torch.arange(T) != 1)[:, None]}
    return given[kind]


def results(call: Any, tensors: list[Tensor], dtype: torch.dtype, given: dict[str, Any]) -> list[Tensor]:
    """o and the gradients of q, k, v for a random do, in fp64."""
    leaves = [t.to(dtype).requires_grad_() for t in tensors]
    mask = given.get("attn_mask")
    if mask is not None and mask.is_floating_point():
        given = {"attn_mask": mask.to(dtype)}
    o = call(*leaves, **given)
    torch.manual_seed(1)
    return [t.double() for t in (o.detach(), *torch.autograd.grad(o, leaves, torch.randn(o.shape).to(dtype)))]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shape of each q that the short form computes."""
    seen: list[tuple[int, ...]] = []
    apply = attention.ShortAttention.apply

    def counted(q: Tensor, *rest: Any) -> Any:
        seen.append(tuple(q.shape))
        return apply(q, *rest)

    monkeypatch.setattr(attention.ShortAttention, "apply", counted)
    return seen


@pytest.mark.parametrize("shape", [{}, {"H": 4, "G": 4}, {"G": 1, "T": 7}, {"Dv": 3}, {"T": 1}], ids=str)
@pytest.mark.parametrize("kind", MASKS)
def test_it_is_torchs_attention(kind: str, shape: dict[str, int], calls: list[Any]) -> None:
    tensors = case(**shape)
    (B, _, T, _), S = tensors[0].shape, tensors[1].shape[2]
    given = how(kind, B, T, S)
    exact = results(lambda *t, **g: SDPA(*t, **g, enable_gqa=True), tensors, torch.float64, given)
    scale = largest(exact)  # one query that sees one key has no gradient: all of it cancels
    for mine, true in zip(
        results(lambda *t, **g: attend(*t, **g, enable_gqa=True), tensors, torch.float32, given), exact, strict=True
    ):
        agree(mine, true, *LENGTHS, dtype=torch.float32, scale=scale)
    assert len(calls) == 1


def in_its_own_precision(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Tensor:
    """Attention as transformers' eager one computes it: scores in q's dtype, softmax in fp32."""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
    return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v


@pytest.mark.parametrize("T", [16, 64, SHORT])
def test_in_bf16_it_is_no_farther_from_fp64_than_eager_attention(T: int, calls: list[Any]) -> None:
    tensors = [t.bfloat16() for t in case(H=6, G=6, T=T, S=T, D=64, Dv=64)]
    exact, ours = (
        results(call, tensors, dtype, {"is_causal": True})
        for call, dtype in ((SDPA, torch.float64), (attend, torch.bfloat16))
    )
    with ExactProducts():
        eager = results(in_its_own_precision, tensors, torch.bfloat16, {"is_causal": True})
    for mine, other, true in zip(ours, eager, exact, strict=True):
        assert error(mine, true) <= 1.1 * error(other, true)
    assert len(calls) == 1


def test_the_log_sum_exp_has_its_gradient() -> None:
    q, k, v = (t.requires_grad_() for t in case())

    def by_hand(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (t.repeat_interleave(3, 1) for t in (k, v))
        scores = (q @ k.transpose(-1, -2) * 0.3).masked_fill(~torch.ones(5, 7).tril().bool(), -torch.inf)
        return scores.softmax(-1) @ v, scores.logsumexp(-1)

    ours = attend_short(q, k, v, None, True, 0.3, tell=True)
    theirs = by_hand(*(t.double() for t in (q, k, v)))
    assert ours is not None
    torch.manual_seed(0)
    weights = [torch.randn(t.shape) for t in ours]
    for loss in (lambda o, lse: (o * weights[0]).sum() + (lse * weights[1]).sum(), lambda o, lse: lse.square().sum()):
        got = torch.autograd.grad(loss(*ours), (q, k, v), retain_graph=True, allow_unused=True)
        want = torch.autograd.grad(loss(*theirs), (q, k, v), retain_graph=True, allow_unused=True)
        for g, w in zip(got, want, strict=True):  # v has none by the log-sum-exp alone
            agree(g, torch.zeros_like(g) if w is None else w, *LENGTHS)


def test_whatever_it_is_not_for_goes_to_torch(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (t.requires_grad_() for t in case(H=2, T=7))
    with torch.no_grad():
        attend(q, k, v)
    attend(*(t.double() for t in (q, k, v)))
    attend(*(t[0] for t in (q, k, v)))
    attend(q[:1], k, v)  # broadcast over rows
    attend(q, k, v, dropout_p=0.5)
    attend(q, k, v, attn_mask=torch.ones(7, 7).bool(), is_causal=True)
    attend(q, k, v, attn_mask=torch.zeros(7, 7).requires_grad_())
    attend(q.new_zeros(2, 2, 0, 8), k, v)
    attend(*(torch.randn(1, 1, SHORT + 1, 4).requires_grad_() for _ in range(3)))
    attend(torch.randn(2, 2, SHORT + 1, 8).requires_grad_(), k, v)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attend(q, k, v)
    monkeypatch.setenv("DELTATUNE_KERNELS", "off")
    attend(q, k, v)
    assert not calls
    monkeypatch.delenv("DELTATUNE_KERNELS")
    attend(q, k, v)
    assert calls == [(2, 2, 7, 8)]
    with pytest.raises(RuntimeError):  # torch's own error where heads do not fit
        attend(torch.randn(1, 3, 4, 8).requires_grad_(), k[:1], v[:1], enable_gqa=True)


def test_inside_the_block_modules_get_it_and_outside_torchs_own(calls: list[Any]) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    x = torch.randn(2, 5, 8)
    plain = layer(x)
    with fast_attention(), fast_attention():
        assert F.scaled_dot_product_attention is attend
        agree(layer(x), plain, 8, 4, 5, 8, 8, 8, 16, 8)  # the sums of its products, and of its norms' means
    assert calls == [(2, 2, 5, 4)]
    with pytest.raises(ZeroDivisionError), fast_attention():
        raise ZeroDivisionError
    assert F.scaled_dot_product_attention is SDPA


def test_blocks_of_two_threads_close_in_any_order() -> None:
    first, second = fast_attention(), fast_attention()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert F.scaled_dot_product_attention is attend
    second.__exit__(None, None, None)
    assert F.scaled_dot_product_attention is SDPA


def test_the_output_may_be_changed_in_place() -> None:
    q, k, v = (t.requires_grad_() for t in case(G=6))
    o = attend(q, k, v)
    o *= 2
    agree(torch.autograd.grad(o.sum(), q), torch.autograd.grad(2 * SDPA(q, k, v).sum(), q), *LENGTHS, ulps=EXP_ULPS)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_inside_the_block_computes_the_same_again(use_reentrant: bool, calls: list[Any]) -> None:
    q, k, v = (t.requires_grad_() for t in case(G=6))

    def block(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v).sin()

    with fast_attention():
        want = torch.autograd.grad(block(q, k, v).sum(), (q, k, v))
        checkpoint(block, q, k, v, use_reentrant=use_reentrant).sum().backward()
    assert len(calls) == (2 if use_reentrant else 3)  # a reentrant one's first forward has no gradients
    for leaf, gradient in zip((q, k, v), want, strict=True):
        agree(leaf.grad, gradient, *LENGTHS)


def test_a_second_differentiation_is_refused() -> None:
    q, k, v = (t.requires_grad_() for t in case(G=6))
    with pytest.raises(RuntimeError, match="DELTATUNE_KERNELS=off"):
        torch.autograd.grad(attend(q, k, v).sum(), q, create_graph=True)


def test_threads_get_it_too(calls: list[Any]) -> None:
    q, k, v = (t.requires_grad_() for t in case(G=6))
    with fast_attention():
        thread = threading.Thread(target=lambda: F.scaled_dot_product_attention(q, k, v))
        thread.start()
        thread.join()
    assert len(calls) == 1
