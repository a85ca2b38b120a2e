"""What a search varies: places on an axis, the keys that it sets, and arms at other values."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.compare.axes import Axis, axes_of, check_axis, settings
from experiments.compare.search_runs import at
from experiments.config.keys import override, value_at
from experiments.sweep.arm import Arm

RATE = {"optim.lr": {"factor": 3.0}}


def arm(method: str, *more: str) -> Arm:
    return Arm(("model=tiny", "task=ha_json", f"method={method}", "optim.steps=5", *more))


def test_a_log_grid_has_the_default_in_its_middle_and_two_digits() -> None:
    axis = Axis("optim.lr", 1e-3)
    assert [axis.value(place) for place in (-1, 0, 1, 0.5)] == [3.3e-4, 1e-3, 3e-3, 1.7e-3]
    whole = Axis("size", 2, factor=2.0)
    assert [whole.value(place) for place in (-2, -1, 0, 1, 2)] == [None, 1, 2, 4, 8]
    assert len({Axis("optim.lr", 6e-3).value(place) for place in range(-4, 5)}) == 9


def test_a_list_ends_and_the_default_is_where_it_stands_in_it() -> None:
    axis = Axis("optim.warmup_steps", 20, (0, 20, 60))
    assert [axis.value(place) for place in (-2, -1, 0, 1, 2, 0.5)] == [None, 0, 20, 60, None, None]
    without = Axis("optim.warmup_steps", 7, (0, 20, 60))
    assert [without.value(place) for place in (-1, 0, 1)] == [0, 20, 60]


def test_the_rate_comes_first_and_what_a_method_lacks_is_left_out() -> None:
    axes: dict[str, Any] = {"size": {"factor": 2}, "method.rules.*.hparams.alpha": [16, 32], **RATE}
    assert [axis.name for axis in axes_of(axes, arm("lora").config)] == [
        *("optim.lr", "size", "method.rules.*.hparams.alpha"),
    ]
    assert [axis.name for axis in axes_of(axes, arm("bitfit").config)] == ["optim.lr"]
    assert [axis.name for axis in axes_of(axes, arm("full").config)] == ["optim.lr"]
    assert [axis.name for axis in axes_of({"size": {"factor": 2}}, arm("adapter").config)] == ["size"]


def test_a_size_keeps_the_proportions_and_a_star_is_every_rule() -> None:
    config = arm("lora").config
    (size,) = axes_of({"size": {"factor": 2}}, config)
    assert settings(size, 32, config) == {
        "method.rules.0.hparams.rank": 32,
        "method.rules.0.hparams.alpha": 64.0,
    }
    mam = arm("mam").config
    (where,) = axes_of({"method.rules.*.where": ["*.mlp", None]}, mam)
    assert settings(where, "*.mlp", mam) == {"method.rules.0.where": "*.mlp", "method.rules.1.where": "*.mlp"}


@pytest.mark.parametrize("method", ["lora", "full", "mam"])
def test_an_arm_at_other_values_is_what_hydra_would_compose(method: str) -> None:
    usual = arm(method)
    axes = axes_of({**RATE, "size": {"factor": 2}, "optim.warmup_steps": [1, 3]}, usual.config)
    values = {axis.name: axis.value(1 if axis.grid is None else 0) for axis in axes}
    quick = at(usual, axes, values).at(seed=4, steps=3)
    composed = Arm(quick.overrides)
    assert quick.config == composed.config
    assert quick.directory == composed.directory
    assert (quick.config.seed, quick.config.optim.steps, quick.config.optim.warmup_steps) == (4, 3, 1)
    with pytest.raises(ValueError, match=r"optim\.lr"):
        usual.at(lr=0.0, seed=1)


@pytest.mark.parametrize("value", [None, True, 3, 1e-4, "it's *.a, b", ["a", 1]])
def test_an_override_says_the_value(value: Any) -> None:
    config = Arm(("model=tiny", "task=ha_json", "method=lora", "+" + override("method.rules.0.hparams.mine", value)))
    assert value_at(config.config, "method.rules.0.hparams.mine") == value


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("optim.lr", {"factor": 1.0}, "axes.optim.lr.factor=1.0: must be above 1"),
        ("optim.lr", {"step": 3}, "axes.optim.lr=.*give a list"),
        ("optim.warmup_steps", [], "axes.optim.warmup_steps=.*give a list"),
        ("optim.warmup_steps", [1, 1], "each one once"),
    ],
)
def test_axes_that_make_no_sense_are_named(name: str, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_axis(name, given)


def test_a_key_that_no_run_has_is_named() -> None:
    with pytest.raises(ValueError, match=r"optim\.nothing: the run has no such key"):
        axes_of({"optim.nothing": [1]}, arm("lora").config)
    with pytest.raises(ValueError, match=r"axes\.optim\.warmup_steps: lora has None there"):
        axes_of({"optim.warmup_steps": {"factor": 2}}, arm("lora").config)
