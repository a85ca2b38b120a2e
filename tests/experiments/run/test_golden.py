"""Golden runs: what a run's numbers were when they were last meant to change."""

from __future__ import annotations

import json

import pytest

from experiments.models.wheel import FetchError
from tests.support.golden import FILE, RUNS, numbers
from tests.support.runs import own_cache_and_torch_settings  # noqa: F401

KEPT = json.loads(FILE.read_text(encoding="utf-8"))
# Six steps in fp32 on processors that add in another order; Adam divides by the gradient's size, so a step carries
# the relative error of a gradient on, and small gradients have large ones.
TOLERANCE = 2e-3


def near(kept: object) -> object:
    return pytest.approx(kept, rel=TOLERANCE, abs=1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_gives_the_numbers_that_are_kept(name, tmp_path):
    try:
        measured = numbers(name, tmp_path)
    except FetchError as error:
        pytest.skip(f"the model cannot be had: {error}")
    kept = KEPT[name]
    assert measured["data"] == kept["data"], "the task's examples are others; measure again, where that is meant"
    for part in ("loss", "curve", "validation", "probes"):
        assert measured[part] == near(kept[part]), f"{part}: see tests/support/golden.py, where the change is meant"
    assert measured["grad_norm"] == pytest.approx(kept["grad_norm"], rel=10 * TOLERANCE)


@pytest.mark.parametrize("change", ["optim.betas=[0.8,0.999]", "optim.warmup_steps=3", "optim.head_lr=4e-2", "seed=1"])
def test_what_moves_a_number_moves_it_further_than_the_tolerance(change, tmp_path):
    try:
        measured = numbers("minilm head", tmp_path, change)
    except FetchError as error:
        pytest.skip(f"the model cannot be had: {error}")
    assert measured["loss"] != near(KEPT["minilm head"]["loss"])
