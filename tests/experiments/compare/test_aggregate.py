"""Across tasks: normalised scores, interquartile means, probability of improvement, by hand and beside scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from experiments.compare.aggregate import across_tasks, improvement, interquartile_mean, normalised


def test_0_is_the_untouched_model_and_1_the_best() -> None:
    given = {"none": [0.2], "a": [0.8, 0.6], "b": [0.4, 0.4]}
    made = normalised(given, "none")
    assert made["none"].tolist() == [0]
    assert made["a"] == pytest.approx([1.2, 0.8])
    assert made["b"] == pytest.approx([0.4, 0.4])
    del given["none"]
    assert normalised(given, "none")["b"] == pytest.approx([0, 0])
    assert normalised({"a": [0.5], "b": [0.5]}, "none") == {}


def test_the_interquartile_mean_is_scipys_trimmed_mean() -> None:
    values = np.random.default_rng(0).normal(size=(7, 23))
    assert interquartile_mean(values) == pytest.approx(scipy.stats.trim_mean(values, 0.25, axis=1))


def test_the_probability_of_improvement_is_mann_whitneys() -> None:
    rng = np.random.default_rng(1)
    a, b = [rng.integers(0, 5, 6).astype(float) for _ in range(3)], [rng.integers(0, 5, 4).astype(float) for _ in "xyz"]
    expected = [scipy.stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)) for x, y in zip(a, b)]
    assert improvement(a, b) == pytest.approx(np.mean(expected))
    assert improvement([np.ones(3)], [np.zeros(2)]) == 1
    assert improvement([np.ones(3)], [np.ones(2)]) == 0.5


def test_tasks_together() -> None:
    rng = np.random.default_rng(2)

    def runs(level: float) -> list[float]:
        return (level + rng.normal(0, 0.02, 5)).tolist()

    values = {task: {"none": [0.1], "a": runs(0.8), "b": runs(0.8), "c": runs(0.4)} for task in ("x", "y", "z")}
    values["flat"] = {name: [0.5] * 5 for name in ("none", "a", "b", "c")}
    found = across_tasks(values, "none", 0.05, 2000)
    assert found is not None
    assert (found["tasks"], found["left_out"]) == (["x", "y", "z"], ["flat"])
    by_method = {item["method"]: item for item in found["methods"]}
    assert by_method["none"]["iqm"] == 0
    assert by_method["c"]["low"] < by_method["c"]["iqm"] < by_method["c"]["high"] < by_method["a"]["low"]
    assert by_method["a"]["n_runs"] == 15
    pairs = {frozenset((pair["a"], pair["b"])): pair for pair in found["improvement"]}
    assert pairs[frozenset("ac")]["probability"] == 1
    even = pairs[frozenset("ab")]
    assert even["low"] < 0.5 < even["high"]
    assert across_tasks(values, "none", 0.05, 2000) == found


def test_the_bootstrap_is_stratified_by_task() -> None:
    """Seeds that agree on each of two tasks that do not: drawn over both at once, the mean would scatter."""
    values = {"x": {"a": [1.0] * 3, "b": [0.0] * 3}, "y": {"a": [0.0] * 3, "b": [1.0] * 3}}
    found = across_tasks(values, "none", 0.05, 500)
    assert found is not None
    assert {(item["low"], item["iqm"], item["high"]) for item in found["methods"]} == {(0.5, 0.5, 0.5)}


def test_one_task_has_nothing_to_be_put_together() -> None:
    assert across_tasks({"x": {"a": [1.0, 2.0], "b": [0.0, 1.0]}}, "none", 0.05, 100) is None
    assert across_tasks({}, "none", 0.05, 100) is None
    assert across_tasks({"x": {"a": [1.0], "b": [0.0]}, "y": {"c": [1.0], "d": [0.0]}}, "none", 0.05, 100) is None


def test_a_method_that_one_task_lacks_is_left_out() -> None:
    values = {"x": {"a": [1.0], "b": [0.0], "c": [0.5]}, "y": {"a": [1.0], "b": [0.0]}}
    found = across_tasks(values, "none", 0.05, 100)
    assert found is not None
    assert {item["method"] for item in found["methods"]} == {"a", "b"}
