"""Verdicts, Holm's correction, equivalence and the smallest difference, by hand and beside other programs."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from experiments.compare.crossed import Parts
from experiments.compare.verdicts import POWER, equivalence, holm, smallest, verdict

NAN = float("nan")  # what was not tested


def examples_alone(mean: float, error: float, df: int) -> Parts:
    none = np.zeros(1)
    return Parts(none + mean, none, none + error**2, none, none, df)


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.5])) == pytest.approx([1.0, 1.0])
    assert holm(np.array([])).tolist() == []


def test_holm_is_statsmodels_of_every_study_at_once() -> None:
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(1).random((40, 15)) ** 3
    p[0, 3] = p[0, 7]
    assert holm(p) == pytest.approx(np.stack([multipletests(each, method="holm")[1] for each in p]))


def test_holm_is_the_step_down_of_bonferroni() -> None:
    """Rejecting at any level what a step-down at that level rejects."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.random(9) ** 3
        adjusted = holm(p)
        for level in (0.01, 0.05, 0.3):
            left, rejected = list(range(9)), set()
            while left and (lowest := min(left, key=lambda i: p[i])) is not None and p[lowest] * len(left) < level:
                rejected.add(lowest)
                left.remove(lowest)
            assert set(np.flatnonzero(adjusted < level)) == rejected


def test_two_one_sided_tests_are_students() -> None:
    few = (1 + 2 / 30) ** 0.5  # what few degrees of freedom cost
    p = equivalence(examples_alone(0.01, 0.02 / few, 30), 0.05)
    above, below = ((0.05 - 0.01) / 0.02, (0.01 + 0.05) / 0.02)
    assert p[0] == pytest.approx(max(scipy.stats.t.sf(above, 30), scipy.stats.t.sf(below, 30)))
    assert equivalence(examples_alone(-0.08, 0.02 / few, 30), 0.05)[0] == pytest.approx(scipy.stats.t.cdf(1.5, 30))


@pytest.mark.parametrize(
    ("p_holm", "p_equivalent", "conclusion"),
    [
        (0.01, NAN, "better"),
        (0.2, NAN, "undecided"),
        (0.2, 0.2, "undecided"),
        (0.2, 0.01, "equivalent"),
        (0.01, 0.2, "better"),
        (0.01, 0.01, "equivalent"),  # real and negligible, by the margin that was stated beforehand
        (0.05, 0.05, "undecided"),
        (NAN, NAN, "undecided"),
    ],
)
def test_each_pair_is_exactly_one_of_three(p_holm: float, p_equivalent: float, conclusion: str) -> None:
    assert verdict(p_holm, p_equivalent, 0.05) == conclusion


def test_the_smallest_difference_of_examples_alone_is_that_of_the_z_test() -> None:
    parts = examples_alone(0.0, 0.02, 10**6)
    assert smallest(parts, 0.05)[0] == pytest.approx((1.959964 + 0.841621) * 0.02, rel=1e-3)


@pytest.mark.parametrize("seeds_df", [2, 4, 9])
def test_of_seeds_alone_it_is_what_a_t_test_finds_in_four_of_five_cases(seeds_df: int) -> None:
    """Where the variance is known to be 1, by the noncentral t."""
    one, none = np.ones(1), np.zeros(1)
    level = 0.05 / 15
    least = smallest(Parts(none, one, none, none, none + seeds_df, 100), level)[0]
    critical = scipy.stats.t.isf(level / 2, seeds_df)
    assert scipy.stats.nct.sf(critical, seeds_df, least) == pytest.approx(POWER, abs=0.003)


def test_nothing_that_varies_hides_nothing() -> None:
    none = np.zeros(1)
    assert smallest(Parts(none, none, none, none, none + 2, 1), 0.05).tolist() == [0]
