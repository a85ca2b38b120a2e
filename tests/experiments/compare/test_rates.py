"""The grid of learning rates and the choice on it, on made-up trials."""

from __future__ import annotations

from dataclasses import fields
from itertools import permutations
from pathlib import Path

import pytest

from benchmarks.made_up import made_up, put
from experiments.compare.rates import Choice, ChooseBy, Trial, choose, grid
from experiments.store.files import read
from experiments.sweep.arm import Arm

RATES = [0.1, 0.033, 0.3]


def trial(lr: float, loss: float, exact_match: float = 0.5) -> Trial:
    return Trial(lr, "exact_match", {"exact_match": exact_match, "loss": loss})


def test_the_grid_has_the_default_first_and_two_digits() -> None:
    assert grid(1e-3, 3, 3.0) == [1e-3, 3.3e-4, 3e-3]
    assert grid(1e-3, 1, 3.0) == [1e-3]
    assert sorted(grid(2e-2, 4, 2.0)) == [0.01, 0.02, 0.04, 0.08]
    assert len(set(grid(6e-3, 7, 3.0))) == 7


def test_the_lowest_loss_is_chosen_in_any_order() -> None:
    trials = [trial(0.1, 0.8, 0.4), trial(0.033, 0.9, 0.5), trial(0.3, 1.0, 0.5)]
    for given in permutations(trials):
        assert choose(given, RATES, ChooseBy.loss) == Choice(0.1, False)
        # Two rates tie in the metric, and the loss decides.
        assert choose(given, RATES, ChooseBy.metric).lr == 0.033


def test_the_best_at_the_edge_is_said_to_be() -> None:
    high = choose([trial(0.1, 0.8), trial(0.033, 0.9), trial(0.3, 0.7)], RATES, ChooseBy.loss)
    assert (high.lr, high.at_edge) == (0.3, True)
    assert high.notes == ("lr 0.3 is at the edge of its grid (0.033 to 0.3); beyond may be better",)
    alone = choose([trial(0.1, 0.8)], [0.1], ChooseBy.loss)
    assert (alone.lr, alone.at_edge, alone.notes) == (0.1, True, ("lr 0.1 is the only one tried",))


def test_a_neighbour_that_diverged_was_tried_and_one_that_died_was_not() -> None:
    trials = [trial(0.1, 0.8), trial(0.033, 0.9)]
    diverged = choose([*trials, Trial(0.3, failure="the loss is nan", diverged=True)], RATES, ChooseBy.loss)
    assert (diverged.lr, diverged.at_edge) == (0.1, False)
    assert diverged.notes == ("lr 0.3 failed: the loss is nan",)
    died = choose([*trials, Trial(0.3, failure="out of memory")], RATES, ChooseBy.loss)
    assert (died.lr, died.at_edge) == (0.1, True)
    assert "lr 0.3 failed: out of memory" in died.notes
    assert "not tried: lr 0.3" in choose(trials, RATES, ChooseBy.loss).notes


def test_without_a_complete_trial_nothing_is_chosen() -> None:
    none = choose([Trial(lr, failure="made up") for lr in RATES], RATES, ChooseBy.loss)
    assert (none.lr, none.at_edge) == (None, False)
    assert none.notes[0] == "no trial is complete, so no learning rate was chosen"
    assert choose([], RATES, ChooseBy.loss).lr is None


def test_a_trial_holds_no_test_score(tmp_path: Path) -> None:
    """Two results that differ in the test set alone are one and the same trial."""
    poor = made_up(quality={"exact_match": 0.0}, scores=[0.0] * 16)
    good = made_up(quality={"exact_match": 1.0}, scores=[1.0] * 16)
    trials = [Trial.of(read(put(tmp_path, result, str(i)))) for i, result in enumerate((poor, good))]
    assert trials[0] == trials[1] == Trial(0.01, "exact_match", made_up()["validation"])
    assert {item.name for item in fields(Trial)} == {"lr", "metric", "validation", "failure", "diverged"}
    nan = made_up(status="failed", error="step 4: nan", failure_kind="nan")
    assert Trial.of(read(put(tmp_path, nan))) == Trial(0.01, failure="step 4: nan", diverged=True)


@pytest.mark.parametrize("method", ["lora", "full", "mam"])
def test_an_arm_at_another_rate_is_what_hydra_would_compose(method: str) -> None:
    usual = Arm(("model=tiny", "task=ha_json", f"method={method}", "optim.steps=5"))
    for lr in grid(usual.config.optim.lr, 3, 3.0):
        quick = usual.at(lr=lr, seed=4)
        composed = Arm(quick.overrides)
        assert quick.config == composed.config
        assert quick.directory == composed.directory
    with pytest.raises(ValueError, match=r"optim\.lr"):
        usual.at(lr=0.0, seed=1)
