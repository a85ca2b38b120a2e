"""Means over seeds × examples: what new seeds and new examples, or clusters of them, would have given instead.

Legend: R rows (a method, or a pair's difference), S seeds, n examples, G clusters. The model is the two-way random
one, value[s, i] = mean + seed[s] + example[i] + rest[s, i], where an example's part is its cluster's where those are
given. Three mean squares are estimated, each as the variance of the mean that it speaks of: of the seeds' means
(`seeds`, df S − 1), of the examples' means (`examples`, df G − 1), and of what is left (`rest`). The mean's variance is

    V = examples + max(seeds − rest, 0),

never below the examples' part (Searle, Casella & McCulloch 1992, chapter 4). Satterthwaite's degrees of freedom for V
take a small `seeds`, which with three seeds is often luck, for certainty, and at Holm's levels they err several
times as often as they say. So p is the generalised one (Weerahandi 1995; without `rest` it is Behrens' and Fisher's):
V's parts are spread as their χ² allow, `seeds` by (S − 1) / χ²(S − 1), `examples` by (G − 1) / χ²(G − 1), and the
normal tail is averaged over that. With one part alone it is Student's t exactly; of two it errs on the cautious side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc, expit, gammaincinv, stdtr, stdtrit

Array = NDArray[np.float64]
ROWS = ("mean", "seeds", "examples", "rest", "seeds_df")
NOTHING = 1.15  # seeds over rest: the seeds' own part is then below a seventh of the rest's
FEW_NODES = 31  # enough for a smooth function: p is then off by less than a hundredth of itself
MANY = 30  # degrees of freedom from which on the cube root of χ² is as good as normal


@dataclass(frozen=True)
class Clusters:
    """Which examples are drawn together. index: each example's cluster (n,), from 0 to G − 1."""

    index: NDArray[np.intp]

    @classmethod
    def of(cls, labels: Sequence[object]) -> Clusters:
        """Clusters in the order in which their labels come."""
        numbers: dict[object, int] = {}
        return cls(np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.intp))

    @cached_property
    def share(self) -> Array:
        """Each cluster's share of the examples (G,)."""
        return np.bincount(self.index) / len(self.index)

    @cached_property
    def weight(self) -> Array:
        """1 / (1 − share): what a cluster's square falls short of by the mean it helped to make (Bell & McCaffrey)."""
        return 1 / (1 - self.share)

    def sums(self, values: Array) -> Array:
        """Sums over each cluster's examples (…, G) of values (…, n)."""
        if len(self.share) == len(self.index):
            return values
        order = np.argsort(self.index, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(self.index))[:-1]])
        return np.add.reduceat(values[..., order], starts, axis=-1)

    @cached_property
    def df(self) -> float:
        """Degrees of freedom of the examples' part: G − 1 where clusters are alike in size, fewer where they are not.

        Bell and McCaffrey's (2002) for the mean: the smaller of two, one where examples of a cluster have nothing in
        common, one where they have everything.
        """
        share, weight = self.share, self.weight
        if np.ptp(share) < 1e-12 * share.max():
            return len(share) - 1.0
        pull = weight * share
        ends = (pull * share).sum()
        beside = ends - 2 * pull  # the quadratic form is diag(weight) − pull[g] − pull[k] + ends
        dfs = []
        for v in (share, share**2):
            v0, v1, v2 = v.sum(), v @ pull, v @ pull**2
            all_of_it = ends**2 * v0**2 - 4 * ends * v0 * v1 + 2 * v0 * v2 + 2 * v1**2
            squares = all_of_it + v**2 @ ((weight + beside) ** 2 - beside**2)
            dfs.append((v @ (weight + beside)) ** 2 / squares)
        return float(min(dfs))


@dataclass(frozen=True)
class Parts:
    """Parts of the variances of R means, (R,) each. seeds_df: S − 1; 0 where there are no seeds to vary."""

    mean: Array
    seeds: Array
    examples: Array
    rest: Array
    seeds_df: Array
    examples_df: float

    @property
    def variance(self) -> Array:
        return self.examples + np.maximum(self.seeds - self.rest, 0)

    def examples_alone(self) -> Parts:
        """The same as if seeds never mattered."""
        return replace(self, seeds=np.zeros_like(self.seeds))

    @classmethod
    def joined(cls, several: Sequence[Parts]) -> Parts:
        """The rows of all."""
        rows = {name: np.concatenate([getattr(each, name) for each in several]) for name in ROWS}
        return cls(**rows, examples_df=several[0].examples_df)

    def take(self, rows: NDArray[np.intp]) -> Parts:
        """Those rows."""
        return Parts(**{name: getattr(self, name)[rows] for name in ROWS}, examples_df=self.examples_df)


def parts(values: Array, clusters: Clusters) -> Parts:
    """Of values (R, S, n): each row's parts of variance. One example alone leaves its part at zero."""
    R, S, n = values.shape
    by_seed = values.mean(axis=2)
    mean, none = by_seed.mean(axis=1), np.zeros(R)
    seeds = by_seed.var(axis=1, ddof=1) / S if S > 1 else none
    if n == 1:
        return Parts(mean, seeds, none, none, np.full(R, S - 1.0), 1.0)
    sums, share = clusters.sums(values), clusters.share
    of_examples = sums.mean(axis=1) / n - mean[:, None] * share  # (R, G), which add up to zero
    examples = of_examples**2 @ clusters.weight
    rest = none
    if S > 1:
        left = sums / n - by_seed[..., None] * share - of_examples[:, None]
        rest = (left**2).sum(axis=1) @ clusters.weight / (S * (S - 1))
    return Parts(mean, seeds, examples, rest, np.full(R, S - 1.0), clusters.df)


class Spread:
    """How far R means may lie from the truth, as their parts say it."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.error = parts, np.sqrt(parts.variance)
        self.student = not parts.seeds.any()  # the examples' part alone
        self.exact = self.error == 0
        seeds, seed_weights = chi_squares_of(parts.seeds_df)  # (R, J)
        examples, weights = chi_squares(parts.examples_df, MANY)
        more = np.maximum(parts.seeds[:, None] / seeds - parts.rest[:, None], 0)
        variance = parts.examples[:, None, None] / examples[:, None] + more[:, None]  # (R, K, J)
        with np.errstate(divide="ignore"):
            self.scale = 1 / np.sqrt(2 * variance.reshape(len(variance), -1))
        self.weights = np.outer(weights, seed_weights).ravel()

    def p(self, distance: Array) -> Array:
        """Two-sided p (R,) of means that lie this far (R,) from what they are held to be."""
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.student:
                p = 2 * stdtr(self.parts.examples_df, -np.abs(distance) / self.error)
            else:
                p = erfc(np.abs(distance)[:, None] * self.scale) @ self.weights
        return np.where(self.exact, np.where(distance == 0, 1.0, 0.0), p)

    def critical(self, level: float) -> Array:
        """The distance (R,) whose p is this level; 0 where nothing varies."""
        if self.student:
            return -stdtrit(self.parts.examples_df, level / 2) * self.error

        def over(x: Array) -> Array:
            return np.where(self.exact, 0.0, np.log(np.maximum(self.p(np.exp(x)), 1e-300) / level))

        parts = self.parts
        seeds = stdtrit(np.maximum(parts.seeds_df, 1), level / 2) ** 2 * parts.seeds
        examples = stdtrit(parts.examples_df, level / 2) ** 2
        near = np.maximum(examples * (parts.examples - parts.rest) + seeds, examples * parts.examples)
        high = np.log(np.where(self.exact, 1.0, near)) / 2 + 0.02  # Banerjee's bound, a little above the distance
        low = high - 0.15
        while (far := over(low) < 0).any():
            low, high = np.where(far, low - 0.3, low), np.where(far, low, high)
        while (far := over(high) > 0).any():
            low, high = np.where(far, high, low), np.where(far, high + 0.3, high)
        return np.where(self.exact, 0.0, np.exp(root(over, low, high)))


def seeds_show_nothing(parts: Parts, studies: int = 1) -> NDArray[np.bool_]:
    """Of each study (N,): is the seeds' own part, pooled over the rows whose seeds were varied, next to nothing?"""
    varied = (parts.seeds_df > 0).reshape(studies, -1)
    pooled = [np.where(varied, part.reshape(studies, -1), 0).sum(axis=1) for part in (parts.seeds, parts.rest)]
    return pooled[0] < NOTHING * pooled[1]


def half_widths(parts: Parts, alpha: float, studies: int = 1) -> Array:
    """Half the widths (R,) of the means' 1 − α intervals, in rows of one study or of several alike in rows.

    Few seeds cannot rule out that they matter, and an interval that always allows for it covers 98 % and more where
    they do not. So where the seeds' pooled part is estimated at next to nothing, it is left out.
    """
    nothing = np.repeat(seeds_show_nothing(parts, studies), len(parts.mean) // studies)
    alone = Spread(parts.examples_alone()).critical(alpha)
    return alone if nothing.all() else np.where(nothing, alone, between(parts, alpha))


def between(parts: Parts, alpha: float) -> Array:
    """A distance (R,) between the generalised critical one and Satterthwaite's: of the first once, of that twice.

    With three seeds the first covers up to 98 % instead of 95, the second as little as 92; their weighted geometric
    mean covers 93.5 to 97 %, whatever share of the variance is the seeds', as long as the rest is small beside the
    examples' part.
    """
    error = np.sqrt(parts.variance)
    pieces = parts.seeds**2 / np.maximum(parts.seeds_df, 1) + parts.examples**2 / parts.examples_df
    df = np.where(pieces > 0, error**4 / np.where(pieces > 0, pieces, 1), 1)
    satterthwaite = -stdtrit(df, alpha / 2) * error
    return np.cbrt(satterthwaite**2 * Spread(parts).critical(alpha))


def root(of: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Where a falling function of (R,) is zero between low and high (R,), to 1e-4: the Illinois method."""
    at_low, at_high = of(low), of(high)
    middle, before = low, np.zeros(len(low))
    for _ in range(60):
        gap = at_low - at_high
        middle = np.where(gap > 0, low + (high - low) * at_low / np.where(gap > 0, gap, 1), low)
        value = of(middle)
        if (np.abs(value) < 1e-4).all():
            break
        side = np.where(value > 0, 1.0, -1.0)
        low, high = np.where(side > 0, middle, low), np.where(side > 0, high, middle)
        stuck = side == before
        at_low = np.where(side > 0, value, np.where(stuck, at_low / 2, at_low))
        at_high = np.where(side > 0, np.where(stuck, at_high / 2, at_high), value)
        before = side
    return middle


def chi_squares_of(dfs: Array, count: int = FEW_NODES) -> tuple[Array, Array]:
    """χ²(df) / df at J nodes for each of the degrees of freedom (R, J), and the nodes' weights (J,)."""
    each = [chi_squares(float(df) or 1.0, count=count) for df in dfs]
    return np.stack([values for values, _ in each]), each[0][1]


@lru_cache(maxsize=256)
def chi_squares(df: float, many: float = np.inf, count: int = FEW_NODES) -> tuple[Array, Array]:
    """Values of χ²(df) / df and their weights, to average over.

    Equal steps of the logit of the distribution reach far into the heavy tail that few degrees of freedom have; of
    `many` or more, Wilson and Hilferty's cube root of a normal is enough.
    """
    if df >= many:
        normal, weights = np.polynomial.hermite_e.hermegauss(3)
        return (1 - 2 / (9 * df) + normal * np.sqrt(2 / (9 * df))) ** 3, weights / weights.sum()
    share = expit(np.linspace(-18, 14, count))
    weights = share * (1 - share)
    return 2 * gammaincinv(df / 2, share) / df, weights / weights.sum()
