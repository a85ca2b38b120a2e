"""Scores as they are given, checked, and paired seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from experiments.compare.crossed import Array, Clusters, Parts, parts

# Each method's test scores in test order, by seed. The seed of a model that was not trained is None.
Scores = Mapping[str, Mapping[int | None, ArrayLike]]
SMALLEST = 1e-100  # smaller numbers, and larger ones than its inverse, have squares that are no numbers
Checked = dict[str, dict[int | None, Array]]


class StatisticsError(ValueError):
    """The scores cannot be compared; the message names the method."""


def checked(scores: Scores) -> Checked:
    """The scores as arrays. Raises StatisticsError for those that cannot be paired example by example."""
    if not isinstance(scores, Mapping) or not scores:
        raise StatisticsError("no method has scores; give {method: {seed: [a number an example]}}")
    arrays: Checked = {}
    for method, by_seed in scores.items():
        if not isinstance(method, str):
            raise StatisticsError(f"{method!r}: a method is named by a text")
        if not isinstance(by_seed, Mapping):
            raise StatisticsError(f"{method}: its scores are no mapping; give {{seed: [a number an example]}}")
        if not by_seed:
            raise StatisticsError(f"{method} has no scores of any seed; leave it out")
        if None in by_seed and len(by_seed) > 1:
            raise StatisticsError(f"{method} has scores of seed None, untrained, beside those of seeds; give one kind")
        arrays[method] = {seed: numbers(method, seed, each) for seed, each in by_seed.items()}
    lengths = {method: {len(each) for each in by_seed.values()} for method, by_seed in arrays.items()}
    if len(set().union(*lengths.values())) > 1:
        listed = ", ".join(f"{method} {'/'.join(map(str, sorted(each)))}" for method, each in lengths.items())
        raise StatisticsError(f"methods scored on different numbers of examples cannot be paired: {listed}")
    if max(map(max, lengths.values())) == 1 and any(len(each) < 2 for each in arrays.values()):
        alone = next(method for method, each in arrays.items() if len(each) < 2)
        raise StatisticsError(f"{alone} has fewer than two test examples and fewer than two seeds: nothing varies")
    return arrays


def one_more(examples: Array, n: int) -> Array:
    """The examples' part of scores of 0 and 1, with one example more that is otherwise, and four at the least."""
    return np.maximum(examples + 1 / n**2, 4 / n**2)


def numbers(method: str, seed: int | None, values: ArrayLike) -> Array:
    """One seed's scores (n,)."""
    where = f"{method}, seed {seed}"
    if isinstance(seed, bool) or not (seed is None or isinstance(seed, (int, np.integer))):
        raise StatisticsError(f"{where}: a seed is a whole number, or None of an untrained model")
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise StatisticsError(f"{where}: its scores are no list of numbers") from None
    if array.ndim != 1 or not len(array):
        raise StatisticsError(f"{where}: its scores are no list of numbers, one an example; their shape {array.shape}")
    if not np.isfinite(array).all():
        at = int(np.flatnonzero(~np.isfinite(array))[0])
        raise StatisticsError(f"{where} has a score that is no finite number: {array[at]} of example {at}")
    if (extent := np.abs(array).max()) and not SMALLEST < extent < 1 / SMALLEST:
        raise StatisticsError(f"{where} has scores of the size {extent:g}, whose squares are no numbers; rescale them")
    return array


def checked_clusters(clusters: Sequence[object] | None, n: int) -> Clusters:
    """The clusters that the labels name; each example for itself without them."""
    if clusters is None:
        return Clusters(np.arange(n))
    if isinstance(clusters, (str, Mapping, Set)) or not hasattr(clusters, "__len__"):
        raise StatisticsError("clusters: one label an example, in the examples' order and alike for all seeds; a list")
    labels = list(clusters)
    if len(labels) != n:
        raise StatisticsError(f"clusters: {len(labels)} labels for {n} examples; one label an example is needed")
    try:
        made = Clusters.of(labels)
    except TypeError:
        raise StatisticsError(
            "clusters: a label is a text or a number, one an example, alike for all seeds; these are lists"
        ) from None
    if len(made.share) < 2:
        raise StatisticsError(
            f"clusters: every example has the label {labels[0]!r}; nothing can be known of other clusters than this "
            "one. Leave clusters out to ask about other examples of it"
        )
    return made


def paired(a: Mapping[int | None, Array], b: Mapping[int | None, Array]) -> Array:
    """a − b (S, n), seed by seed; one row where neither was trained.

    At a common seed two methods share the order of the data, so those are paired. Where fewer than two are common,
    seeds share too little: all are paired in their order, as many as both have. An untrained model is the same at
    every seed.
    """
    if None in a or None in b:
        return np.stack([*a.values()]) - np.stack([*b.values()])
    common = [seed for seed in a if seed in b]
    if len(common) < 2 and min(len(a), len(b)) > 1:
        rest = [seed for seed in a if seed not in common], [seed for seed in b if seed not in common]
        pairs = [(seed, seed) for seed in common] + list(zip(*rest))
    else:
        pairs = [(seed, seed) for seed in common] or list(zip(a, b))
    return np.stack([a[one] - b[other] for one, other in pairs])


@dataclass(frozen=True)
class Design:
    """What was scored, and what it is a sample of."""

    scores: Checked
    clusters: Clusters
    clustered: bool

    @classmethod
    def of(cls, scores: Scores, clusters: Sequence[object] | None) -> Design:
        """The scores and clusters as they were given. Raises StatisticsError for those that make no sense."""
        given = checked(scores)
        n = len(next(iter(next(iter(given.values())).values())))
        return cls(given, checked_clusters(clusters, n), clusters is not None)

    @property
    def n(self) -> int:
        return len(self.clusters.index)

    def varied(self, method: str) -> bool:
        """Whether other seeds can be spoken of: there are two at least, or the model has none."""
        return None in self.scores[method] or len(self.scores[method]) > 1

    @cached_property
    def every_score(self) -> Array:
        return np.concatenate([each for by_seed in self.scores.values() for each in by_seed.values()])

    @cached_property
    def bounded(self) -> bool:
        return bool(((self.every_score >= 0) & (self.every_score <= 1)).all())

    def within_bounds(self, mean: Array, half: Array, least: float = 0) -> tuple[Array, Array]:
        """Lower and upper ends of the intervals; of scores from 0 to 1 none goes beyond `least` and 1."""
        low, high = mean - half, mean + half
        return (np.maximum(low, least), np.minimum(high, 1)) if self.bounded else (low, high)

    def parts(self, tables: Sequence[Array]) -> Parts:
        """The parts of variance of each table's mean, a table (S, n) a row; the examples' part with its floor."""
        rows: dict[int, list[int]] = {}
        for row, table in enumerate(tables):
            rows.setdefault(len(table), []).append(row)
        joined = Parts.joined([parts(np.stack([tables[i] for i in same]), self.clusters) for same in rows.values()])
        found = joined.take(np.argsort([i for same in rows.values() for i in same]))
        return replace(found, examples=self.floored(found.examples))

    def floored(self, examples: Array) -> Array:
        """The examples' part, never so small that a few examples which all agree would make a certainty.

        Scores of 0 and 1 get one example more that is otherwise (Agresti & Min 2005), and four at the least. Other
        values that all agree are held to be otherwise in two examples, or clusters, by as much as the scores differ.
        """
        if self.n == 1:
            return examples
        if self.bounded and np.isin(self.every_score, (0, 1)).all():
            examples = one_more(examples, self.n)
        extent = 1.0 if self.bounded else float(np.ptp(self.every_score))
        alike = examples <= (1e-12 * extent) ** 2
        return np.where(alike, (2 * extent * self.clusters.share.max()) ** 2, examples)
