"""Studies whose truth is known: scores of methods over seeds and examples, drawn anew for each study.

A score's latent value adds up to variance 1: luck of each method's each seed, then of the rest a share of the
clusters, half of it shared by all methods, and of what is left how hard the example is (shared), how the method
takes to it, and what no part explains. A binary score is 1 where the latent value is above 0, so that a method at
level l is right with probability Φ(l) over new seeds and new examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from experiments.compare.statistics import Comparison, compare

Array = NDArray[np.float64]
METHODS = 6
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

    def scores(self, rng: np.random.Generator) -> Array:
        """One study's scores (K, S, n)."""
        K, S, n = METHODS, self.seeds, self.n
        left = 1 - self.seed_share
        value = self.levels()[:, None, None] + rng.normal(0, self.seed_share**0.5, (K, S, 1))
        if self.clusters:
            labels = self.labels()
            part = (left * self.icc / 2) ** 0.5
            drawn = rng.normal(0, part, (1, 1, self.clusters)) + rng.normal(0, part, (K, 1, self.clusters))
            value = value + drawn[..., labels]
            left *= 1 - self.icc
        shares = (0.0, 0.0, 1.0) if self.bare else (0.6, 0.2, 0.2)
        shapes = ((1, 1, n), (K, 1, n), (K, S, n))
        for share, shape in zip(shares, shapes):
            if share:
                value = value + rng.normal(0, (left * share) ** 0.5, shape)
        return (value > 0).astype(float) if self.binary else value


@dataclass
class Outcome:
    """Counts over studies. Pairs: of each study all fifteen, or with a lift the five of the first method."""

    studies: int = 0
    pairs: int = 0
    false_better: int = 0  # studies that call one of two equal methods better
    false_equivalent: int = 0  # studies that call a pair at the margin equivalent
    covered: int = 0  # pairs whose interval holds the truth
    better: int = 0  # lifted pairs that are called better, rightly
    smallest: float = 0.0  # mean over pairs

    def add(self, comparison: Comparison, lift: float) -> None:
        """Count one study."""
        equal = [pair for pair in comparison.pairs if lift == 0 or "m0" not in (pair.a, pair.b)]
        lifted = [pair for pair in comparison.pairs if "m0" in (pair.a, pair.b)] if lift else []
        self.studies += 1
        self.false_better += any(pair.verdict == "better" for pair in equal)
        self.false_equivalent += any(pair.verdict == "equivalent" for pair in lifted)
        for pair in lifted or equal:
            truth = lift if pair.a == "m0" else -lift if pair.b == "m0" else 0.0
            self.pairs += 1
            self.covered += pair.low <= truth <= pair.high
            self.better += bool(lifted) and pair.better == "m0"
            self.smallest += pair.smallest or 0.0

    def shares(self) -> dict[str, float]:
        """What is reported."""
        return {
            "false_better": self.false_better / self.studies,
            "false_equivalent": self.false_equivalent / self.studies,
            "coverage": self.covered / self.pairs,
            "power": self.better / self.pairs,
            "smallest": self.smallest / self.pairs,
        }


def studies(design: Design, number: int, seed: int, margin: float | None = None) -> Iterator[Comparison]:
    """This many studies of the design, each compared."""
    labels = design.labels()
    for study in range(number):
        scores = design.scores(np.random.default_rng([seed, study]))
        given: dict[str, dict[int | None, Any]] = {f"m{k}": dict(enumerate(each)) for k, each in enumerate(scores)}
        yield compare(given, labels, margin=margin)


def outcome(design: Design, number: int, seed: int, margin: float | None = None) -> Outcome:
    """The counts over this many studies."""
    counts = Outcome()
    for comparison in studies(design, number, seed, margin):
        counts.add(comparison, design.lift)
    return counts


def lifted(design: Design, by: float) -> Design:
    """The design with a first method whose expected score is higher by this much."""
    return replace(design, lift=by)
