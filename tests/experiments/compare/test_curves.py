"""Tables read from learning curves: at equal use, at the plateau, to a level; on curves drawn by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.made_up import made_up_result
from experiments.compare.curves import curves, mean_curve, plateau, score_at
from experiments.store.result import Complete, Point

AXES = ["step", "flops", "train_s"]


def point(step: int, score: float | None, flops: float = 1.0, step_s: float = 1.0) -> Point:
    """A point after so many steps of 8 examples, each step of so many FLOPs and seconds."""
    use = {"examples": 8 * step, "tokens": 80 * step, "flops": flops * step, "train_s": step_s * step}
    return Point(step=step, **use, loss=1.0 / (1 + step), score=score)


def runs(method: str, *curves: list[Point]) -> list[Complete]:
    return [replace(made_up_result(method, seed=seed), curve=tuple(each)) for seed, each in enumerate(curves, 1)]


FAST = [point(step, score, flops=2.0) for step, score in ((0, 0.0), (10, 0.6), (40, 0.8), (100, 0.8))]
SLOW = [point(step, score, step_s=0.5) for step, score in ((0, 0.0), (10, 0.2), (40, 0.5), (100, 0.9))]


def made(timed: bool = True) -> dict:
    tested = {"full": runs("full", FAST, FAST), "lora": runs("lora", SLOW)}
    return curves(tested, margin=0.05, level=0.95, full="full", timed=timed)


def test_at_equal_use_every_method_has_used_as_much() -> None:
    equal = made()["equal"]
    assert equal["step"]["at"] == [12.5, 25, 50, 100]
    assert equal["step"]["scores"]["full"][-1] == pytest.approx(0.8)
    assert equal["step"]["scores"]["lora"][-1] == pytest.approx(0.9)
    # lora uses 100 FLOPs in all, which full has used after 50 steps.
    assert equal["flops"]["at"][-1] == 100
    assert equal["flops"]["scores"]["full"][-1] == pytest.approx(0.8)
    assert equal["flops"]["scores"]["full"][1] == pytest.approx(0.6 + 0.2 * 2.5 / 30)  # 25 FLOPs, 12.5 steps
    assert equal["train_s"]["at"][-1] == 50
    assert equal["examples"]["at"][-1] == 800


def test_between_points_it_is_a_straight_line_and_beyond_them_nothing() -> None:
    curve = mean_curve([SLOW])
    assert score_at(curve, "step", 25) == pytest.approx(0.35)
    assert score_at(curve, "step", 40) == pytest.approx(0.5)
    assert score_at(curve, "step", 101) is None


def test_the_mean_over_seeds_is_taken_step_by_step() -> None:
    (first, *_) = mean_curve([FAST, [replace(each, score=(each.score or 0) + 0.2) for each in FAST]])
    assert first.score == pytest.approx(0.1)


def test_a_plateau_is_where_no_more_than_the_margin_is_gained() -> None:
    flat = [point(step, score) for step, score in ((0, 0.0), (10, 0.5), (20, 0.8), (30, 0.8), (60, 0.8), (100, 0.82))]
    reached = plateau(mean_curve([flat]), 0.05, AXES)
    assert (reached["reached"], reached["step"], reached["train_s"]) == (True, 30, 30.0)
    assert reached["score"] == pytest.approx((0.8 + 0.8 + 0.82) / 3)
    rising = [point(step, step / 100) for step in (0, 10, 20, 40, 60, 100)]
    assert not plateau(mean_curve([rising]), 0.05, AXES)["reached"]


def test_to_a_level_the_crossing_counts_and_who_never_came_is_counted() -> None:
    along = made()
    assert along["level"] == pytest.approx(0.95 * 0.8)
    to_full = along["to_level"]["full"]
    assert (to_full["reached"], to_full["of"]) == (2, 2)
    assert to_full["step"] == pytest.approx(10 + 30 * 0.16 / 0.2)
    assert along["to_level"]["lora"]["step"] == pytest.approx(40 + 60 * 0.26 / 0.4)
    never = [replace(each, score=0.1) for each in SLOW]
    tested = {"full": runs("full", FAST), "lora": runs("lora", SLOW, never, never)}
    few = curves(tested, margin=None, level=0.95, full="full", timed=True)["to_level"]["lora"]
    assert (few["reached"], few["of"], few["step"]) == (1, 3, None)


def test_runs_that_shared_the_machine_say_nothing_of_seconds() -> None:
    along = made(timed=False)
    assert set(along["equal"]) == {"step", "examples", "flops"}
    assert "train_s" not in along["to_level"]["full"]
    assert "train_s" not in along["plateau"]["full"]


def test_without_scores_the_loss_stands_in() -> None:
    tested = {"lora": runs("lora", [replace(each, score=None) for each in SLOW])}
    along = curves(tested, margin=None, level=0.95, full="full", timed=True)
    assert along["measure"] == "loss"
    assert along["level"] is None and along["to_level"] == {}
    assert along["equal"]["step"]["scores"]["lora"][-1] == pytest.approx(-1 / 101)


def test_runs_without_curves_make_no_table() -> None:
    assert curves({"lora": [made_up_result("lora")]}, margin=None, level=0.95, full="full", timed=True) == {}
