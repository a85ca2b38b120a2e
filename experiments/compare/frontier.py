"""Quality against forgetting: a frontier for each method, and methods compared where their quality is equal.

A point is a model at one step of a run: its quality on the validation examples, and its KL to the base a token of each
text that the base wrote. Points come from the runs at all rates, those of the search too where they were probed, and
from the steps along a training. The untouched base, which has forgotten nothing, is the first point of every method.

At equal quality: for each method and seed the Pareto front of its points (no other point of that seed has more quality
and less forgetting), and on it, between the two points around a level of quality, the forgetting of each text in
between. So a level has the same scores as any comparison, a number for each method, seed and text, and gets the same
tests. A front picks the lucky ones of its points, as any search does: methods with more points look better, so every
method should have as many.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, NamedTuple

from experiments.compare.secondary import Values, lower
from experiments.compare.statistics import ALPHA
from experiments.compare.trials import ChooseBy
from experiments.store.files import ReportError
from experiments.store.result import Complete

SHARES = (0.5, 0.75, 0.9, 1.0)  # levels of quality, from the base's to the highest that two methods reach
FEWEST = 3  # points of a trained model that a method needs at a seed, so that a front is more than a straight line


@dataclass(frozen=True)
class Point:
    """A model at one step of a run. forgot: of each text its KL to the base, nats a token."""

    method: str
    seed: int
    lr: float | None
    step: int
    quality: float
    forgot: tuple[float, ...]

    @property
    def forgotten(self) -> float:
        return fmean(self.forgot)


class Crossing(NamedTuple):
    """Where a front passes a level of quality: the share of the way from one point to the next."""

    below: Point
    above: Point
    share: float

    @property
    def forgot(self) -> list[float]:
        return [a + self.share * (b - a) for a, b in zip(self.below.forgot, self.above.forgot)]


def points_of(run: Complete, by: ChooseBy = ChooseBy.metric) -> list[Point]:
    """The run's last model, and those along its training that were probed. The rate had not decayed there yet."""
    kl = run.forgetting.texts.kl if run.forgetting else None
    if not kl or run.untrained:
        return []
    about = run.method, run.seed, run.lr
    passed = [
        Point(*about, point.step, quality, point.kl)
        for point in run.curve or ()
        if (quality := -point.loss if by is ChooseBy.loss else point.score) is not None
        and 0 < point.step < run.steps
        and point.kl is not None
    ]
    return [*passed, Point(*about, run.steps, quality_of(run, by), kl)]


def quality_of(run: Complete, by: ChooseBy) -> float:
    """The main metric on the validation examples, or minus the loss, which is finer where few examples are scored."""
    return -run.validation["loss"] if by is ChooseBy.loss else run.validation[run.metric]


def front(points: Iterable[Point]) -> list[Point]:
    """The points that no other beats in both, from the least forgotten up."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.forgotten, -p.quality)):
        if not best or point.quality > best[-1].quality:
            best.append(point)
    return best


def at(points: Sequence[Point], level: float) -> Crossing | None:
    """Where the front of these points reaches the level; None where it does not, or begins above it."""
    ordered = front(points)
    for below, above in itertools.pairwise(ordered):
        if below.quality <= level <= above.quality:
            return Crossing(below, above, (level - below.quality) / (above.quality - below.quality))
    return None


def frontier(
    runs: Iterable[Complete],
    untouched: Complete | None,
    alpha: float = ALPHA,
    margin: float | None = None,
    by: ChooseBy = ChooseBy.metric,
) -> dict[str, Any] | None:
    """The task's frontiers, for comparison.json; None where no run was probed.

    runs: of one task, the search's too. untouched: the base's own run, from which its quality is known.
    """
    runs = list(runs)
    same_probes(runs)
    points = [point for run in runs for point in points_of(run, by)]
    if not points:
        return None
    base = None if untouched is None else quality_of(untouched, by)
    by_seed = with_base(points, base)
    heights = levels(by_seed, base)
    return {
        "quality": "minus the loss" if by is ChooseBy.loss else runs[0].metric,
        "split": "validation",
        "measure": "KL to the base, nats a token",
        "base_quality": base,
        "points": described(points),
        "levels": [at_level(by_seed, level, alpha, margin) for level in heights],
        "notes": remarks(by_seed, heights),
    }


def same_probes(runs: Iterable[Complete]) -> None:
    """Raises ReportError where runs were probed with different texts, whose KL cannot be paired."""
    seen: dict[tuple[Any, ...], Complete] = {}
    for run in runs:
        if run.forgetting is not None and run.forgetting.corpora:
            corpora = run.forgetting.corpora.items()
            seen.setdefault(tuple((name, each.sha256, each.n_written) for name, each in corpora), run)
    if len(seen) > 1:
        listed = " and ".join(str(run.file) for run in seen.values())
        raise ReportError(
            f"runs that were probed with different texts cannot be compared: {listed}; run the older again"
        )


BySeed = Mapping[str, Mapping[int, Sequence[Point]]]  # keys: the method, then the seed


def with_base(points: Sequence[Point], base: float | None) -> BySeed:
    """Points by method and seed, the base's the first of each; a seed with too few points is left out."""
    grouped: dict[str, dict[int, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        grouped[point.method][point.seed].append(point)
    kept = {}
    for method, seeds in grouped.items():
        kept[method] = {
            seed: [*([] if base is None else [untrained(own[0], base)]), *own]
            for seed, own in seeds.items()
            if len(own) >= FEWEST
        }
    return kept


def untrained(like: Point, quality: float) -> Point:
    """The base as a point of this method and seed."""
    return Point(like.method, like.seed, None, 0, quality, (0.0,) * len(like.forgot))


def levels(by_seed: BySeed, base: float | None) -> list[float]:
    """Levels of quality, up to the highest that two methods reach with every seed, and none below the base's."""
    reached = sorted(
        (min(max(point.quality for point in own) for own in seeds.values()) for seeds in by_seed.values() if seeds),
        reverse=True,
    )
    if len(reached) < 2:
        return []
    lowest = base
    if lowest is None:
        lowest = max(min(p.quality for p in own) for seeds in by_seed.values() for own in seeds.values())
    top = reached[1]
    return [min(lowest + share * (top - lowest), top) for share in SHARES] if top > lowest else []


def at_level(by_seed: BySeed, level: float, alpha: float, margin: float | None) -> dict[str, Any]:
    """What each method forgot where its quality is this, the least first, and the tests of its differences."""
    crossings = {
        method: {seed: crossing for seed, own in seeds.items() if (crossing := at(own, level)) is not None}
        for method, seeds in by_seed.items()
    }
    there = {method: own for method, own in crossings.items() if own and len(own) == len(by_seed[method])}
    forgot: Values = {method: {seed: each.forgot for seed, each in own.items()} for method, own in there.items()}
    tests = lower(forgot, alpha, margin)
    return {
        "quality": level,
        "methods": [
            {"method": method, **each, "n_seeds": len(there[method])} for method, each in tests.methods.items()
        ],
        "pairs": tests.pairs,
        "not_reached": [method for method, seeds in by_seed.items() if method not in there and seeds],
    }


def described(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Every point as a mean over its seeds, and whether it stands on the front of its method's means."""
    same: dict[tuple[str, float | None, int], list[Point]] = defaultdict(list)
    for point in points:
        same[point.method, point.lr, point.step].append(point)
    means: dict[Point, int] = {}  # and the seeds of each
    for own in same.values():
        forgot = tuple(map(fmean, zip(*(point.forgot for point in own))))
        means[replace(own[0], quality=fmean(point.quality for point in own), forgot=forgot)] = len(own)
    best = {point for method in {p.method for p in means} for point in front(p for p in means if p.method == method)}
    return [
        {
            "method": point.method,
            "lr": point.lr,
            "step": point.step,
            "n_seeds": n_seeds,
            "quality": point.quality,
            "forgotten": point.forgotten,
            "front": point in best,
        }
        for point, n_seeds in sorted(means.items(), key=lambda pair: (pair[0].method, pair[0].forgotten))
    ]


def remarks(by_seed: BySeed, heights: Sequence[float]) -> list[str]:
    """What keeps methods from being compared."""
    few = [method for method, seeds in by_seed.items() if not seeds]
    notes = [f"fewer than {FEWEST} points at each seed, so no front: {', '.join(few)}"] if few else []
    if not heights:
        notes.append("no level of quality above the base's is reached by two methods with every seed")
    return notes
