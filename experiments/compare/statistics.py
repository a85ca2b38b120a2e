"""Which methods differ: tests and intervals over the test examples, with the spread over seeds beside them.

Legend: K methods, S seeds, n test examples, P pairs of methods, B resamples. A score is one number of one example.

What the tests ask. The trained models stand fixed, S of each method; the test examples are a sample. p and the
intervals say whether these models, averaged over their seeds, would differ on other examples of the same kind. They
say nothing about models from other seeds: a method whose seeds happened to be lucky differs truly, as these tests
see it, from one whose seeds were not. A sign-flip test over seeds cannot help, with 5 of them its smallest p is
2/32. So a pair also gets `seed_sd` and an interval for new examples and new seeds together, from the components of
variance; it leans on normality, with few seeds heavily, and is wide because little is known. A pair that is told
apart but whose wider interval holds 0 may be the luck of its seeds, and is said to be (`beyond_seeds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

ALPHA = 0.05
RESAMPLES = 10_000  # the smallest p is 1e-4, times Holm's 45 for ten methods still below 0.05
CHUNK = 2_000_000  # numbers drawn at a time, 16 MB

Array = NDArray[np.float64]
# Each method's test scores in test order, by seed. The seed of a model that was not trained is None.
Scores = Mapping[str, Mapping[int | None, Sequence[float]]]


class StatisticsError(ValueError):
    """The scores cannot be compared; the message names the method."""


@dataclass(frozen=True)
class Mean:
    """A method over its seeds: the mean, its interval for other examples, and every seed's own mean."""

    method: str
    mean: float
    low: float
    high: float
    seed_values: tuple[float, ...]
    seed_sd: float | None  # the seeds' means scatter by this; None with fewer than two seeds
    group: str  # letters; two methods that share one are not told apart


@dataclass(frozen=True)
class Pair:
    """a − b. low, high: for other examples, of this pair alone; p_holm: over all pairs."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    distinguishable: bool
    seed_sd: float | None  # the differences by seed scatter by this; None with fewer than two common seeds
    seeds_low: float | None  # the interval for other examples and other seeds
    seeds_high: float | None
    beyond_seeds: bool | None  # whether 0 lies outside that interval


@dataclass(frozen=True)
class Comparison:
    """Means from best to worst, and all pairs of them in that order."""

    means: tuple[Mean, ...]
    pairs: tuple[Pair, ...]


def compare(scores: Scores, *, alpha: float = ALPHA, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """All methods of one task. Raises StatisticsError where they were not scored on the same number of examples."""
    checked(scores)
    averages = {method: np.mean([*by_seed.values()], axis=0, dtype=float) for method, by_seed in scores.items()}
    names = sorted(averages, key=lambda method: -averages[method].mean())  # stable: equal ones in the order given
    examples = np.stack([averages[name] for name in names])  # (K, n)
    rng = np.random.default_rng(seed)
    resampled = bootstrap_means(examples, resamples, rng)  # (B, K)
    first, second = np.triu_indices(len(names), 1)
    differences = examples[first] - examples[second]  # (P, n)
    p = sign_flip(differences, resamples, rng)
    adjusted = holm(p)
    bounded = all(0 <= score <= 1 for by_seed in scores.values() for each in by_seed.values() for score in each)
    lows, highs = interval(examples, resampled, alpha, (0, 1) if bounded else None)
    resampled_differences = resampled[:, first] - resampled[:, second]
    pair_lows, pair_highs = interval(differences, resampled_differences, alpha, (-1, 1) if bounded else None)
    pairs = []
    for i, (a, b) in enumerate(zip(first, second)):
        by_seed = seed_differences(scores[names[a]], scores[names[b]])
        wide = seeds_interval(by_seed, alpha)
        pairs.append(
            Pair(
                a=names[a],
                b=names[b],
                difference=float(differences[i].mean()),
                low=float(pair_lows[i]),
                high=float(pair_highs[i]),
                p=float(p[i]),
                p_holm=float(adjusted[i]),
                distinguishable=bool(adjusted[i] < alpha),
                seed_sd=spread(by_seed.mean(axis=1)),
                seeds_low=None if wide is None else wide[0],
                seeds_high=None if wide is None else wide[1],
                beyond_seeds=None if wide is None else not wide[0] <= 0 <= wide[1],
            )
        )
    groups = letters(names, {(pair.a, pair.b) for pair in pairs if pair.distinguishable})
    means = []
    for k, name in enumerate(names):
        values = [float(np.mean(each)) for each in scores[name].values()]
        mean, low, high = float(examples[k].mean()), float(lows[k]), float(highs[k])
        means.append(Mean(name, mean, low, high, tuple(values), spread(np.array(values)), groups[name]))
    return Comparison(tuple(means), tuple(pairs))


def checked(scores: Scores) -> None:
    """Raises StatisticsError for scores that cannot be paired example by example."""
    sizes = {method: {len(each) for each in by_seed.values()} for method, by_seed in scores.items()}
    if missing := [method for method, lengths in sizes.items() if not lengths]:
        raise StatisticsError(f"{missing[0]} has no scores of any seed; leave it out")
    if len(set().union(*sizes.values())) > 1:
        listed = ", ".join(f"{method} {'/'.join(map(str, sorted(lengths)))}" for method, lengths in sizes.items())
        raise StatisticsError(f"methods scored on different numbers of examples cannot be paired: {listed}")
    for method, by_seed in scores.items():
        if not np.isfinite(np.array([*by_seed.values()], dtype=float)).all():
            raise StatisticsError(f"{method} has a score that is no finite number")
        if len(next(iter(by_seed.values()))) < 2:
            raise StatisticsError(f"{method} has fewer than two test examples; nothing can be resampled")


def bootstrap_means(examples: Array, resamples: int, rng: np.random.Generator) -> Array:
    """Means (B, K) of examples (K, n) drawn anew with replacement, the same ones for every method."""
    n = examples.shape[1]
    parts = []
    for size in chunks(resamples, n):
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        parts.append(counts @ examples.T / n)
    return np.concatenate(parts)


def interval(
    examples: Array, resampled: Array, alpha: float, bounds: tuple[float, float] | None
) -> tuple[Array, Array]:
    """Percentile intervals (P,), (P,) of the means of examples (P, n) from their resampled means (B, P).

    Widened by √(n / (n − 1)) about the mean, as a resample's variance falls short by that. Where all examples have
    one value, no resample differs. If values are known to lie within bounds, the exact binomial limit then stands
    instead: n examples may well have missed a share of q = 1 − (α/2)^(1/n) others, which may lie at either bound.
    """
    n = examples.shape[1]
    mean = examples.mean(axis=1)
    low, high = np.quantile(resampled, [alpha / 2, 1 - alpha / 2], axis=0)
    wider = np.sqrt(n / (n - 1))
    low, high = mean + (low - mean) * wider, mean + (high - mean) * wider
    if bounds is None:
        return low, high
    one_value, missed = np.ptp(examples, axis=1) == 0, 1 - (alpha / 2) ** (1 / n)
    low = np.where(one_value, mean - missed * (mean - bounds[0]), low)
    return low, np.where(one_value, mean + missed * (bounds[1] - mean), high)


def sign_flip(differences: Array, resamples: int, rng: np.random.Generator) -> Array:
    """Two-sided p (P,) of mean differences (P, n): were a and b alike, each example's sign would be a coin's toss.

    p = (1 + #{|Σ ±d| ≥ |Σ d|}) / (B + 1), never 0 and valid at any B (Phipson & Smyth 2010).

    scipy.stats.permutation_test(permutation_type="samples") asks the same of one pair. It is not called, because all
    pairs of a task share the coins: they are drawn once, and each chunk of them serves every pair in one product.
    """
    count = np.zeros(len(differences))
    for size in chunks(resamples, differences.shape[1]):
        coins = rng.integers(0, 2, size=(size, differences.shape[1]), dtype=np.int8)
        count += reached(differences, coins.astype(float) * 2 - 1)
    return (1 + count) / (resamples + 1)


def reached(differences: Array, signs: Array) -> Array:
    """#{|Σ ±d| ≥ |Σ d|} (P,) for differences (P, n) over these signs (B, n)."""
    # Sums that are equal on paper differ by rounding; such a tie counts as reached.
    least = np.abs(differences.sum(axis=1)) - 1e-9 * np.abs(differences).sum(axis=1)
    return (np.abs(signs @ differences.T) >= least).sum(axis=0)


def chunks(total: int, width: int) -> list[int]:
    """Sizes that add up to total, with at most CHUNK numbers in size × width."""
    most = max(1, CHUNK // width)
    return [min(most, total - at) for at in range(0, total, most)]


def holm(p: Array) -> Array:
    """Adjusted p (P,): the i-th smallest times (P − i + 1), never below a smaller one's (Holm 1979)."""
    from statsmodels.stats.multitest import multipletests  # pandas and patsy come along, which take two seconds

    return np.asarray(multipletests(p, method="holm")[1], dtype=float)


def letters(names: Sequence[str], apart: set[tuple[str, str]]) -> dict[str, str]:
    """Letters by method: two share one exactly where they are not told apart. names: best first, so a is the best's.

    Insert and absorb (Piepho 2004): begin with one group of all; a pair told apart splits every group that holds
    both into one without each; a group inside another one goes. After z comes a'.
    """
    groups = [frozenset(names)]
    for a, b in sorted(apart, key=lambda pair: (names.index(pair[0]), names.index(pair[1]))):
        split = {part for group in groups for part in ([group - {a}, group - {b}] if {a, b} <= group else [group])}
        groups = [group for group in split if not any(group < other for other in split)]
    groups.sort(key=lambda group: sorted(names.index(name) for name in group))
    marks = [ascii_lowercase[i % 26] + "'" * (i // 26) for i in range(len(groups))]
    return {name: "".join(mark for mark, group in zip(marks, groups) if name in group) for name in names}


def seed_differences(a: Mapping[int | None, Sequence[float]], b: Mapping[int | None, Sequence[float]]) -> Array:
    """a − b (S, n) at their common seeds; a model that was not trained is the same at every seed of the other."""
    seeds = [seed for seed in {**a, **b} if seed is not None and (seed in a or None in a) and (seed in b or None in b)]
    rows = [np.subtract(a[seed if seed in a else None], b[seed if seed in b else None], dtype=float) for seed in seeds]
    return np.stack(rows) if rows else np.empty((0, len(next(iter(a.values())))))


def spread(values: Array) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def seeds_interval(values: Array, alpha: float) -> tuple[float, float] | None:
    """The mean of values (S, n), S seeds crossed with n examples, for new seeds and new examples; None with S < 2.

    Two-way random effects: var = MS_example / nS + MS_seed / nS − MS_rest / nS, with Satterthwaite's degrees of
    freedom (Searle, Casella & McCulloch 1992, ch. 4), never narrower than the examples alone would make it.
    """
    S, n = values.shape
    if S < 2:
        return None
    mean, by_seed, by_example = values.mean(), values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    examples = by_example.var(ddof=1) / n
    seeds = by_seed.var(ddof=1) / S
    df_examples, df_seeds = n - 1, S - 1
    rest = ((values - by_seed - by_example + mean) ** 2).sum() / (df_examples * df_seeds) / (n * S)
    variance = max(examples + seeds - rest, examples)
    if variance == 0:
        return float(mean), float(mean)
    parts = examples**2 / df_examples + seeds**2 / df_seeds + rest**2 / (df_examples * df_seeds)
    half = -stdtrit(variance**2 / parts, alpha / 2) * np.sqrt(variance)
    return float(mean - half), float(mean + half)
