"""Every shipped kernel compiles for every card without spilling, and within its shared memory; no GPU is needed.

The compiler runs in a process of its own, where Triton's interpreter is off (tests/support/aot.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deltatune.kernels.tiles import TILES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler comes for Linux alone")

ROOT = Path(__file__).resolve().parents[2]
SHARED_BYTES = {80: 166_912, 86: 101_376, 90: 232_448}  # what one block may have, by architecture
BIG = ("linear_expand", "bwd_dx")


def compiled(*chosen: str) -> list[dict[str, Any]]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.aot", *chosen], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def passes(row: dict[str, Any]) -> bool:
    """No spills, no stack, at most 255 registers, shared memory that fits; Hopper's big products on its own cores."""
    half = row["dtype"] != "float32"
    return (
        row["local_accesses"] == row["stack_bytes"] == 0
        and row["registers"] <= 255
        and row["shared_bytes"] <= SHARED_BYTES[row["arch"]]
        and (row["hgmma"] > 0 or not (row["arch"] == 90 and half and row["kernel"] in BIG))
        and (row["hgmma"] + row["hmma"] > 0 or not half)
    )


def test_one_big_and_one_skinny_kernel_on_hopper() -> None:
    rows = compiled("bwd_dx/90/bfloat16/128x256x64/16/dropout", "bwd_s/90/bfloat16/64x128x0/16/p0")
    assert len(rows) == 2
    assert [row for row in rows if not passes(row)] == []


@pytest.mark.kernels
@pytest.mark.parametrize("arch", TILES)
@pytest.mark.parametrize("kernel", TILES[90])
def test_every_shipped_tile(kernel: str, arch: int) -> None:
    rows = compiled(f"{kernel}/{arch}/")
    assert len(rows) >= 2 * len([tile for tiles in TILES[arch][kernel].values() for tile in tiles])
    assert [row for row in rows if not passes(row)] == []


@pytest.mark.kernels
def test_sides_of_one_compile() -> None:
    rows = compiled("ones/")
    assert len(rows) == len(TILES[90])
    assert [row for row in rows if row["local_accesses"] or row["stack_bytes"]] == []


@pytest.mark.parametrize(
    "change",
    [
        {"local_accesses": 2},
        {"stack_bytes": 8},
        {"registers": 256},
        {"shared_bytes": 101_377, "arch": 86},
        {"hgmma": 0},
    ],
)
def test_the_gate_itself(change: dict[str, int]) -> None:
    good = {"kernel": "bwd_dx", "arch": 90, "dtype": "bfloat16", "registers": 255, "stack_bytes": 0}
    good |= {"shared_bytes": 232_448, "local_accesses": 0, "hgmma": 4, "hmma": 0}
    assert passes(good)
    assert not passes(good | change)
