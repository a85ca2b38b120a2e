"""The smallest difference that a test could tell: by hand, and by tests on drawn scores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.compare.resolution import POWER, resolution


def test_the_standard_errors_of_scores_and_of_paired_differences() -> None:
    a, b = [1, 1, 0, 0], [1, 0, 0, 0]
    found = resolution([a, b])
    # variances 1/3 and 1/4; of a − b = 0 1 0 0 too 1/4
    assert found.n == 4
    assert found.score_se == pytest.approx(math.sqrt(1 / 3 / 4))
    assert found.difference_se == pytest.approx(math.sqrt(1 / 4 / 4))
    assert found.smallest == pytest.approx((1.959964 + 0.841621) * found.difference_se, rel=1e-6)


def test_the_worst_pair_counts_and_a_lone_model_has_an_unknown_other() -> None:
    same = [1, 0] * 8
    assert resolution([same, same, [0, 1] * 8]).difference_se == pytest.approx(2 * resolution([same]).score_se)
    assert resolution([same]).difference_se == pytest.approx(math.sqrt(2) * resolution([same]).score_se)


def test_scores_all_alike_do_not_say_that_every_score_is() -> None:
    found = resolution([[0.0] * 100, [0.0] * 100])
    assert (found.score_se, found.difference_se) == (0.01, 0.01)


def test_a_difference_of_that_size_is_noticed_as_often_as_it_says() -> None:
    n, draws, rng = 100, 4000, np.random.default_rng(0)
    noise = rng.normal(size=(draws, n))
    smallest = resolution([np.zeros(n).tolist(), noise[0].tolist()]).smallest * 1 / noise[0].std(ddof=1)
    d = noise + smallest
    noticed = np.abs(d.mean(1)) / (d.std(axis=1, ddof=1) / math.sqrt(n)) > 1.984  # t(99) at 5 %
    # Four standard errors of a share of so many draws, and 0.01 for the normal in t's place.
    assert abs(noticed.mean() - POWER) < 4 * math.sqrt(POWER * (1 - POWER) / draws) + 0.01
