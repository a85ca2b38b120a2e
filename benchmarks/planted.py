"""Studies whose truth is known: scores of methods over seeds and examples, drawn anew for each study.

A score's latent value adds up to variance 1: luck of each method's each seed, then of the rest a share of the
clusters, half of it shared by all methods, and of what is left how hard the example is (shared), how the method
takes to it, and what no part explains. A binary score is 1 where the latent value is above 0, so that a method at
level l is right with probability Φ(l) over new seeds and new examples.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from experiments.compare.crossed import Array, Clusters, Parts
from experiments.compare.crossed import parts as parts_of
from experiments.compare.scores import one_more
from experiments.compare.statistics import ALPHA
from experiments.compare.verdicts import PairTests, pair_tests, smallest

METHODS = 6
CHUNK = 50  # studies at a time, so that what is computed of them fits a cache
CENTRE = 0.3  # the level of the equal methods: 62 % right where scores are binary


@dataclass(frozen=True)
class Design:
    """A kind of study. seed_share: of a score's variance; icc: of what is left, the clusters' share."""

    seed_share: float
    seeds: int
    binary: bool
    n: int = 150
    clusters: int = 0
    icc: float = 0.0
    bare: bool = False  # nothing but seeds and noise: no example is harder than another
    lift: float = 0.0  # the first method's expected score above the others'
    uneven: bool = False  # clusters of different sizes

    def sizes(self) -> list[int]:
        """Examples of each cluster."""
        weights = np.linspace(1, 4, self.clusters) if self.uneven else np.ones(self.clusters)
        ends = np.round(np.cumsum(weights) / weights.sum() * self.n).astype(int)
        return np.diff(ends, prepend=0).tolist()

    def labels(self) -> list[int] | None:
        """Each example's cluster."""
        return np.repeat(np.arange(self.clusters), self.sizes()).tolist() if self.clusters else None

    def levels(self) -> Array:
        """The methods' latent levels; the first one's expected score is `lift` above the others'."""
        levels = np.full(METHODS, CENTRE)
        levels[0] = ndtri(ndtr(CENTRE) + self.lift) if self.binary else CENTRE + self.lift
        return levels

    def scores(self, rng: np.random.Generator, number: int = 1) -> Array:
        """The scores of this many studies (N, K, S, n)."""
        N, K, S, n = number, METHODS, self.seeds, self.n
        left = 1 - self.seed_share
        value = self.levels()[:, None, None] + rng.normal(0, self.seed_share**0.5, (N, K, S, 1))
        if self.clusters:
            part, G = (left * self.icc / 2) ** 0.5, self.clusters
            drawn = rng.normal(0, part, (N, 1, 1, G)) + rng.normal(0, part, (N, K, 1, G))
            value = value + drawn[..., self.labels()]
            left *= 1 - self.icc
        shares = (0.0, 0.0, 1.0) if self.bare else (0.6, 0.2, 0.2)
        for share, shape in zip(shares, ((N, 1, 1, n), (N, K, 1, n), (N, K, S, n))):
            if share:
                value = value + rng.normal(0, (left * share) ** 0.5, shape)
        return (value > 0).astype(float) if self.binary else value


@dataclass
class Outcome:
    """Shares over studies. The pairs are all fifteen of each, or with a lift the five of the first method."""

    false_better: float  # studies that call one of two equal methods better
    false_equivalent: float  # studies that call a pair at the margin equivalent
    coverage: float  # pairs whose interval holds the truth
    power: float  # lifted pairs that are rightly called better
    smallest: float  # the mean over pairs of the first studies


def outcome(design: Design, number: int, seed: int, margin: float | None = None, alpha: float = ALPHA) -> Outcome:
    """What `compare` says of this many studies, all at once: the same tests on the rows of all of them."""
    rng = np.random.default_rng(seed)
    sizes = [min(CHUNK, number - at) for at in range(0, number, CHUNK)]
    first, _ = np.triu_indices(METHODS, 1)
    every = np.ones(len(first), dtype=bool)
    several = [pair_parts(design, design.scores(rng, size)) for size in sizes]
    tests = joined([pair_tests(parts, every, alpha, margin) for parts in several])
    least = smallest(Parts.joined(several[:4]), alpha / len(first))
    lifted = (first == 0) & (design.lift > 0)
    of = lifted if design.lift else every
    difference = np.concatenate([parts.mean for parts in several]).reshape(number, -1)
    with np.errstate(invalid="ignore"):
        equal_p = np.full(tests.p.shape, np.nan) if tests.p_equivalent_holm is None else tests.p_equivalent_holm
        equivalent = equal_p < alpha
        better = (tests.p_holm < alpha) & ~equivalent
    return Outcome(
        false_better=float(better[:, ~lifted].any(axis=1).mean()),
        false_equivalent=float(equivalent[:, lifted].any(axis=1).mean()) if design.lift else 0.0,
        coverage=float((np.abs(difference - design.lift * lifted) <= tests.half)[:, of].mean()),
        power=float((better & (difference > 0))[:, of].mean()),
        smallest=float(least.reshape(-1, len(first))[:, of].mean()),
    )


def joined(several: list[PairTests]) -> PairTests:
    """The studies of all."""
    columns: dict[str, Any] = {
        each.name: [getattr(tests, each.name) for tests in several] for each in fields(PairTests)
    }
    for name, parts in columns.items():
        columns[name] = None if parts[0] is None else np.concatenate(parts)
    return PairTests(**columns)


def pair_parts(design: Design, scores: Array) -> Parts:
    """The parts of all pairs (N · P rows) of several studies' scores."""
    first, second = np.triu_indices(METHODS, 1)
    differences = scores[:, first] - scores[:, second]
    clusters = Clusters(np.arange(design.n)) if not design.clusters else Clusters.of(design.labels() or [])
    estimated = parts_of(differences.reshape(-1, *differences.shape[2:]), clusters)
    return replace(estimated, examples=one_more(estimated.examples, design.n)) if design.binary else estimated
