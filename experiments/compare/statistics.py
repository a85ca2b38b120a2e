"""Which methods are better, which equivalent, and what stays undecided: tests about new seeds and new examples.

    compare({"lora": {1: [1, 0, …], 2: […]}, "full": {…}, "none": {None: […]}}, clusters=[…], margin=0.02)

Every pair is one of three. `better`: the difference is no luck of these seeds and these examples, by Holm over all
pairs of the study, so that in at most α of studies of equal methods any pair is called so. `equivalent`: the difference
lies within the margin that was stated beforehand, by two one-sided tests (Schuirmann 1987), by Holm over all pairs too,
so that in at most α of studies a pair at the margin is called so. `undecided`: neither; `smallest` is what such a study
would have found in four of five cases. How a difference's variance is estimated: crossed.py; who is paired with whom:
scores.py.

Two things are never said. Of methods with one seed there is no verdict and no letter, because another seed is another
model; p and interval are then about the examples alone. And an interval is of one mean or one pair, not corrected over
the pairs: the verdict is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from experiments.compare.crossed import Array, half_widths
from experiments.compare.letters import letters
from experiments.compare.scores import Design, Scores, StatisticsError, paired
from experiments.compare.verdicts import Verdict, pair_tests, smallest, verdict

__all__ = ["ALPHA", "Comparison", "Mean", "Pair", "Scores", "StatisticsError", "compare"]

ALPHA = 0.05


@dataclass(frozen=True)
class Mean:
    """A method over its seeds: the mean, its interval for new seeds and examples, and every seed's own mean."""

    method: str
    mean: float
    low: float
    high: float
    seed_values: tuple[float, ...]
    seed_sd: float | None  # the seeds' means scatter by this; None with fewer than two seeds


@dataclass(frozen=True)
class Pair:
    """a − b at the seeds that both have. low, high, p: of this pair alone; the verdict and p_holm: over all pairs."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float | None  # None where the pair's seeds were not varied: it is then in no family
    p_equivalent: float | None  # None without a margin
    p_equivalent_holm: float | None
    verdict: Verdict
    better: str | None  # the better one's name, where the verdict is `better`
    smallest: float | None  # the true difference that the study would have found in four of five cases
    seed_sd: float | None  # the differences by seed scatter by this; None with fewer than two common seeds
    n_seeds: int  # seeds that were paired; 0 where neither was trained
    about: str  # what p, interval and verdict are about


@dataclass(frozen=True)
class Comparison:
    """Means from best to worst, all pairs of them in that order, and letters by method.

    letters: two methods share one where neither is better; "" for a method whose seeds were not varied.
    """

    means: tuple[Mean, ...]
    pairs: tuple[Pair, ...]
    letters: dict[str, str]
    alpha: float
    margin: float | None
    n: int
    n_clusters: int | None  # None where each example was drawn for itself
    notes: tuple[str, ...]


def compare(
    scores: Scores, clusters: Sequence[object] | None = None, alpha: float = ALPHA, margin: float | None = None
) -> Comparison:
    """All methods of one task. Scores are numbers of which more is better, of one example each, by method and seed.

    clusters: a label an example; examples of one label are drawn together. One number a seed, n = 1, is taken as a
    measure of the seed: then the seeds alone are a sample. Raises StatisticsError for what cannot be compared.
    """
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float, np.number)) or not 0 < alpha < 0.5:
        raise StatisticsError(f"alpha={alpha!r}: an error rate, above 0 and below 0.5")
    number = isinstance(margin, (int, float, np.number)) and not isinstance(margin, bool)
    if margin is not None and not (number and 0 < margin < float("inf")):
        raise StatisticsError(f"margin={margin!r}: a difference that is called negligible, above 0; None for no margin")
    design = Design.of(scores, clusters)
    averages = {method: float(np.mean([*by_seed.values()])) for method, by_seed in design.scores.items()}
    names = sorted(averages, key=lambda method: -averages[method])  # stable: equal ones in the order given
    pairs = all_pairs(design, names, alpha, margin)
    varied = [name for name in names if design.varied(name)]
    apart = {(pair.a, pair.b) for pair in pairs if pair.verdict == "better"}
    marks = letters(varied, apart) if len(varied) > 1 or len(varied) == len(names) else {}
    once = ", ".join(name for name in names if name not in varied)
    return Comparison(
        means=means(design, names, alpha),
        pairs=pairs,
        letters={name: marks.get(name, "") for name in names},
        alpha=alpha,
        margin=margin,
        n=design.n,
        n_clusters=len(design.clusters.share) if design.clustered else None,
        notes=(f"{once}: one seed, so seeds were not varied; no verdict and no letter",) if once else (),
    )


def means(design: Design, names: Sequence[str], alpha: float) -> tuple[Mean, ...]:
    """Each method with its interval."""
    tables = [np.stack([*design.scores[name].values()]) for name in names]
    parts = design.parts(tables)
    low, high = design.within_bounds(parts.mean, half_widths(parts, alpha))
    return tuple(
        Mean(name, float(table.mean()), float(l), float(h), tuple(map(float, table.mean(axis=1))), spread_of(table))
        for name, table, l, h in zip(names, tables, low, high)
    )


def all_pairs(design: Design, names: Sequence[str], alpha: float, margin: float | None) -> tuple[Pair, ...]:
    """Each pair with its tests and its verdict."""
    named = list(combinations(names, 2))
    if not named:
        return ()
    tables = [paired(design.scores[a], design.scores[b]) for a, b in named]
    parts = design.parts(tables)
    family = np.array([design.varied(a) and design.varied(b) for a, b in named])
    tests = pair_tests(parts, family, alpha, margin)
    least = smallest(parts, alpha / max(1, family.sum()))
    low, high = design.within_bounds(parts.mean, tests.half[0], -1)
    pairs = []
    for i, (a, b) in enumerate(named):
        equal_holm = number(tests.p_equivalent_holm, i)
        conclusion = verdict(tests.p_holm[0, i], np.nan if equal_holm is None else equal_holm, alpha)
        pairs.append(
            Pair(
                a=a,
                b=b,
                difference=float(parts.mean[i]),
                low=float(low[i]),
                high=float(high[i]),
                p=float(tests.p[0, i]),
                p_holm=number(tests.p_holm, i),
                p_equivalent=number(tests.p_equivalent, i),
                p_equivalent_holm=equal_holm,
                verdict=conclusion,
                better=(a if parts.mean[i] > 0 else b) if conclusion == "better" else None,
                smallest=float(least[i]) if family[i] else None,
                seed_sd=spread_of(tables[i]),
                n_seeds=0 if None in design.scores[a] and None in design.scores[b] else len(tables[i]),
                about=about(design, len(tables[i])),
            )
        )
    return tuple(pairs)


def number(of: Array | None, i: int) -> float | None:
    """The pair's number; None where there is none."""
    return None if of is None or np.isnan(of[0, i]) else float(of[0, i])


def about(design: Design, n_seeds: int) -> str:
    """What a pair's test is about."""
    examples = "clusters" if design.clustered else "examples"
    if design.n == 1:
        return "new seeds"
    return f"new seeds and {examples}" if n_seeds > 1 else f"new {examples} alone"


def spread_of(table: Array) -> float | None:
    """The standard deviation of the seeds' means; None with fewer than two."""
    return float(table.mean(axis=1).std(ddof=1)) if len(table) > 1 else None
