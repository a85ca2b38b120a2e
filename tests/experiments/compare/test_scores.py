"""Scores: what is refused, by name, and who is paired with whom."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments.compare.scores import Design, StatisticsError, paired
from experiments.compare.statistics import compare

RIGHT = {"a": {0: [1.0, 0.0, 1.0], 1: [0.0, 0.0, 1.0]}, "b": {0: [0.0, 0.0, 1.0], 1: [1.0, 0.0, 1.0]}}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "no method has scores"),
        ({"a": {0: [1.0, 0.0, 1.0]}, "b": {0: [1.0, 0.0]}}, r"different numbers of examples.*a 3, b 2"),
        ({"a": {0: [1.0, 0.0], 1: [1.0]}}, r"different numbers of examples.*a 1/2"),
        ({"a": {0: [1.0, 0.0]}, "b": {}}, "b has no scores of any seed"),
        ({"a": [1.0, 0.0]}, "a: its scores are no mapping"),
        ({"a": {0: [1.0, float("nan")]}}, "a, seed 0 has a score that is no finite number: nan of example 1"),
        ({"a": {0: [1.0, float("inf")]}}, "no finite number: inf"),
        ({"a": {0: [1.0, None]}}, "no finite number"),
        ({"a": {0: [1.0, "good"]}}, "a, seed 0: its scores are no list of numbers"),
        ({"a": {0: 0.5}}, "a, seed 0: its scores are no list of numbers"),
        ({"a": {0: []}}, "no list of numbers"),
        ({"a": {0: [[1.0, 0.0], [0.0, 1.0]]}}, r"no list of numbers, one an example; their shape \(2, 2\)"),
        ({"a": {"0": [1.0, 0.0]}}, "a seed is a whole number, or None"),
        ({"a": {None: [1.0, 0.0], 1: [1.0, 0.0]}}, "a has scores of seed None, untrained, beside those of seeds"),
        ({"a": {0: [1.0]}}, "a has fewer than two test examples and fewer than two seeds"),
    ],
)
def test_scores_that_make_no_sense_are_refused_by_name(scores: Any, message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        compare(scores)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clusters": ["x", "y"]}, "2 labels for 3 examples"),
        ({"clusters": ["x", "x", "x"]}, "every example has the label 'x'"),
        ({"clusters": [["x", "y", "z"], ["x", "y", "z"], ["x", "y", "z"]]}, "alike for all seeds; these are lists"),
        ({"clusters": {0: ["x", "y", "z"]}}, "one label an example"),
        ({"clusters": "xyz"}, "one label an example"),
        ({"margin": 0.0}, "margin=0.0: a difference that is called negligible, above 0"),
        ({"margin": -0.1}, "margin=-0.1"),
        ({"margin": float("nan")}, "margin=nan"),
        ({"margin": float("inf")}, "margin=inf"),
        ({"alpha": 0.0}, "alpha=0.0: an error rate, above 0 and below 0.5"),
        ({"alpha": 1.0}, "alpha=1.0"),
        ({"alpha": -0.05}, "alpha=-0.05"),
        ({"alpha": float("nan")}, "alpha=nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        compare(RIGHT, **given)


def test_lists_arrays_and_whole_numbers_are_the_same_scores() -> None:
    arrays = {m: {np.int64(s): np.array(each) for s, each in by.items()} for m, by in RIGHT.items()}
    whole = {m: {s: [int(x) for x in each] for s, each in by.items()} for m, by in RIGHT.items()}
    booleans = {m: {s: np.array(each) > 0 for s, each in by.items()} for m, by in RIGHT.items()}
    expected = compare(RIGHT, clusters=["x", "y", "y"], margin=0.5)
    for scores in (arrays, whole, booleans):
        assert compare(scores, clusters=np.array(["x", "y", "y"]), margin=0.5) == expected


def test_pairs_stand_at_their_common_seeds() -> None:
    table = {seed: np.full(2, float(seed)) for seed in range(6)}

    def gaps(a: list[int], b: list[int]) -> list[float]:
        return paired({s: table[s] for s in a}, {s: table[s] + s / 10 for s in b})[:, 0].tolist()

    assert gaps([1, 2, 3], [3, 2, 1]) == pytest.approx([-0.1, -0.2, -0.3])
    assert gaps([1, 2, 3], [2, 3, 4]) == pytest.approx([-0.2, -0.3])  # what only one has is left out
    assert gaps([1, 2], [3, 4, 5]) == pytest.approx([1 - 3.3, 2 - 4.4])  # nothing in common: in their order
    assert gaps([1, 2, 3], [3, 4, 5]) == pytest.approx([-0.3, 1 - 4.4, 2 - 5.5])  # one in common is too few
    assert gaps([1], [2]) == pytest.approx([1 - 2.2])
    untrained = {None: np.zeros(2)}
    assert paired(untrained, {1: table[1], 2: table[2]})[:, 0].tolist() == [-1, -2]
    assert paired(untrained, untrained).shape == (1, 2)


def test_examples_that_all_agree_are_no_certainty() -> None:
    """Of scores of 0 and 1, at least as if four examples differed; of others two, by as much as the scores differ."""
    n = 100
    binary = Design.of({"a": {0: [1.0] * n, 1: [1.0] * n}, "b": {0: [0.0] * n, 1: [0.0] * n}}, None)
    assert binary.floored(np.zeros(1))[0] ** 0.5 == pytest.approx(2 / n)
    assert binary.floored(np.array([0.25 / n]))[0] == pytest.approx(0.25 / n + 1 / n**2)
    wide = Design.of({"a": {0: [-3.0] * n, 1: [7.0] * n}}, None)
    assert wide.floored(np.zeros(1))[0] ** 0.5 == pytest.approx(2 * 10 / n)
    assert wide.floored(np.array([0.25]))[0] == 0.25
    clustered = Design.of({"a": {0: [0.5, 0.25] * 50, 1: [0.5, 0.25] * 50}}, ["x"] * 40 + ["y"] * 60)
    assert clustered.floored(np.zeros(1))[0] ** 0.5 == pytest.approx(2 * 0.6)
    one_number = Design.of({"a": {0: [3.0], 1: [3.0]}}, None)
    assert one_number.floored(np.zeros(1)).tolist() == [0]


@pytest.mark.parametrize(
    ("scores", "more", "message"),
    [
        ([[1, 0], [0, 1]], {}, "no method has scores"),
        ({1: {1: [1, 0], 2: [0, 1]}}, {}, "1: a method is named by a text"),
        ({"a": {1: [1e200, 0], 2: [0, 1]}}, {}, "scores of the size 1e\\+200"),
        ({"a": {1: [1e-200, 0], 2: [0, 1]}}, {}, "scores of the size 1e-200"),
        ({"a": {1: [1, 0], 2: [0, 1]}}, {"clusters": {"x", "y"}}, "clusters: one label an example"),
        ({"a": {1: [1, 0], 2: [0, 1]}}, {"margin": "0.1"}, "margin='0.1'"),
        ({"a": {1: [1, 0], 2: [0, 1]}}, {"margin": True}, "margin=True"),
        ({"a": {1: [1, 0], 2: [0, 1]}}, {"alpha": "0.1"}, "alpha='0.1'"),
        ({"a": {1: [1, 0], 2: [0, 1]}}, {"alpha": 0.9}, "alpha=0.9: an error rate, above 0 and below 0.5"),
    ],
)
def test_what_is_no_table_of_scores_is_named(scores: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        compare(scores, **more)
