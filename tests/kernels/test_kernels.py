"""lora_linear against fp64: every rank, odd shapes, every dtype; and the mask, which depends on its place alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deltatune.kernels import backward, lora_linear, products, shrink
from deltatune.kernels.mask import draw_seed, keep, philox, rescale, threshold
from deltatune.kernels.tiles import Tile
from tests.support.kernel_cases import (
    DEVICE,
    DTYPES,
    NAMES,
    SCALE,
    Layer,
    close,
    eager,
    error,
    gradients,
    layer,
    mask_of,
    reference,
    triton_runs,
)
from tests.support.tolerance import ExactProducts, agree, bound

RANKS = (1, 4, 8, 16, 24, 64)
# no side is a multiple of a tile; single rows and columns; a rank above the widest block
SHAPES = ((37, 75, 90), (130, 150, 170), (1, 33, 40), (50, 1, 70), (65, 40, 1), (200, 129, 17))
PATHS = ("triton", "addmm", "plain")


def run(at: Layer, p: float = 0.0, path: str | None = "triton", seed: int = 5, **options: bool) -> list[Tensor | None]:
    torch.manual_seed(seed)
    return gradients(lora_linear(at.x, at.W, at.b, at.A, at.B, SCALE, p, path=path, **options), at)


def test_the_triton_path_runs_here() -> None:
    assert triton_runs()


def check(at: Layer, p: float, path: str = "triton") -> None:
    """Assert that errors are within the dtype's tolerance, and larger than eager's by no more than a tenth."""
    factor = mask_of(at.x, p, 5)
    true, found = reference(at, factor), run(at, p, path)
    with ExactProducts():
        usual = eager(at, factor)
    close(found, true, at)
    if at.x.dtype == torch.bfloat16 and DEVICE == "cpu":
        return  # the interpreter cuts off where eager rounds
    # an error below this floor comes from the order of the sums, not from the kernel
    floor = bound(torch.float32, len(at.x), *at.W.shape, len(at.A))
    for name, ours, theirs, exact in zip(NAMES, found, usual, true):
        assert error(ours, exact) <= max(1.1 * error(theirs, exact), floor), name


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("R", [1, 24])
def test_fp32(R: int, p: float) -> None:
    check(layer(37, 75, 90, R), p)


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_fp16_with_fp32_factors(p: float) -> None:
    check(layer(37, 75, 90, 8, torch.float16, torch.float32), p)


@pytest.mark.kernels
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("R", [*RANKS, 72, 150])
def test_every_rank_and_dtype(R: int, dtype: torch.dtype, p: float) -> None:
    check(layer(70, 90, 110, R, dtype, torch.float32, seed=R), p)


@pytest.mark.kernels
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_on_every_path(shape: tuple[int, int, int], p: float, path: str) -> None:
    check(layer(*shape, 8), p, path)


@pytest.mark.kernels
@pytest.mark.parametrize("master", [torch.float16, torch.float32, torch.float64], ids=str)
def test_gradients_come_in_the_dtype_of_the_factors(master: torch.dtype) -> None:
    at = layer(37, 75, 90, 8, torch.float16, master)
    y, dx, db, dA, dB = run(at, 0.2)
    assert [t.dtype for t in (y, dx, db) if t is not None] == [torch.float16] * 3
    assert dA is not None and dB is not None and dA.dtype == dB.dtype == master


@pytest.mark.parametrize("deterministic", [True, False])
def test_atomics_and_partial_sums_agree(deterministic: bool) -> None:
    at = layer(70, 130, 40, 4)
    close(run(at, 0.3, deterministic=deterministic), reference(at, mask_of(at.x, 0.3, 5)), at)


def test_two_runs_agree_to_the_bit() -> None:
    at = layer(70, 130, 40, 8)
    for first, second in zip(run(at, 0.3), run(at, 0.3)):
        assert first is not None and second is not None and torch.equal(first, second)


# The mask


def test_philox_gives_the_published_answer() -> None:
    """Random123's known answer for a counter and a key of zeros."""
    zero = torch.zeros((), dtype=torch.int64)
    assert [int(word) for word in philox(zero, zero, zero)] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def drawn(seed: Tensor, M: int, K: int, t: int, tile: Tile) -> Tensor:
    """The mask that `shrink` applies: its product of ones with the identity."""
    eye = torch.eye(K, device=DEVICE)
    return shrink.shrink(torch.ones(M, K, device=DEVICE), eye, tile, seed, t)


def test_the_kernel_draws_the_mask_of_its_twin() -> None:
    seed = torch.tensor(2**62 + 12345, device=DEVICE)
    t = threshold(0.3)
    mask = drawn(seed, 33, 60, t, Tile(32, 0, 64, 4, 2)) != 0
    assert torch.equal(mask, keep(seed, 33, 60, t))
    assert 0.5 < float(mask.float().mean()) < 0.9


@pytest.mark.kernels
def test_the_mask_does_not_depend_on_tile_or_direction() -> None:
    """Five kernels, two tiles each, one mask."""
    M = K = 70
    seed, t = torch.tensor(99, device=DEVICE), threshold(0.4)
    true = keep(seed, M, K, t)
    eye, ones = torch.eye(K, device=DEVICE), torch.ones(M, K, device=DEVICE)
    zero, one_column, one_row = torch.zeros(K, K, device=DEVICE), ones[:, :1].contiguous(), ones[:1].contiguous()
    for m, n in ((16, 16), (32, 64), (128, 128)):
        tile = Tile(m, n, 32, 4, 2)
        found = {
            "shrink": drawn(seed, M, K, t, tile),
            "bwd_a": backward.bwd_a(eye, ones, tile, seed, t),
            "bwd_dx": products.bwd_dx(ones, zero, one_column, one_row, tile, seed, t),
            "low_rank": products.low_rank(one_column, one_row, tile, seed, t),
        }
        for name, mask in found.items():
            assert torch.equal(mask != 0, true), (name, tile)
            agree(mask[true], torch.full_like(mask[true], rescale(t)), K)


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
def test_keep_rate_within_four_sigma(p: float) -> None:
    M, K = 500, 400
    mask = keep(torch.tensor(7, device=DEVICE), M, K, threshold(p))
    kept = int(mask.sum())
    assert abs(kept - M * K * (1 - p)) <= 4 * (M * K * p * (1 - p)) ** 0.5
    # rows and columns are as good as independent: the count of every column is within five sigma of its own mean
    assert float((mask.sum(0) - M * (1 - p)).abs().max()) <= 5 * (M * p * (1 - p)) ** 0.5
    assert not torch.equal(mask, keep(torch.tensor(8, device=DEVICE), M, K, threshold(p)))


def test_the_seed_is_drawn_from_the_generator_of_the_device_and_only_with_dropout() -> None:
    at = layer(8, 16, 16, 4)
    torch.manual_seed(1)
    before = torch.get_rng_state() if DEVICE == "cpu" else torch.cuda.get_rng_state()
    lora_linear(at.x, at.W, None, at.A, at.B, SCALE, 0.0, path="plain")
    now = torch.get_rng_state() if DEVICE == "cpu" else torch.cuda.get_rng_state()
    assert torch.equal(before, now)
    one, two = (lora_linear(at.x, at.W, None, at.A, at.B, SCALE, 0.5, path="plain") for _ in range(2))
    assert not torch.equal(one, two)
    torch.manual_seed(1)
    again = draw_seed(at.x)
    torch.manual_seed(1)
    assert torch.equal(again, draw_seed(at.x))


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_a_dropout_that_is_none(p: float) -> None:
    at = layer(8, 16, 16, 4)
    with pytest.raises(ValueError, match="p must be in"):
        lora_linear(at.x, at.W, None, at.A, at.B, SCALE, p)
