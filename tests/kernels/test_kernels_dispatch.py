"""Which path runs where, the table of measured choices, and a package that imports no triton until it is asked to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from deltatune.kernels import dispatch, lora_linear, measure, steps
from deltatune.kernels.dispatch import Choice, bucket, choose, key
from deltatune.kernels.tiles import TILES, Tile, tiles
from tests.support.kernel_cases import DEVICE

SHAPE = (8192, 4096, 4096, 16)
HALF = torch.bfloat16


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No choice is remembered from one test's table to another's."""
    choose.cache_clear()
    yield
    choose.cache_clear()


def test_every_row_that_ships_names_a_path_a_card_and_its_times() -> None:
    for name, row in dispatch.table().items():
        assert row["path"] in dispatch.PATHS and row["device"] and row["us"], name
    assert json.loads(dispatch.TABLE.read_text(encoding="utf-8"))["measured"] == dispatch.table()


@pytest.mark.parametrize("kernel", ["linear_expand", "bwd_dx"])
def test_an_unmeasured_big_product_is_cublas(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "table", dict)
    assert choose(kernel, 90, HALF, *SHAPE).path == "addmm"
    assert choose(kernel, 90, HALF, *SHAPE, masked=True).path == "addmm"


@pytest.mark.parametrize("kernel", ["shrink", "bwd_a", "low_rank"])
def test_an_unmeasured_skinny_product_is_ours_only_for_its_mask(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "table", dict)
    assert choose(kernel, 90, HALF, *SHAPE).path == "plain"
    assert choose(kernel, 90, HALF, *SHAPE, masked=True) == Choice("triton", tiles(kernel, 90, HALF)[0])


def test_a_measured_choice_is_taken_for_near_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"path": "triton", "tile": [128, 128, 64, 8, 4]}
    monkeypatch.setattr(dispatch, "table", lambda: {key("bwd_dx", 90, HALF, *SHAPE, False): row})
    tile = Tile(128, 128, 64, 8, 4)
    assert choose("bwd_dx", 90, HALF, *SHAPE) == Choice("triton", tile)
    assert choose("bwd_dx", 90, HALF, 8000, 4100, 3900, 15) == Choice("triton", tile)
    assert choose("bwd_dx", 80, HALF, *SHAPE).path == "addmm"
    assert choose("bwd_dx", 90, torch.float16, *SHAPE).path == "addmm"
    assert choose("bwd_dx", 90, HALF, 1024, 4096, 4096, 16).path == "addmm"
    assert choose("bwd_dx", 90, HALF, *SHAPE, path="plain").path == "plain"


def test_a_layers_dropout_changes_nothing_for_steps_without_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(steps, "choose", lambda *args: asked.append((args[0], args[7])) or Choice("plain", None))
    x, W, A, B = torch.ones(2, 4, requires_grad=True), torch.ones(3, 4), torch.ones(1, 4), torch.ones(3, 1)
    lora_linear(x, W, None, A.requires_grad_(), B.requires_grad_(), 1.0, p=0.5).sum().backward()
    masked = ("shrink", "bwd_dx", "low_rank", "bwd_a")
    assert sorted(asked) == sorted([("linear_expand", False), ("bwd_s", False), *((kernel, True) for kernel in masked)])


def test_where_no_kernel_runs_torch_does() -> None:
    assert choose("shrink", 90, torch.float64, *SHAPE, masked=True).path == "plain"
    assert choose("shrink", 75, torch.float16, *SHAPE, masked=True).path == "plain"
    assert choose("shrink", 0, HALF, *SHAPE, masked=True).path == "plain"
    with pytest.raises(ValueError, match=r"no Triton kernel for torch\.float16 on sm_75"):
        choose("shrink", 75, torch.float16, *SHAPE, path="triton")


@pytest.mark.parametrize(("size", "rounded"), [(1, 1), (5, 4), (6, 8), (11, 8), (12, 16), (4096, 4096), (5800, 8192)])
def test_buckets_are_the_nearest_power_of_two(size: int, rounded: int) -> None:
    assert bucket(size) == rounded


@pytest.mark.parametrize(("arch", "like"), [(80, 80), (86, 86), (89, 86), (90, 90), (100, 90), (120, 86)])
def test_a_card_that_is_not_listed_takes_the_tiles_of_one_that_is(arch: int, like: int) -> None:
    assert tiles("linear_expand", arch, HALF) == TILES[like]["linear_expand"]["half"]


def test_the_grouped_kernels_cut_rows_alike() -> None:
    for kernels in TILES.values():
        for kind, found in kernels["gather_shrink"].items():
            assert {tile.m for tile in found} == {tile.m for tile in kernels["gather_expand"][kind]}


def test_tune_writes_the_fastest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the clock finds our first tile slower than torch, our second faster."""
    pytest.importorskip("triton")
    shipped = tiles("linear_expand", 90, HALF)
    seconds = iter([2.0, 3.0, 1.0, *[5.0] * 50])
    monkeypatch.setattr(measure, "KERNELS", ("linear_expand",))
    monkeypatch.setattr(measure, "arch_of", lambda device: 90)
    monkeypatch.setattr(measure, "do_bench", lambda run, **options: next(seconds))
    monkeypatch.setattr(measure, "candidates", lambda *given: iter(
        [("addmm", None, lambda: None), *(("triton", tile, lambda: None) for tile in shipped)]
    ))  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    path = tmp_path / "table.json"
    found = measure.tune([SHAPE], to=path)
    (row,) = found.values()
    assert row["path"] == "triton" and row["tile"] == list(shipped[1]) and row["device"] == "a card"
    written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert written["measured"] == found
    with pytest.raises(ValueError, match="not on cpu"):
        measure.tune([SHAPE], device="cpu", to=path)


def test_ours_has_to_win_by_what_its_launch_costs() -> None:
    assert measure.fastest({"plain": 100.0, "triton a": 100.0 - measure.MARGIN_US - 1, "triton b": 95.0}) == "triton a"
    assert measure.fastest({"addmm": 100.0, "triton a": 90.0}) == "addmm"
    assert measure.fastest({"triton a": 9.0, "triton b": 8.0}) == "triton b"


def test_every_candidate_of_tune_runs() -> None:
    device = torch.device(DEVICE)
    for kernel in ("shrink", "linear_expand", "bwd_s", "bwd_dx", "bwd_a"):
        ways = list(measure.candidates(kernel, 90, (4, 5, 6, 2), torch.float32, device, measure.Drop(None, 0.0)))
        assert [path for path, _, _ in ways] == [
            "addmm" if kernel in dispatch.BIG else "plain",
            *["triton"] * len(tiles(kernel, 90, torch.float32)),
        ]
        for _, _, run in ways:
            assert run() is not None


def test_importing_the_package_imports_no_triton() -> None:
    code = (
        "import sys, deltatune.kernels as k; assert 'triton' not in sys.modules; assert not k.available('cpu'); "
        "assert k.lora_linear.__name__ == 'lora_linear'; assert 'triton' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_an_unknown_name_is_an_attribute_error() -> None:
    import deltatune.kernels as kernels

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kernels.nothing  # noqa: B018
