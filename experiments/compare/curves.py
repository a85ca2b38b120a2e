"""Quality along the training: tables at equal steps, examples, FLOPs and seconds, at the plateau, and to a level.

A method's curve is the mean over its seeds of what they scored on the validation set, step by step; between two points
it is a straight line. A point on the way stands in the middle of its schedule: its rate has not decayed yet, so a run
of that length would have ended better. So points compare methods with one another, at the same share of the schedule.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from experiments.store.result import Complete, Point

SECONDS = "train_s"
AXES = {"step": "steps", "examples": "examples", "flops": "FLOPs", SECONDS: "seconds"}
SHARES = (0.125, 0.25, 0.5, 1.0)  # shares of what the method that uses the least uses in all
USUAL_MARGIN = 0.01  # the plateau's, where the study states no margin
LATEST = 0.5  # share of the steps: a plateau that begins later is none yet


@dataclass(frozen=True)
class CurvePoint:
    """The mean of a method's seeds at one step. score: the main metric; where none was taken, minus the loss."""

    step: float
    examples: float
    tokens: float
    flops: float
    train_s: float
    loss: float
    score: float


def curves(
    tested: Mapping[str, Sequence[Complete]], *, margin: float | None, level: float, full: str, timed: bool
) -> dict[str, Any]:
    """The part of comparison.json on the training: curves by method, and every table that is read from them.

    timed: whether the runs had the machine to themselves; else nothing is said by seconds.
    """
    axes = [axis for axis in AXES if timed or axis != SECONDS]
    runs = {method: [row.curve for row in rows if row.curve] for method, rows in tested.items()}
    runs = {method: each for method, each in runs.items() if each and len(each[0]) > 1}
    if not runs:
        return {}
    made = {method: mean_curve(each) for method, each in runs.items()}
    goal = level * made[full][-1].score if full in made and made[full][-1].score > 0 else None
    allowed = USUAL_MARGIN if margin is None else margin
    return {
        "measure": "score" if all(scored(each) for each in runs.values()) else "loss",
        "methods": {method: [asdict(point) for point in curve] for method, curve in made.items()},
        "equal": {axis: equal(made, axis) for axis in axes},
        "plateau_margin": allowed,
        "plateau": {method: plateau(curve, allowed, axes) for method, curve in made.items()},
        "level": goal,
        "to_level": {} if goal is None else {method: to_level(each, goal, axes) for method, each in runs.items()},
    }


def scored(runs: Sequence[Sequence[Point]]) -> bool:
    return all(point.score is not None for run in runs for point in run)


def value(point: Point) -> float:
    return -point.loss if point.score is None else point.score


def mean_curve(runs: Sequence[Sequence[Point]]) -> list[CurvePoint]:
    """The mean over the seeds at every step that all of them have."""
    by_step = [{point.step: point for point in run} for run in runs]
    steps = sorted(set.intersection(*(set(each) for each in by_step)))
    made = []
    for step in steps:
        points = [each[step] for each in by_step]
        names = ("examples", "tokens", "flops", "train_s", "loss")
        means = {name: fmean(getattr(point, name) for point in points) for name in names}
        made.append(CurvePoint(step=step, **means, score=fmean(map(value, points))))
    return made


def equal(made: Mapping[str, Sequence[CurvePoint]], axis: str) -> dict[str, Any]:
    """Every method's score where it has used as much of the axis as the others, at shares of the least that one has."""
    least = min(getattr(curve[-1], axis) for curve in made.values())
    places = [least * share for share in SHARES]
    return {
        "at": places,
        "scores": {method: [score_at(curve, axis, x) for x in places] for method, curve in made.items()},
    }


def score_at(curve: Sequence[CurvePoint], axis: str, x: float) -> float | None:
    """The curve's score at x of the axis; None beyond its ends."""
    xs = [getattr(point, axis) for point in curve]
    if not xs[0] <= x <= xs[-1]:
        return None
    i = bisect_left(xs, x)
    if xs[i] == x:
        return curve[i].score
    return between(x, (xs[i - 1], curve[i - 1].score), (xs[i], curve[i].score))


def between(x: float, a: tuple[float, float], b: tuple[float, float]) -> float:
    """The straight line through a and b, at x."""
    return a[1] + (b[1] - a[1]) * (x - a[0]) / (b[0] - a[0])


def smooth(scores: Sequence[float]) -> list[float]:
    """The mean of each value and its neighbours."""
    return [fmean(scores[max(0, i - 1) : i + 2]) for i in range(len(scores))]


def plateau(curve: Sequence[CurvePoint], margin: float, axes: Sequence[str]) -> dict[str, Any]:
    """The first point after which the smoothed curve gains no more than the margin.

    It is reached only where that point lies in the first half of the steps: what is still rising in the second half,
    or comes to rest just before the end, may rise on in a longer training.
    """
    smoothed = smooth([point.score for point in curve])
    first = next(i for i, score in enumerate(smoothed) if max(smoothed[i:]) - score <= margin)
    point = curve[first]
    return {
        "reached": point.step <= LATEST * curve[-1].step,
        **{axis: getattr(point, axis) for axis in axes},
        "score": fmean(each.score for each in curve[first:]),
    }


def to_level(runs: Sequence[Sequence[Point]], goal: float, axes: Sequence[str]) -> dict[str, Any]:
    """Medians over the seeds of what it took to come to this score first; None where fewer than half came there."""
    came = [use for run in runs if (use := first_use(run, goal)) is not None]
    enough = 2 * len(came) > len(runs)
    return {
        "reached": len(came),
        "of": len(runs),
        **{axis: median(use[axis] for use in came) if enough else None for axis in axes},
    }


def first_use(run: Sequence[Point], goal: float) -> dict[str, float] | None:
    """Of each axis, what a run had used when it first scored so high; None where it never did."""
    at = next((i for i, point in enumerate(run) if value(point) >= goal), None)
    if at is None:
        return None
    if at == 0:
        return {axis: float(getattr(run[0], axis)) for axis in AXES}
    low, high = run[at - 1], run[at]
    return {axis: between(goal, (value(low), getattr(low, axis)), (value(high), getattr(high, axis))) for axis in AXES}
