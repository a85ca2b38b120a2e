"""What is concluded of each pair: better, equivalent or undecided, and what could have been concluded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from experiments.compare.crossed import Array, Parts, Spread, chi_squares_of, half_widths, root

Verdict = Literal["better", "equivalent", "undecided"]
POWER = 0.8  # the share of studies that would find the smallest difference named
NODES = 129  # whether a difference is found is nearly a step, which wants many


@dataclass(frozen=True)
class PairTests:
    """The tests of P pairs in each of N studies, (N, P) each. NaN is what is in no family."""

    half: Array  # half the interval's width
    p: Array
    p_holm: Array
    p_equivalent: Array | None  # None without a margin
    p_equivalent_holm: Array | None


def pair_tests(parts: Parts, family: NDArray[np.bool_], alpha: float, margin: float | None) -> PairTests:
    """The tests of every pair. parts: rows study by study; family (P,): the pairs that Holm's correction is over."""
    shape = (len(parts.mean) // len(family), len(family))
    spread = Spread(parts)
    half, p = half_widths(parts, alpha, shape[0]), spread.p(parts.mean)
    # A pair is never told apart whose interval holds 0. Of one pair, whose interval leaves it out, p is α at the most.
    p = np.where(np.abs(parts.mean) > half, np.minimum(p, alpha), np.maximum(p, alpha)).reshape(shape)
    equal = None if margin is None else equivalence(parts, margin).reshape(shape)
    return PairTests(
        half=half.reshape(shape),
        p=p,
        p_holm=within(family, p),
        p_equivalent=equal,
        p_equivalent_holm=None if equal is None else within(family, equal),
    )


def within(family: NDArray[np.bool_], p: Array) -> Array:
    """p (N, P) by Holm over each study's family."""
    adjusted = np.full(p.shape, np.nan)
    adjusted[:, family] = holm(p[:, family])
    return adjusted


def holm(p: Array) -> Array:
    """Adjusted p (…, P): the i-th smallest times (P − i + 1), never below a smaller one's (Holm 1979).

    statsmodels' multipletests adjusts one study's; here thousands of planted studies are adjusted in one call.
    """
    order = np.argsort(p, axis=-1, kind="stable")
    stepped = np.take_along_axis(p, order, axis=-1) * np.arange(p.shape[-1], 0, -1)
    adjusted = np.empty(p.shape)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(stepped, axis=-1), 1), axis=-1)
    return adjusted


def equivalence(parts: Parts, margin: float) -> Array:
    """p (P,) of two one-sided tests: the chance of a difference this small were the truth at the nearer margin.

    A one-sided test feels how skewed the sums of few clusters are, a two-sided one hardly: near the most there is, ten
    clusters of scores of 0 and 1 made 7 instead of 5 % of claims false. So the examples' part counts (df + 2) / df.
    """
    room = margin - np.abs(parts.mean)
    half = Spread(replace(parts, examples=parts.examples * (1 + 2 / parts.examples_df))).p(room) / 2
    return np.where(room > 0, half, 1 - half)


def verdict(p_holm: float, p_equivalent_holm: float, alpha: float) -> Verdict:
    """One of three; NaN is no claim. A difference that is real and yet within the margin is `equivalent`.

    The margin is what was called negligible before anything was measured; that a large study sees a difference within
    it does not make it matter. Its p stands beside the verdict.
    """
    if p_equivalent_holm < alpha:
        return "equivalent"
    return "better" if p_holm < alpha else "undecided"


def smallest(parts: Parts, level: float, power: float = POWER) -> Array:
    """The true difference (P,) that a test at `level` calls a difference in `power` of such studies.

    Another study would estimate the seeds' part anew, so its critical distance is spread as that part's χ² spreads:
    c² = c²(examples alone) + (c² − c²(examples alone)) χ²(S − 1) / (S − 1).
    """
    likely = replace(parts, seeds=np.maximum(parts.seeds, parts.rest))
    of_all = Spread(likely).critical(level) ** 2
    of_examples = Spread(likely.examples_alone()).critical(level) ** 2
    spread, weights = chi_squares_of(parts.seeds_df, NODES)  # (P, J)
    critical = np.sqrt(of_examples[:, None] + (of_all - of_examples)[:, None] * spread)
    error = np.sqrt(likely.variance)
    exact = error == 0

    def missing(difference: Array) -> Array:
        reached = ndtr((difference[:, None] - critical) / np.where(exact, 1, error)[:, None])
        return np.where(exact, 0.0, power - reached @ weights)

    low = np.sqrt(of_examples) * 0.5
    high = np.sqrt(of_all) * 4 + ndtri(power) * error
    return np.where(exact, 0.0, root(missing, low, high))
