"""Sizes solved for a number of parameters, on the tiny model, against what is really injected."""

from __future__ import annotations

import pytest

import deltatune as dt
from experiments.compare.budget import nearest, resized, solve
from experiments.config.schema import MethodConfig, RuleConfig
from experiments.models.load import skeleton
from experiments.sweep.arm import Arm
from tests.support.runs import own_cache_and_torch_settings  # noqa: F401

BUDGET = 9000


def arm(method: str, *more: str) -> Arm:
    return Arm(("model=tiny", "task=ha_json", f"method={method}", *more))


@pytest.mark.parametrize("method", ["lora", "dora", "adapter", "prefix", "prompt", "mam"])
def test_no_other_size_is_nearer(method: str) -> None:
    config = arm(method).config
    sized = solve(config, BUDGET)
    assert sized.size is not None
    assert sized.note == ""
    # The overrides are Hydra's own, and give what was counted.
    given = arm(method, *sized.overrides).config.method
    model = skeleton(config.model)

    def planned(method: MethodConfig) -> int:
        rules = [dt.METHODS[rule.method].on(rule.where, **rule.hparams) for rule in method.rules]
        return dt.plan(model, *rules).parameters

    assert planned(given) == sized.parameters
    for size in (sized.size - 1, sized.size + 1):
        if size >= 1:
            other = resized(config.method, size)
            overrides = tuple(f"method.rules.{i}.hparams.{name}={value}" for (i, name), value in other.items())
            off = abs(planned(arm(method, *overrides).config.method) - BUDGET)
            assert abs(sized.parameters - BUDGET) <= off


@pytest.mark.parametrize("method", ["bitfit", "ia3", "full"])
def test_a_method_without_a_size_is_left_and_marked(method: str) -> None:
    sized = solve(arm(method).config, BUDGET)
    assert (sized.overrides, sized.size) == ((), None)
    assert "does not meet the budget" in sized.note


def test_sizes_keep_their_proportion_and_lora_its_scale() -> None:
    rules = [
        RuleConfig("LoRA", None, {"rank": 8, "alpha": 32, "dropout": 0.5}),
        RuleConfig("Adapter", None, {"width": 64}),
    ]
    method = MethodConfig("fable", 0.1, rules=rules)
    assert resized(method, 32) == {(0, "rank"): 4, (0, "alpha"): 16.0, (1, "width"): 32}
    assert resized(method, 1) == {(0, "rank"): 1, (0, "alpha"): 4.0, (1, "width"): 1}


@pytest.mark.parametrize(("budget", "size"), [(1, 1), (14, 1), (15, 1), (16, 2), (1000, 100), (1006, 101)])
def test_the_nearest_count_wins_and_of_two_the_smaller(budget: int, size: int) -> None:
    assert nearest(lambda size: 10 * size, budget) == size


def test_the_nearest_is_found_where_counts_bend() -> None:
    for budget in range(1, 400, 7):
        best = min(range(1, 60), key=lambda size: abs(size * size // 3 + 2 * size - budget))
        assert nearest(lambda size: size * size // 3 + 2 * size, budget) == best
