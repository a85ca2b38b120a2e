"""The statistics on planted data: 1,000 simulated studies of each kind, whose truth is known, and small exact cases."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise, product
from unittest import mock

import numpy as np
import pytest
import scipy.stats

from experiments.compare import statistics
from experiments.compare.statistics import (
    StatisticsError,
    bootstrap_means,
    compare,
    holm,
    letters,
    reached,
    seeds_interval,
    sign_flip,
)

STUDIES = 1000
N, SEEDS = 150, 5
# Standard deviations of what a score is made of; their squares add up to 1, so a binary score is 1 with
# probability Φ(the method's level plus its seed's shift, over what the shift leaves).
DIFFICULTY, SHARED_SEED, METHOD_EXAMPLE, REST = 0.6**0.5, 0.05**0.5, 0.2**0.5, 0.15**0.5


@dataclass
class Outcome:
    """What 1,000 studies found: how many made at least one false claim, and so on."""

    false_claims: int = 0
    found: dict[tuple[str, str], int] = field(default_factory=dict)
    covered: dict[str, int] = field(default_factory=dict)
    covered_by_seeds: int = 0
    beyond_seeds: int = 0


def bounds(share: float, level: float = 0.998) -> tuple[float, float]:
    """Where a count out of 1,000 lies with this probability."""
    low, high = scipy.stats.binom.interval(level, STUDIES, share)
    return float(low), float(high)


@cache
@mock.patch.object(gc, "collect", new=int)  # multipletests calls it each time: minutes for thousands of studies
def studies(levels: tuple[float, ...], binary: bool, own_seeds: float = 0.0) -> Outcome:
    """Simulated studies of methods at these levels; every example's difficulty and every seed's shift are shared.

    own_seeds: variance of a shift of each method's each seed, which makes one set of trained models luckier.
    """
    rng = np.random.default_rng([*(int(100 * level) for level in levels), binary, int(100 * own_seeds)])
    names = [f"m{k}" for k in range(len(levels))]
    K, outcome = len(levels), Outcome()
    tied = {(a, b) for a, x in zip(names, levels) for b, y in zip(names, levels) if x == y and a != b}
    for study in range(STUDIES):
        shift = np.array(levels)[:, None] + rng.normal(0, SHARED_SEED, (1, SEEDS))
        shift = shift + rng.normal(0, own_seeds**0.5, (K, SEEDS))  # (K, S)
        latent = shift[..., None] + rng.normal(0, DIFFICULTY, (1, 1, N))
        latent = latent + rng.normal(0, METHOD_EXAMPLE, (K, 1, N)) + rng.normal(0, REST, (K, SEEDS, N))
        values = (latent > 0).astype(float) if binary else latent
        of_models = shift  # what these trained models score on all examples there could be
        if binary:
            of_models = scipy.stats.norm.cdf(shift / (DIFFICULTY**2 + METHOD_EXAMPLE**2 + REST**2) ** 0.5)
        scores = {name: dict(enumerate(each)) for name, each in zip(names, values)}
        found = compare(scores, resamples=600, seed=study)
        apart = {(pair.a, pair.b) for pair in found.pairs if pair.distinguishable}
        outcome.false_claims += bool(apart & tied)
        for a, b in apart:
            key = (min(a, b), max(a, b))
            outcome.found[key] = outcome.found.get(key, 0) + 1
        truth = dict(zip(names, of_models.mean(axis=1)))
        covering = [mean.method for mean in found.means if mean.low <= truth[mean.method] <= mean.high]
        pair = next(pair for pair in found.pairs if {pair.a, pair.b} == {"m0", "m1"})
        if pair.low <= truth[pair.a] - truth[pair.b] <= pair.high:
            covering.append("m0 - m1")
        for name in covering:
            outcome.covered[name] = outcome.covered.get(name, 0) + 1
        assert pair.seeds_low is not None
        assert pair.seeds_high is not None
        outcome.covered_by_seeds += pair.seeds_low <= 0 <= pair.seeds_high
        outcome.beyond_seeds += pair.beyond_seeds is True
    return outcome


@pytest.mark.parametrize("binary", [True, False])
def test_two_that_tie_are_told_apart_in_one_study_of_twenty(binary: bool) -> None:
    low, high = bounds(0.05)
    assert low <= studies((0.3, 0.3), binary).false_claims <= high


@pytest.mark.parametrize("binary", [True, False])
def test_holm_keeps_the_familywise_error_and_the_difference_is_found(binary: bool) -> None:
    """Three that tie and one that is better: false claims at most 5 % of studies, power as the normal law says."""
    outcome = studies((0.3, 0.3, 0.3, 0.55), binary)
    assert 0 < outcome.false_claims <= bounds(0.05)[1]
    # The three true ones of six pairs go first, and each is tested at 0.05 / 6 at the strictest, 0.05 / 3 at the
    # mildest: all three false hypotheses cannot be rejected before.
    per_example = difference_sd(0.3, 0.55, binary)
    gap = scipy.stats.norm.cdf(0.55) - scipy.stats.norm.cdf(0.3) if binary else 0.25
    ratio = gap * N**0.5 / per_example
    least, most = (scipy.stats.norm.sf(scipy.stats.norm.isf(0.05 / tests / 2) - ratio) for tests in (6, 3))
    for tied in ("m0", "m1", "m2"):
        assert bounds(least)[0] <= outcome.found[tied, "m3"] <= bounds(most)[1]


def difference_sd(a: float, b: float, binary: bool) -> float:
    """Of one example's difference averaged over seeds, from many examples."""
    rng = np.random.default_rng(0)
    n = 100_000
    levels, seeds = np.array([a, b])[:, None, None], rng.normal(0, SHARED_SEED, (1, SEEDS, n))
    latent = levels + seeds + rng.normal(0, DIFFICULTY, (1, 1, n)) + rng.normal(0, METHOD_EXAMPLE, (2, 1, n))
    latent = latent + rng.normal(0, REST, (2, SEEDS, n))
    averages = ((latent > 0) if binary else latent).mean(axis=1)
    return float((averages[0] - averages[1]).std())


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("levels", [(0.3, 0.3), (0.3, 0.3, 0.3, 0.55)])
def test_intervals_cover(levels: tuple[float, ...], binary: bool) -> None:
    """95 % of them, less the half percent that few resamples and 150 examples cost a percentile interval."""
    covered = studies(levels, binary).covered
    assert len(covered) == len(levels) + 1
    for name, count in covered.items():
        assert bounds(0.945)[0] <= count <= bounds(0.95)[1], name


def test_examples_alone_say_nothing_about_new_seeds() -> None:
    """Two methods that tie over all seeds there could be, but whose five seeds had luck of their own.

    The example-level test tells the trained models apart, rightly, and far more often than 5 %; the interval for new
    seeds holds 0 about as often as it says.
    """
    outcome = studies((0.3, 0.3), binary=False, own_seeds=0.02)
    assert outcome.false_claims > 2 * bounds(0.05)[1]
    assert bounds(0.05)[0] <= STUDIES - outcome.covered_by_seeds <= bounds(0.06)[1]
    assert outcome.beyond_seeds == STUDIES - outcome.covered_by_seeds
    assert bounds(0.945)[0] <= outcome.covered["m0 - m1"] <= bounds(0.95)[1]  # it does hold for these very models


def test_the_sign_flip_agrees_with_all_flips() -> None:
    rng = np.random.default_rng(3)
    differences = np.round(rng.normal(0.3, 1, (5, 10)), 1)
    differences[4] = 0.0
    exact = [scipy.stats.permutation_test((row,), np.sum, permutation_type="samples").pvalue for row in differences]
    assert sign_flip(differences, 40_000, rng) == pytest.approx(exact, abs=0.01)
    assert exact[4] == 1.0


def test_rounding_does_not_break_ties() -> None:
    """Thirds of ±1: half of all flips reach the sum on paper, though not in floating point unless it is meant."""
    differences = np.array([[1 / 3, -2 / 3, 1.0, 1 / 3, 2 / 3]])
    exact = scipy.stats.permutation_test((3 * differences[0],), np.sum, permutation_type="samples").pvalue
    assert sign_flip(differences, 40_000, np.random.default_rng(0)) == pytest.approx([exact], abs=0.01)


@pytest.mark.parametrize("n", [2, 5, 9])
def test_over_all_flips_it_is_scipys_permutation_test(n: int) -> None:
    """Every pattern of signs once, instead of coins: the same p to the last digit, ties by rounding among them."""
    differences = np.round(np.random.default_rng(n).normal(0.2, 1, (6, n)), 1)
    differences[4] = 0.0
    differences[5] = 1 / 3
    flips = np.array([*product((-1.0, 1.0), repeat=n)])
    exact = [scipy.stats.permutation_test((row,), np.sum, permutation_type="samples").pvalue for row in differences]
    assert (reached(differences, flips) / len(flips)).tolist() == exact


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.5])) == pytest.approx([1.0, 1.0])


def test_intervals_agree_with_scipy() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=80)
    mean = compare({"m": {0: values.tolist()}}).means[0]
    peer = scipy.stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=0)
    wide = peer.confidence_interval.high - peer.confidence_interval.low
    assert mean.high - mean.low == pytest.approx(wide * (80 / 79) ** 0.5, rel=0.03)
    assert (mean.group, mean.seed_sd) == ("a", None)


def test_the_resamples_are_scipys() -> None:
    """The same generator draws the same examples there, for one method's mean and for a pair's difference."""
    a, b = np.random.default_rng(1).gamma(2.0, size=(2, 40))
    ours = bootstrap_means(np.stack([a, b]), 300, np.random.default_rng(7))
    how = {"n_resamples": 300, "paired": True, "method": "percentile", "vectorized": True}
    alone = scipy.stats.bootstrap((a,), np.mean, rng=np.random.default_rng(7), **how)
    assert ours[:, 0] == pytest.approx(alone.bootstrap_distribution, abs=1e-12)
    pair = scipy.stats.bootstrap(
        (a, b), lambda x, y, axis=-1: np.mean(x - y, axis=axis), rng=np.random.default_rng(7), **how
    )
    assert ours[:, 0] - ours[:, 1] == pytest.approx(pair.bootstrap_distribution, abs=1e-12)


def test_seeds_that_add_nothing_leave_the_interval_of_the_examples() -> None:
    """Where all seeds answer alike, only the examples vary: the interval is that of a t-test over them."""
    values = np.random.default_rng(2).normal(size=30)
    peer = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert seeds_interval(np.stack([values] * 3), 0.05) == pytest.approx((peer.low, peer.high))


def test_all_wrong_is_no_certainty() -> None:
    """The untouched model gets 200 of 200 wrong: up to 1 − 0.025^(1/200) right ones may have been missed."""
    found = compare({"none": {None: [0.0] * 200}, "perfect": {s: [1.0] * 200 for s in range(3)}})
    perfect, none = found.means
    assert (none.low, none.high) == (0.0, pytest.approx(0.01828, abs=1e-4))
    assert (perfect.low, perfect.high) == (pytest.approx(1 - 0.01828, abs=1e-4), 1.0)
    assert none.seed_sd is None
    (pair,) = found.pairs
    assert (pair.a, pair.difference, pair.distinguishable, pair.beyond_seeds) == ("perfect", 1.0, True, True)
    assert (pair.low, pair.high) == (pytest.approx(1 - 2 * 0.01828, abs=1e-4), 1.0)
    (same,) = compare({"a": {None: [0.0, 1.0] * 100}, "b": {0: [0.0, 1.0] * 100}}).pairs
    assert (same.low, same.high, same.p) == (pytest.approx(-0.01828, abs=1e-4), pytest.approx(0.01828, abs=1e-4), 1.0)
    (unbounded,) = compare({"a": {0: [-3.0, -1.0]}, "b": {0: [-3.0, -1.0]}}).pairs
    assert (unbounded.low, unbounded.high) == (0.0, 0.0)


def test_letters_are_shared_exactly_by_the_indistinguishable() -> None:
    rng = np.random.default_rng(5)
    names = [f"m{i}" for i in range(8)]
    for _ in range(200):
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        apart = {pair for pair, far in zip(pairs, rng.random(len(pairs)) < rng.random()) if far}
        given = letters(names, apart)
        assert all((not set(given[a]) & set(given[b])) == ((a, b) in apart) for a, b in pairs)
        assert all(given.values())
    assert letters(["x", "y", "z"], {("x", "z")}) == {"x": "a", "y": "ab", "z": "b"}
    many = [f"m{i}" for i in range(30)]
    each = letters(many, {(a, b) for i, a in enumerate(many) for b in many[i + 1 :]})
    assert (each["m25"], each["m26"]) == ("z", "a'")


def test_seeds_that_failed_leave_the_others() -> None:
    rng = np.random.default_rng(0)
    scores = {
        m: {s: rng.random(40).tolist() for s in seeds} for m, seeds in (("a", (0, 1, 2)), ("b", (0, 2)), ("c", (5,)))
    }
    by_pair = {frozenset((p.a, p.b)): p for p in compare(scores, resamples=100).pairs}
    gaps = [np.mean(scores["a"][s]) - np.mean(scores["b"][s]) for s in (0, 2)]
    assert by_pair[frozenset("ab")].seed_sd == pytest.approx(np.std(gaps, ddof=1))
    assert by_pair[frozenset("ac")].seed_sd is None
    assert by_pair[frozenset("ac")].beyond_seeds is None


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(StatisticsError, match=r"different numbers of examples.*a 3, b 2"):
        compare({"a": {0: [1.0, 0.0, 1.0]}, "b": {0: [1.0, 0.0]}})
    with pytest.raises(StatisticsError, match="b has no scores"):
        compare({"a": {0: [1.0, 0.0]}, "b": {}})
    with pytest.raises(StatisticsError, match="a has a score that is no finite"):
        compare({"a": {0: [1.0, float("nan")]}})
    with pytest.raises(StatisticsError, match="fewer than two"):
        compare({"a": {0: [1.0]}})


def test_means_come_from_best_to_worst_and_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    scores = {f"m{k}": {s: (rng.random(50) < 0.2 * k).astype(float).tolist() for s in range(3)} for k in range(5)}
    first = compare(scores)
    assert all(a.mean >= b.mean for a, b in pairwise(first.means))
    assert all(pair.difference >= 0 for pair in first.pairs)
    assert first == compare(scores)
    monkeypatch.setattr(statistics, "CHUNK", 1000)  # many small parts
    apart = [pair.distinguishable for pair in first.pairs]
    assert [pair.distinguishable for pair in compare(scores).pairs] == apart


def test_ten_methods_take_well_under_a_second() -> None:
    rng = np.random.default_rng(0)
    scores = {f"m{k}": {s: rng.random(200).tolist() for s in range(5)} for k in range(10)}
    holm(np.array([0.5]))  # its library is imported at the first call
    began = time.process_time()
    compare(scores)
    assert time.process_time() - began < 1.0
