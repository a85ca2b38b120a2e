"""The parts of a mean's variance, and the p and intervals made of them: exact cases, and sizes by integration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from scipy.special import ndtr

from experiments.compare.crossed import (
    Clusters,
    Parts,
    Spread,
    between,
    chi_squares,
    half_widths,
    parts,
    seeds_show_nothing,
)

ALONE = 10**6  # degrees of freedom, as good as infinitely many


def each_alone(n: int) -> Clusters:
    return Clusters(np.arange(n))


def test_the_parts_are_the_mean_squares_of_a_two_way_table() -> None:
    values = np.random.default_rng(0).normal(size=(2, 4, 30))
    got = parts(values, each_alone(30))
    for row, table in enumerate(values):
        by_seed, by_example = table.mean(axis=1), table.mean(axis=0)
        left = table - by_seed[:, None] - by_example + table.mean()
        assert got.mean[row] == pytest.approx(table.mean())
        assert got.seeds[row] == pytest.approx(by_seed.var(ddof=1) / 4)
        assert got.examples[row] == pytest.approx(by_example.var(ddof=1) / 30)
        assert got.rest[row] == pytest.approx((left**2).sum() / (3 * 29) / (4 * 30))
    assert (got.seeds_df.tolist(), got.examples_df) == ([3, 3], 29)


def test_clusters_of_one_size_are_the_test_of_their_means() -> None:
    """Eight clusters of five: the same parts as of a table of the clusters' means."""
    values = np.random.default_rng(1).normal(size=(1, 3, 40))
    labels = [f"wording {i % 8}" for i in range(40)]
    of_means = np.stack([[row[k::8].mean() for k in range(8)] for row in values[0]])[None]
    got, expected = parts(values, Clusters.of(labels)), parts(of_means, each_alone(8))
    for name in ("mean", "seeds", "examples", "rest"):
        assert getattr(got, name) == pytest.approx(getattr(expected, name)), name
    assert got.examples_df == 7


def test_clusters_of_other_sizes_are_weighed_by_them() -> None:
    """Bell and McCaffrey's variance and degrees of freedom of a mean, written as the matrices of their paper."""
    labels = [0] * 12 + [1] * 5 + [2] * 3 + [3] * 3 + [4]
    values = np.random.default_rng(2).normal(size=24)
    clusters = Clusters.of(labels)
    got = parts(values[None, None], clusters)
    n, residuals = 24, values - values.mean()
    hat = np.full((n, n), 1 / n)
    meat = 0.0
    forms = []
    for g in range(5):
        inside = np.flatnonzero(np.array(labels) == g)
        own = np.eye(len(inside)) - hat[np.ix_(inside, inside)]
        value, vector = np.linalg.eigh(own)
        adjusted = vector @ np.diag(value**-0.5) @ vector.T
        meat += (adjusted @ residuals[inside]).sum() ** 2 / n**2
        forms.append((np.eye(n) - hat)[:, inside] @ adjusted @ np.ones(len(inside)) / n)
    assert got.examples[0] == pytest.approx(meat)
    P = np.stack(forms, axis=1)
    same = (np.array(labels)[:, None] == np.array(labels)).astype(float)
    dfs = []
    for covariance in (np.eye(n), same):
        eigen = np.linalg.eigvalsh(P.T @ covariance @ P)
        dfs.append(eigen.sum() ** 2 / (eigen**2).sum())
    assert clusters.df == pytest.approx(min(dfs))
    assert clusters.df < 4  # one of the five is half of all


def test_with_one_part_alone_it_is_students_t() -> None:
    one, none = np.array([0.25]), np.zeros(1)
    for df in (1, 2, 4, 9, 60):
        by_seeds = Spread(Parts(none, one, none, none, np.array([df]), 149))
        # A trace of the seeds' part keeps the general way from being cut short.
        by_examples = Spread(Parts(none, none + 1e-14, one, none, np.array([2.0]), df))
        exact = Spread(Parts(none, none, one, none, np.array([2.0]), df))
        close = 0.02 if df == 1 else 0.01  # the heaviest tail
        for p in (0.05, 0.0033):
            expected = scipy.stats.t.isf(p / 2, df) / 2
            assert by_seeds.critical(p) == pytest.approx(expected, rel=close)
            assert by_examples.critical(p) == pytest.approx(expected, rel=close)
            assert exact.critical(p) == pytest.approx(expected, rel=1e-9)
            assert by_seeds.p(np.array([expected])) == pytest.approx(p, rel=close)


def test_without_rest_it_is_behrens_and_fishers() -> None:
    """By a million draws of the fiducial distribution."""
    rng = np.random.default_rng(0)
    spread = Spread(Parts(np.zeros(1), np.array([0.02]), np.array([0.05]), np.zeros(1), np.array([4.0]), 9))
    draws = 0.02**0.5 * rng.standard_t(4, 10**6) + 0.05**0.5 * rng.standard_t(9, 10**6)
    for p in (0.05, 0.005):
        assert spread.critical(p)[0] == pytest.approx(np.quantile(np.abs(draws), 1 - p), rel=0.02)


def test_nothing_that_varies_is_certain() -> None:
    none = np.zeros(2)
    spread = Spread(Parts(np.array([0.0, 1.0]), none, none, none, np.array([2.0, 2.0]), 1))
    assert spread.critical(0.05).tolist() == [0, 0]
    assert spread.p(np.array([0.0, 1.0])).tolist() == [1, 0]


def test_the_variance_is_never_below_the_examples_part() -> None:
    values = np.random.default_rng(4).normal(size=(50, 3, 20))
    values -= values.mean(axis=2, keepdims=True)  # the seeds' means are alike, below what noise makes of them
    got = parts(values, each_alone(20))
    assert (got.seeds < got.rest).all()
    assert (got.variance == got.examples).all()
    student = scipy.stats.t.isf(0.025, 19) * np.sqrt(got.examples)
    assert (Spread(got).critical(0.05) >= student * (1 - 1e-5)).all()
    assert seeds_show_nothing(got).all()
    assert half_widths(got, 0.05) == pytest.approx(student)


def planted(seeds_df: int, share: float, rest: float) -> Parts:
    """Parts as 400 studies estimate them, by the quantiles of χ², where V = 1 and `share` of it is the seeds' own.

    rest: of the examples' part. That part and the rest are known but for nothing.
    """
    quotient = scipy.stats.chi2.ppf((np.arange(400) + 0.5) / 400, seeds_df) / seeds_df
    none = np.zeros(400)
    left = rest * (1 - share)
    return Parts(none, (share + left) * quotient, none + 1 - share, none + left, none + seeds_df, ALONE)


SHARES = (0.05, 0.2, 0.5, 0.8, 0.9, 0.97)


@pytest.mark.parametrize("rest", [0.01, 0.2, 0.9])
@pytest.mark.parametrize("seeds_df", [2, 4, 9])
def test_the_test_errs_on_the_cautious_side_whatever_the_parts_are(seeds_df: int, rest: float) -> None:
    """At Holm's levels, where Satterthwaite's errs up to seven times too often."""
    for share in SHARES:
        estimated = planted(seeds_df, share, rest)
        for level in (0.05, 0.0033):
            size = 2 * ndtr(-Spread(estimated).critical(level)).mean()
            assert size <= level * 1.01, (share, level)


@pytest.mark.parametrize("rest", [0.01, 0.2])
@pytest.mark.parametrize("seeds_df", [2, 4, 9])
def test_intervals_cover_93_to_97_percent_whatever_the_parts_are(seeds_df: int, rest: float) -> None:
    for share in SHARES:
        half = between(planted(seeds_df, share, rest), 0.05)
        assert 0.935 <= 1 - 2 * ndtr(-half).mean() <= 0.97, share


def wide(row: Parts) -> np.ndarray:
    return Spread(row).critical(0.05)


def tight(row: Parts) -> np.ndarray:
    df = row.variance**2 / (row.seeds**2 / row.seeds_df + row.examples**2 / row.examples_df)
    return scipy.stats.t.isf(0.025, df) * np.sqrt(row.variance)


def test_the_half_width_lies_between_the_two_that_it_is_made_of() -> None:
    row = Parts(*(np.array([x]) for x in (0.0, 0.4, 0.6, 0.01, 2.0)), examples_df=100)
    assert tight(row) < half_widths(row, 0.05) < wide(row)
    assert half_widths(row, 0.05) == pytest.approx(np.cbrt(tight(row) ** 2 * wide(row)))
    known = replace(row, seeds_df=np.array([float(ALONE)]))
    assert half_widths(known, 0.05) == pytest.approx(1.96 * np.sqrt(known.variance), rel=0.01)


def test_the_nodes_average_as_the_distribution_does() -> None:
    for df, many in ((1, np.inf), (2, np.inf), (9, np.inf), (40, 30)):
        values, weights = chi_squares(float(df), many)
        assert weights.sum() == pytest.approx(1)
        assert (values * weights).sum() == pytest.approx(1, abs=0.002)
        assert (np.exp(-values) * weights).sum() == pytest.approx((1 + 2 / df) ** (-df / 2), abs=0.002)
