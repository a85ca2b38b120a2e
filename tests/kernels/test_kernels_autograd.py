"""lora_linear as a citizen of torch: inputs of any layout, frozen parts, checkpointing, autocast, torch.compile."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from deltatune.kernels import lora_linear, lora_linear_routed, lora_linear_stacked
from deltatune.kernels.launch import tf32
from tests.support.kernel_cases import DEVICE, SCALE, Layer, allowed, close, error, gradients, layer, mask_of, reference
from tests.support.tolerance import bound

# "addmm" is made of the pieces of the other two
PATHS = ("triton", pytest.param("addmm", marks=pytest.mark.kernels), "plain")


def call(at: Layer, p: float = 0.0, path: str | None = "triton") -> Tensor:
    torch.manual_seed(5)
    return lora_linear(at.x, at.W, at.b, at.A, at.B, SCALE, p, path=path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", [(40,), (6, 40), (2, 3, 40), (2, 1, 3, 40)], ids=str)
def test_inputs_of_one_to_four_dimensions(shape: tuple[int, ...], path: str) -> None:
    flat = layer(torch.Size(shape[:-1]).numel(), 24, 40, 4)
    at = flat._replace(x=flat.x.detach().view(shape).requires_grad_())
    y, dx, *rest = gradients(call(at, 0.3, path), at)
    assert y is not None and y.shape == (*shape[:-1], 24)
    assert dx is not None and dx.shape == shape
    close([y.view(-1, 24), dx.view(-1, 40), *rest], reference(flat, mask_of(flat.x, 0.3, 5)), flat)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", [(0, 40), (2, 0, 40)], ids=str)
def test_no_rows(shape: tuple[int, ...], path: str) -> None:
    at = layer(0, 24, 40, 4)
    at = at._replace(x=at.x.detach().view(shape).requires_grad_())
    y, *found = gradients(call(at, 0.3, path), at)
    assert y is not None and y.shape == (*shape[:-1], 24)
    assert all(g is not None and not bool(g.any()) for g in found)


@pytest.mark.parametrize("path", PATHS)
def test_no_bias_and_a_zero_factor(path: str) -> None:
    at = layer(30, 24, 40, 4, bias=False)
    at = at._replace(B=torch.zeros_like(at.B).requires_grad_())
    y, dx, db, dA, dB = gradients(call(at, 0.3, path), at)
    assert error(y, F.linear(at.x, at.W)) <= 2 * allowed(torch.float32, 40) and db is None
    assert dA is not None and not bool(dA.any())
    true = reference(at, mask_of(at.x, 0.3, 5))
    close([dx, dB], [true[1], true[4]], at)


def strided(t: Tensor) -> Tensor:
    """The same numbers with no unit stride."""
    return t.detach().repeat_interleave(2, -1)[..., ::2].mT.contiguous().mT


@pytest.mark.parametrize("path", PATHS)
def test_non_contiguous_operands(path: str) -> None:
    at = layer(30, 24, 40, 4)
    assert at.b is not None
    odd = at._replace(
        x=strided(at.x).requires_grad_(), W=strided(at.W), A=strided(at.A).requires_grad_(),
        B=strided(at.B).requires_grad_(), dY=strided(at.dY),
        b=at.b.detach().repeat_interleave(2)[::2].requires_grad_(),
    )  # fmt: skip
    assert not any(t.is_contiguous() for t in (odd.x, odd.W, odd.A, odd.B, odd.dY))
    close(gradients(call(odd, 0.3, path), odd), reference(at, mask_of(at.x, 0.3, 5)), at)


@pytest.mark.parametrize("path", PATHS)
def test_a_gradient_that_is_one_number_expanded(path: str) -> None:
    at = layer(30, 24, 40, 4)
    y = call(at, 0.0, path)
    (dx,) = torch.autograd.grad(y.sum(), at.x)
    assert error(dx, reference(at._replace(dY=torch.ones_like(at.dY)))[1]) <= allowed(torch.float32, 24, 4)


@pytest.mark.parametrize("path", ["triton", "plain"])
@pytest.mark.parametrize("frozen", ["x", "b", "A", "B", "xA", "xB", "AB", "bA", "xAB"])
def test_frozen_parts(frozen: str, path: str) -> None:
    at = layer(30, 24, 40, 4)
    at = at._replace(**{name: getattr(at, name).detach() for name in frozen})
    close(gradients(call(at, 0.3, path), at), reference(at, mask_of(at.x, 0.3, 5)), at)


def saved(at: Layer, p: float) -> list[Tensor]:
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        call(at, p)
    return kept


def test_saved_are_x_and_the_low_rank_input_alone() -> None:
    """Beyond the operands themselves M·R numbers and a seed; less where a factor is frozen."""
    at = layer(30, 24, 40, 4)
    own = {t.untyped_storage().data_ptr() for t in at if t is not None}
    extra = [t for t in saved(at, 0.3) if t.untyped_storage().data_ptr() not in own]
    assert sorted(t.numel() for t in extra) == [1, 30 * 4]
    frozen = at._replace(x=at.x.detach(), A=at.A.detach())
    assert frozen.x.data_ptr() not in {t.data_ptr() for t in saved(frozen, 0.3)}


@pytest.mark.parametrize("path", PATHS)
def test_inputs_stay_as_they_are_and_the_graph_can_be_used_again(path: str) -> None:
    at = layer(30, 24, 40, 4)
    before = copy.deepcopy([t.detach().clone() for t in at if t is not None])
    y = call(at, 0.3, path)
    wanted = (at.x, at.b, at.A, at.B)
    first = torch.autograd.grad(y, wanted, at.dY, retain_graph=True)
    second = torch.autograd.grad(y, wanted, at.dY)
    assert all(torch.equal(one, two) for one, two in zip(first, second))
    assert all(torch.equal(was, now) for was, now in zip(before, (t for t in at if t is not None)))


@pytest.mark.parametrize("path", PATHS)
def test_the_output_may_be_changed_in_place(path: str) -> None:
    at = layer(30, 24, 40, 4)
    at = at._replace(x=at.x.detach().view(3, 10, 40).requires_grad_())
    outputs = (
        call(at, 0.3, path),
        *lora_linear_stacked(at.x, [at.W] * 2, [at.b] * 2, [at.A] * 2, [at.B] * 2, [SCALE] * 2, path=path),
        lora_linear_routed(at.x, at.W, at.b, [at.A], [at.B], [SCALE], torch.zeros(30, device=DEVICE).int(), path=path),
    )
    for y in outputs:
        was = y.detach().clone()
        y.mul_(2)[..., 0] = 0
        assert torch.equal(y[..., 1:], 2 * was[..., 1:])
        (db,) = torch.autograd.grad(y.sum(), at.b, retain_graph=True)
        assert db[0] == 0 and bool((db[1:] == 60).all())


def test_torchs_newer_setting_for_tf32_is_read() -> None:
    """Once it is set, torch's older one may not be asked."""
    at, matmul = layer(30, 24, 40, 4), torch.backends.cuda.matmul
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("this torch has the older setting alone")
    before = matmul.fp32_precision
    try:
        for said, read in (("tf32", True), ("ieee", False)):
            matmul.fp32_precision = said
            assert tf32() is read and call(at).shape == (30, 24)
    finally:
        matmul.fp32_precision = before


def test_double_backward_raises() -> None:
    at = layer(8, 24, 40, 4)
    stacked = lora_linear_stacked(at.x, [at.W], [at.b], [at.A], [at.B], [SCALE])[0]
    routed = lora_linear_routed(at.x, at.W, at.b, [at.A], [at.B], [SCALE], torch.zeros(8, device=DEVICE).int())
    for y in (call(at), stacked, routed):
        with pytest.raises(RuntimeError, match="not differentiable"):
            torch.autograd.grad(y.square().sum(), at.x, create_graph=True)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("path", ["triton", "plain"])
def test_checkpointing_draws_the_same_mask(path: str, reentrant: bool) -> None:
    at = layer(30, 24, 40, 4)
    plain = gradients(call(at, 0.4, path), at)
    again = checkpoint(call, at, 0.4, path, use_reentrant=reentrant) if not reentrant else None
    if reentrant:  # this form looks for tensors among its own arguments alone
        again = checkpoint(lambda x: call(at._replace(x=x), 0.4, path), at.x, use_reentrant=True)
        again.backward(at.dY)
        found = [again, at.x.grad, *(t.grad for t in (at.b, at.A, at.B) if t is not None)]
    else:
        found = gradients(again, at)
    for one, two in zip(plain, found):
        assert one is not None and two is not None and torch.equal(one, two)


def test_checkpointing_without_its_own_seed() -> None:
    """The mask comes from torch's generator as it stands, not from a seed set inside."""
    at = layer(30, 24, 40, 4)

    def two(x: Tensor) -> Tensor:
        return sum(lora_linear(x, at.W, at.b, at.A, at.B, SCALE, 0.5, path="plain") for _ in range(2))  # type: ignore[return-value]

    torch.manual_seed(3)
    plain = gradients(two(at.x), at)
    torch.manual_seed(3)
    found = gradients(checkpoint(two, at.x, use_reentrant=False), at)
    for one, other in zip(plain, found):
        assert one is not None and other is not None and torch.equal(one, other)


@pytest.mark.parametrize("path", ["addmm", "plain"])
def test_autocast_casts_as_linear_does(path: str) -> None:
    at = layer(30, 24, 40, 4)
    with torch.autocast(DEVICE, torch.bfloat16):
        y = call(at, 0.0, path)
        assert y.dtype == F.linear(at.x, at.W, at.b).dtype == torch.bfloat16
    found = gradients(y, at)
    assert [t.dtype for t in found[1:] if t is not None] == [torch.float32] * 4
    # x, A, B, S and y are rounded to bf16, and in the backward x, B, dY, dS and its product
    for ours, true in zip(found, reference(at)):
        assert error(ours, true) <= bound(torch.bfloat16, 40, 24, 4, 30, roundings=5)


def compiled(of: Callable[..., Tensor]) -> Callable[..., Tensor]:
    torch._dynamo.reset()
    return torch.compile(of, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize(
    ("path", "p"), [("plain", 0.0), ("triton", 0.3), pytest.param("addmm", 0.3, marks=pytest.mark.kernels)]
)
def test_compile_takes_the_op_in_one_graph(path: str, p: float) -> None:
    at = layer(30, 24, 40, 4)

    def run(x: Tensor, W: Tensor, b: Tensor | None, A: Tensor, B: Tensor) -> Tensor:
        return lora_linear(x, W, b, A, B, SCALE, p, path=path) * 2

    torch.manual_seed(5)
    usual = gradients(run(*at[:5]), at)
    torch.manual_seed(5)
    found = gradients(compiled(run)(*at[:5]), at)
    close(found, [t if t is None else t.double() for t in usual], at)


@pytest.mark.kernels
@pytest.mark.parametrize("frozen", ["x", "bA", "xB", "AB"])
def test_compile_with_frozen_parts(frozen: str) -> None:
    at = layer(30, 24, 40, 4)
    at = at._replace(**{name: getattr(at, name).detach() for name in frozen})
    run = compiled(lambda x, W, b, A, B: lora_linear(x, W, b, A, B, SCALE, path="plain"))
    close(gradients(run(*at[:5]), at), reference(at), at)


@pytest.mark.kernels
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("needs", [[True, True, True, True], [False, True, False, True], [True, False, True, False]])
def test_opcheck(p: float, needs: list[bool]) -> None:
    """Schema, fake and autograd registration of both ops agree with what they do."""
    at = layer(10, 12, 16, 4)
    ops, seed = torch.ops.deltatune, torch.tensor(3, device=DEVICE) if p else None
    torch.library.opcheck(ops.lora_linear.default, (*at[:5], seed, SCALE, p, True, "plain"))
    S = torch.randn(10, 4, device=DEVICE)
    given = [t if t is None else t.detach() for t in (at.dY, at.x, at.W, at.A, at.B)]
    torch.library.opcheck(ops.lora_linear_backward.default, (*given, S, seed, SCALE, p, True, "plain", needs))


def test_the_plain_path_has_the_gradients_of_its_output() -> None:
    at = layer(5, 6, 7, 3, torch.float64)

    def run(*given: Tensor) -> Tensor:
        torch.manual_seed(5)
        x, b, A, B = given
        return lora_linear(x, at.W, b, A, B, SCALE, 0.3)

    assert torch.autograd.gradcheck(run, (at.x, at.b, at.A, at.B))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(3, 41)}, r"x \(3, 41\), W \(24, 40\)"),
        ({"b": torch.ones(23)}, r"b \(23,\)"),
        ({"A": torch.ones(4, 41)}, r"A \(4, 41\) and B \(24, 4\) do not fit W \(24, 40\)"),
        ({"B": torch.ones(24, 5)}, r"B \(24, 5\)"),
        ({"A": torch.ones(0, 40), "B": torch.ones(24, 0)}, "rank 0"),
        ({"x": torch.ones(3, 40, dtype=torch.float16)}, "x is torch.float16, W torch.float32"),
        ({"W": torch.ones(24, 40).requires_grad_()}, r"W \(24, 40\) requires a gradient"),
    ],
)
def test_errors_say_what_does_not_fit(change: dict[str, Tensor], message: str) -> None:
    at = layer(3, 24, 40, 4)._replace(**change)
    with pytest.raises(ValueError, match=message):
        lora_linear(at.x, at.W, at.b, at.A, at.B, SCALE)


def test_a_dtype_without_kernels_is_named() -> None:
    at = layer(3, 24, 40, 4, torch.float64)
    with pytest.raises(ValueError, match=r"no Triton kernel for torch\.float64"):
        call(at, path="triton")
    with pytest.raises(ValueError, match="no path 'cuda'"):
        call(layer(3, 24, 40, 4), path="cuda")
