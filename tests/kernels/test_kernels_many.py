"""Layers that share an input, and adapters that share a batch: each equals its members one by one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deltatune.kernels import lora_linear, lora_linear_routed, lora_linear_stacked
from deltatune.kernels.mask import draw_seed, keep, rescale, threshold
from deltatune.kernels.routes import routes
from tests.support.kernel_cases import DEVICE, allowed, error

M, K, N = 45, 50, 40
SIZES, RANKS, SCALES = (40, 24, 1), (8, 3, 20), [0.5, 2.0, 1.3]
LENGTHS = (M, K, N, sum(RANKS))  # rows, inputs, outputs and ranks, over which a layer has its sums
PATHS = ("triton", pytest.param("addmm", marks=pytest.mark.kernels), "plain")


def normal(*shape: int, over: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(*shape) / over**0.5).to(DEVICE, dtype)


class Stack:
    """Three layers of different widths and ranks that read one x; the second has no bias."""

    def __init__(self, dtype: torch.dtype = torch.float32, rows: int = M) -> None:
        torch.manual_seed(0)
        self.x = normal(rows, K, dtype=dtype).requires_grad_()
        self.Ws = [normal(n, K, over=K, dtype=dtype) for n in SIZES]
        self.bs = [normal(SIZES[0], dtype=dtype).requires_grad_(), None, normal(SIZES[2], dtype=dtype).requires_grad_()]
        self.As = [normal(R, K, over=K).requires_grad_() for R in RANKS]
        self.Bs = [normal(n, R, over=R).requires_grad_() for n, R in zip(SIZES, RANKS)]
        self.dYs = [normal(rows, n, dtype=dtype) for n in SIZES]

    def leaves(self) -> list[Tensor]:
        return [t for t in (self.x, *self.bs, *self.As, *self.Bs) if t is not None and t.requires_grad]

    def run(self, p: float, path: str | None) -> list[Tensor]:
        torch.manual_seed(5)
        ys = lora_linear_stacked(self.x, self.Ws, self.bs, self.As, self.Bs, SCALES, p, path=path)
        return [*ys, *torch.autograd.grad(ys, self.leaves(), self.dYs)]

    def one_by_one(self, p: float, path: str | None) -> list[Tensor]:
        ys = []
        for W, b, A, B, s in zip(self.Ws, self.bs, self.As, self.Bs, SCALES):
            torch.manual_seed(5)
            ys.append(lora_linear(self.x, W, b, A, B, s, p, path=path))
        return [*ys, *torch.autograd.grad(ys, self.leaves(), self.dYs)]


def same(found: list[Tensor], true: list[Tensor], dtype: torch.dtype = torch.float32) -> None:
    assert len(found) == len(true)
    for i, (ours, theirs) in enumerate(zip(found, true)):
        assert ours.dtype == theirs.dtype
        assert error(ours, theirs) <= 2 * allowed(dtype, *LENGTHS), f"number {i}: {error(ours, theirs):.2e}"


@pytest.mark.parametrize("path", PATHS)
def test_a_stack_equals_its_layers(path: str) -> None:
    same(Stack().run(0.3, path), Stack().one_by_one(0.3, "plain"))


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("path", PATHS)
def test_a_stack_equals_its_layers_in_each_dtype(path: str, p: float, dtype: torch.dtype) -> None:
    same(Stack(dtype).run(p, path), Stack(dtype).one_by_one(p, path), dtype)


@pytest.mark.parametrize("frozen", ["x", "A", "B", "xA"])
def test_a_stack_with_frozen_parts(frozen: str) -> None:
    stacks = Stack(), Stack()
    for stack in stacks:
        if "x" in frozen:
            stack.x = stack.x.detach()
        if "A" in frozen:
            stack.As = [A.detach() for A in stack.As]
        if "B" in frozen:
            stack.Bs[1] = stack.Bs[1].detach()
    same(stacks[0].run(0.3, "plain"), stacks[1].one_by_one(0.3, "plain"))


def test_a_stack_without_rows_and_one_whose_output_is_unused() -> None:
    empty = Stack(rows=0)
    assert all(not bool(t.any()) for t in empty.run(0.3, "plain"))
    stack = Stack()
    ys = lora_linear_stacked(stack.x, stack.Ws, stack.bs, stack.As, stack.Bs, SCALES, path="plain")
    dx, dB = torch.autograd.grad(ys[0].sum(), (stack.x, stack.Bs[1]))
    alone = lora_linear(stack.x, stack.Ws[0], stack.bs[0], stack.As[0], stack.Bs[0], SCALES[0], path="plain")
    (true,) = torch.autograd.grad(alone.sum(), stack.x)
    assert error(dx, true) <= 2 * allowed(torch.float32, *LENGTHS) and not bool(dB.any())


def test_a_stack_of_unequal_lists_is_refused() -> None:
    stack = Stack()
    with pytest.raises(ValueError, match="Ws 3, bs 3, As 2, Bs 3, scales 3"):
        lora_linear_stacked(stack.x, stack.Ws, stack.bs, stack.As[:2], stack.Bs, SCALES)
    with pytest.raises(ValueError, match="layer 1: A"):
        lora_linear_stacked(stack.x, stack.Ws, stack.bs, [stack.As[0]] * 3, stack.Bs, SCALES)


class Batch:
    """Three adapters of different ranks, scales and dropout, rows in no order, some without an adapter."""

    def __init__(self, dtype: torch.dtype = torch.float32, rows: int = M, used: int = 3) -> None:
        torch.manual_seed(1)
        self.x = normal(rows, K, dtype=dtype).requires_grad_()
        self.W, self.b = normal(N, K, over=K, dtype=dtype), normal(N, dtype=dtype).requires_grad_()
        self.As = [normal(R, K, over=K).requires_grad_() for R in RANKS]
        self.Bs = [normal(N, R, over=R).requires_grad_() for R in RANKS]
        self.index = torch.randint(-1, used, (rows,), device=DEVICE)
        self.dY = normal(rows, N, dtype=dtype)

    def leaves(self) -> list[Tensor]:
        return [t for t in (self.x, self.b, *self.As, *self.Bs) if t.requires_grad]

    def run(self, ps: float | list[float], path: str | None) -> list[Tensor]:
        torch.manual_seed(5)
        y = lora_linear_routed(self.x, self.W, self.b, self.As, self.Bs, SCALES, self.index, ps, path)
        return [y, *torch.autograd.grad(y, self.leaves(), self.dY)]

    def one_by_one(self, ps: list[float]) -> list[Tensor]:
        """Row by row in fp64, with the mask of each row's own number."""
        torch.manual_seed(5)
        seed = draw_seed(self.x)
        leaves = self.leaves()
        wide = [t.detach().double().requires_grad_() for t in leaves]
        at = dict(zip(map(id, leaves), wide))
        x, b, As, Bs = (
            at.get(id(self.x), self.x.double()), at[id(self.b)],
            [at.get(id(A), A.double()) for A in self.As], [at.get(id(B), B.double()) for B in self.Bs],
        )  # fmt: skip
        y = F.linear(x, self.W.double(), b)
        rows = []
        for m, g in enumerate(self.index.tolist()):
            if g < 0:
                rows.append(y[m])
                continue
            t = threshold(ps[g])
            kept = keep(seed, torch.tensor([m], device=DEVICE), K, t)[0].double() * rescale(t)
            rows.append(y[m] + SCALES[g] * Bs[g] @ (As[g] @ (x[m] * kept)))
        y = torch.stack(rows)
        zero = [g if g is not None else torch.zeros_like(t) for g, t in
                zip(torch.autograd.grad(y, wide, self.dY.double(), allow_unused=True), wide)]  # fmt: skip
        return [y, *zero]


def routed_same(found: list[Tensor], true: list[Tensor], dtype: torch.dtype) -> None:
    for i, (ours, theirs) in enumerate(zip(found, true)):
        assert error(ours, theirs) <= 2 * allowed(dtype, *LENGTHS), f"number {i}: {error(ours, theirs):.2e}"


@pytest.mark.parametrize("path", ["triton", "plain"])
def test_a_routed_batch_equals_its_rows(path: str) -> None:
    ps = [0.3, 0.0, 0.6]
    routed_same(Batch().run(ps, path), Batch().one_by_one(ps), torch.float32)


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("rows", [1, 100, 150])
def test_routed_batches_of_every_size(rows: int, p: float, dtype: torch.dtype) -> None:
    batch = Batch(dtype, rows)
    routed_same(batch.run(p, "triton"), batch.one_by_one([p] * 3), dtype)


@pytest.mark.parametrize("path", [pytest.param("triton", marks=pytest.mark.kernels), "plain"])
@pytest.mark.parametrize("used", [0, 1, 2])
def test_adapters_that_no_row_uses_get_zeros(used: int, path: str) -> None:
    """`used` 0: no row has an adapter at all."""
    batch = Batch(used=used)
    routed_same(batch.run(0.0, path), batch.one_by_one([0.0] * 3), torch.float32)


def test_routed_frozen_parts_and_no_rows() -> None:
    batch, twin = Batch(), Batch()
    for one in (batch, twin):
        one.As[0], one.Bs[2], one.x = one.As[0].detach(), one.Bs[2].detach(), one.x.detach()
    routed_same(batch.run(0.0, "plain"), twin.one_by_one([0.0] * 3), torch.float32)
    assert all(not bool(t.any()) for t in Batch(rows=0).run(0.3, "plain"))


@pytest.mark.parametrize("BM", [4, 32])
def test_the_table_covers_every_row_of_an_adapter_once(BM: int) -> None:
    index = torch.tensor([2, -1, 0, 2, 2, 0, -1, 2, 2, 2])
    order, table, segments = routes(index, 4, BM)
    covered = [(g, int(m)) for g, start, stop in table.tolist() if g >= 0 for m in order[start:stop]]
    assert sorted(covered) == sorted((g, m) for m, g in enumerate(index.tolist()) if g >= 0)
    assert len(set(covered)) == len(covered) == 8
    assert all(stop - start <= BM for g, start, stop in table.tolist() if g >= 0)
    assert segments.tolist() == [[0, 2], [2, 2], [2, 8], [8, 8]]


def test_a_wrong_index_is_refused() -> None:
    batch = Batch()
    for index, message in (
        (batch.index[:-1], r"index is \(44,\)"),
        (batch.index.float(), "torch.float32"),
        (torch.full_like(batch.index, 3), "one of 3 adapters"),
    ):
        if message.startswith("one of") and DEVICE == "cuda":
            continue  # there it is an assertion on the device, after which the process has no device any more
        with pytest.raises(ValueError, match=message):
            lora_linear_routed(batch.x, batch.W, batch.b, batch.As, batch.Bs, SCALES, index, path="plain")


@pytest.mark.kernels
def test_compile_takes_the_stacked_and_the_routed_op_in_one_graph() -> None:
    stack, batch = Stack(), Batch()
    torch._dynamo.reset()
    stacked = torch.compile(
        lambda x, Ws, bs, As, Bs: lora_linear_stacked(x, Ws, bs, As, Bs, SCALES, 0.3, path="plain"),
        fullgraph=True, backend="aot_eager",
    )  # fmt: skip
    torch.manual_seed(5)
    ys = stacked(stack.x, stack.Ws, stack.bs, stack.As, stack.Bs)
    same([*ys, *torch.autograd.grad(ys, stack.leaves(), stack.dYs)], stack.run(0.3, "plain"))
    routed = torch.compile(
        lambda x, W, b, As, Bs, index: lora_linear_routed(x, W, b, As, Bs, SCALES, index, 0.3, "plain"),
        fullgraph=True, backend="aot_eager",
    )  # fmt: skip
    torch.manual_seed(5)
    y = routed(batch.x, batch.W, batch.b, batch.As, batch.Bs, batch.index)
    same([y, *torch.autograd.grad(y, batch.leaves(), batch.dY)], batch.run(0.3, "plain"))


@pytest.mark.kernels
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_opcheck_of_the_stacked_and_the_routed_op(p: float) -> None:
    """Schema, fake and autograd registration agree with what the ops do; a factor of each is frozen."""
    ops, stack, batch = torch.ops.deltatune, Stack(rows=6), Batch(rows=6)
    stack.As[0], batch.Bs[1] = stack.As[0].detach(), batch.Bs[1].detach()
    seed = torch.tensor(3, device=DEVICE) if p else None
    given, biased = [b for b in stack.bs if b is not None], [b is not None for b in stack.bs]
    torch.library.opcheck(
        ops.lora_linear_stacked.default,
        (stack.x, stack.Ws, given, stack.As, stack.Bs, seed, biased, SCALES, p, True, "plain"),
    )
    torch.library.opcheck(
        ops.lora_linear_routed.default,
        (batch.x, batch.W, batch.b, batch.As, batch.Bs, batch.index, seed, SCALES, [p] * 3, "plain"),
    )
