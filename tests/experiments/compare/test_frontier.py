"""Quality against forgetting: planted trade-offs come back, at equal quality and with the tests of any comparison."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.made_up import made_up, made_up_result
from experiments.compare.frontier import FEWEST, Point, at, front, frontier, levels, points_of, with_base
from experiments.compare.trials import ChooseBy
from experiments.store.files import ReportError
from experiments.store.result import Complete
from experiments.store.result import Point as CurvePoint

TEXTS = 24
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def point(quality: float, forgotten: float, method: str = "lora", seed: int = 1) -> Point:
    return Point(method, seed, 1e-3, 10, quality, (forgotten, forgotten))


def planted(
    method: str, seed: int, lr: float, slope: float, best: float = 0.8, noise: float = 0.0, luck: float = 0.0
) -> Complete:
    """A run whose quality rises with its rate, and whose forgetting is slope × (quality − 0.2)², text by text."""
    draw = np.random.default_rng([seed, int(lr * 1e5), *method.encode()])
    reach = (RATES.index(lr) + 1) / len(RATES)
    quality = 0.2 + (best - 0.2) * reach
    texts = np.random.default_rng(9).uniform(0.5, 1.5, TEXTS)
    own = np.random.default_rng([seed, *method.encode()]).normal(0, luck)  # the seed's, at every rate
    kl = slope * (quality - 0.2) ** 2 * (texts / texts.mean()) * np.exp(draw.normal(0, noise, TEXTS) + own)
    corpus = {"sha256": "", "n_texts": TEXTS, "n_text_tokens": 10 * TEXTS, "each": {"kl": kl.tolist()}}
    forgetting = made_up()["forgetting"] | {"corpora": {"prose": corpus}}
    validation = {"exact_match": quality, "loss": 1.0}
    return made_up_result(method, seed=seed, lr=lr, steps=10, validation=validation, forgetting=forgetting)


def study(slopes: dict[str, float], seeds: int = 5, **more: Any) -> list[Complete]:
    return [
        planted(method, s, lr, slope, **more) for method, slope in slopes.items() for s in range(seeds) for lr in RATES
    ]


def untouched(quality: float = 0.2) -> Complete:
    return made_up_result("none", validation={"exact_match": quality, "loss": 3.0})


def test_a_front_holds_what_no_other_point_beats():
    points = [point(0.5, 0.2), point(0.6, 0.1), point(0.9, 0.9), point(0.8, 0.95), point(0.7, 0.4), point(0.6, 0.3)]
    assert [(p.quality, p.forgotten) for p in front(points)] == [(0.6, 0.1), (0.7, 0.4), (0.9, 0.9)]


def test_between_two_points_of_a_front_each_text_is_interpolated():
    below, above = Point("lora", 1, 1e-3, 5, 0.4, (0.0, 1.0)), Point("lora", 1, 1e-3, 9, 0.8, (1.0, 5.0))
    crossing = at([above, below, point(0.5, 9.0)], 0.5)
    assert crossing is not None and crossing.forgot == pytest.approx([0.25, 2.0])
    assert at([above, below], 0.9) is None and at([above, below], 0.3) is None
    on = at([above, below], 0.8)
    assert on is not None and on.forgot == pytest.approx([1.0, 5.0])


def test_a_run_gives_its_last_point_and_an_untrained_one_none():
    run = planted("lora", 1, 1e-3, 1.0)
    (last,) = points_of(run)
    assert (last.method, last.seed, last.lr, last.step, last.quality) == ("lora", 1, 1e-3, 10, pytest.approx(0.56))
    assert len(last.forgot) == TEXTS and last.forgotten == pytest.approx(0.36**2)
    assert points_of(replace(run, parameters=replace(run.parameters, trainable=0))) == []
    assert points_of(replace(run, forgetting=None)) == []


def test_planted_differences_come_back_at_equal_quality():
    """Forgetting is 1, 1 and 3 × (quality − 0.2)², whatever quality each method ends at."""
    runs = [
        *study({"lora": 1.0}, best=0.7, noise=0.1, luck=0.05),
        *study({"ia3": 1.0}, best=0.6, noise=0.1, luck=0.05),
        *study({"full": 3.0}, best=0.9, noise=0.1, luck=0.05),
    ]
    found = frontier(runs, untouched())
    assert found is not None
    assert [level["quality"] for level in found["levels"]] == pytest.approx([0.45, 0.575, 0.65, 0.7])
    first, *_, last = found["levels"]
    by_method = {each["method"]: each for each in first["methods"]}
    assert [each["method"] for each in first["methods"]][-1] == "full"
    for method, slope in {"lora": 1.0, "ia3": 1.0, "full": 3.0}.items():
        each = by_method[method]
        truth = slope * 0.25**2
        assert each["mean"] == pytest.approx(truth, rel=0.2) and each["low"] < each["mean"] < each["high"]
        assert each["n_seeds"] == 5
    assert set(by_method["full"]["group"]).isdisjoint(by_method["lora"]["group"])
    assert set(by_method["ia3"]["group"]) & set(by_method["lora"]["group"])
    assert last["not_reached"] == ["ia3"] and {each["method"] for each in last["methods"]} == {"lora", "full"}
    (pair,) = last["pairs"]
    assert (pair["a"], pair["b"], pair["verdict"]) == ("lora", "full", "better")
    assert pair["low"] < pair["difference"] < pair["high"] < 0
    assert pair["difference"] == pytest.approx((1 - 3) * 0.25, rel=0.2)


def test_at_its_own_quality_a_method_would_look_otherwise():
    """One that learns less forgets less at its best rate; at equal quality it forgets more."""
    runs = [*study({"prefix": 2.0}, best=0.45), *study({"full": 1.0}, best=0.9)]
    own = {
        method: max(p.forgotten for run in runs for p in points_of(run) if p.method == method)
        for method in ("prefix", "full")
    }
    assert own["prefix"] < own["full"]
    found = frontier(runs, untouched())
    assert found is not None
    for level in found["levels"]:
        forgot = {each["method"]: each["mean"] for each in level["methods"]}
        assert forgot["prefix"] > forgot["full"]


def test_methods_that_are_alike_are_rarely_told_apart():
    """60 planted studies of two equal methods with luck of the seed: a few are told apart, as the error rate says."""
    apart = 0
    for number in range(60):
        runs = [
            planted(method, 100 * number + s, lr, 1.0, noise=0.2, luck=0.2)
            for method in ("lora", "full")
            for s in range(5)
            for lr in RATES
        ]
        found = frontier(runs, untouched())
        assert found is not None
        apart += any(pair["verdict"] == "better" for pair in found["levels"][-1]["pairs"])
    assert apart <= 8  # 3 are expected; more than 8 have a chance of one in 200


def test_levels_are_what_two_methods_reach_with_every_seed():
    points = [
        point(0.3 + 0.1 * i, 0.1 * i, method, seed) for method in ("a", "b", "c") for seed in (1, 2) for i in range(4)
    ]
    points += [point(0.9, 0.5, "a", 1), point(0.8, 0.5, "a", 2), point(0.7, 0.5, "b", 1), point(0.75, 0.5, "b", 2)]
    assert levels(with_base(points, 0.3), 0.3) == pytest.approx([0.5, 0.6, 0.66, 0.7])
    assert levels(with_base(points, None), None) == pytest.approx([0.5, 0.6, 0.66, 0.7])
    assert levels(with_base([p for p in points if p.method == "a"], 0.3), 0.3) == []
    assert levels(with_base(points, 0.95), 0.95) == []


def test_too_few_points_are_no_front():
    runs = [*study({"lora": 1.0}), *(planted("full", s, lr, 3.0) for s in range(5) for lr in RATES[: FEWEST - 1])]
    found = frontier(runs, untouched())
    assert found is not None and found["levels"] == []
    assert any("no front: full" in note for note in found["notes"]) and {p["method"] for p in found["points"]} == {
        "lora",
        "full",
    }


def test_points_are_means_over_seeds_and_say_whether_they_are_on_the_front():
    runs = study({"lora": 1.0}, seeds=2)
    worse = planted("lora", 0, 1e-2, 9.0, best=0.3)
    found = frontier([*runs, replace(worse, steps=20)], untouched())
    assert found is not None and len(found["points"]) == len(RATES) + 1
    by_step = {(p["lr"], p["step"]): p for p in found["points"]}
    assert by_step[1e-2, 10]["n_seeds"] == 2 and by_step[1e-2, 10]["front"]
    assert by_step[1e-2, 20]["n_seeds"] == 1 and not by_step[1e-2, 20]["front"]


def test_runs_with_other_probes_are_refused():
    run, other = planted("lora", 1, 1e-3, 1.0), planted("full", 1, 1e-3, 1.0)
    assert other.forgetting is not None and other.forgetting.corpora is not None
    corpora = {"general": other.forgetting.corpora["prose"]}
    other = replace(other, forgetting=replace(other.forgetting, corpora=corpora))
    with pytest.raises(ReportError, match="probed with different texts"):
        frontier([run, other], untouched())


def test_points_along_a_training_are_points_of_the_frontier():
    run = planted("lora", 1, 1e-3, 1.0)
    assert run.forgetting is not None
    about = {"examples": 0, "tokens": 0, "flops": 0.0, "train_s": 0.0, "loss": 1.0}
    kl = run.forgetting.texts.kl
    assert kl is not None
    curve = [
        CurvePoint(step=step, score=0.1 * step, kl=tuple(step / 10 * each for each in kl), **about)
        for step in (0, 3, 6, 10)
    ]
    points = points_of(
        replace(
            run, curve=(*curve, CurvePoint(step=7, score=None, kl=kl, **about), CurvePoint(step=8, score=0.5, **about))
        )
    )
    assert [(point.step, point.quality) for point in points] == [
        (3, pytest.approx(0.3)),
        (6, pytest.approx(0.6)),
        (10, pytest.approx(0.56)),
    ]
    assert points[0].forgotten == pytest.approx(0.3 * points[-1].forgotten)


def test_quality_may_be_minus_the_loss():
    """Where the metric is at its floor the loss still tells the models apart."""
    runs = study({"lora": 1.0, "full": 3.0}, seeds=3)
    floored = [
        replace(run, validation={"exact_match": 0.0, "loss": 3 - 2 * run.validation["exact_match"]}) for run in runs
    ]
    base = replace(untouched(), validation={"exact_match": 0.0, "loss": 3.0})
    by_metric = frontier(floored, base)
    assert by_metric is not None and by_metric["levels"] == []
    found = frontier(floored, base, by=ChooseBy.loss)
    assert found is not None and (found["quality"], found["base_quality"]) == ("minus the loss", -3.0)
    assert [each["method"] for each in found["levels"][-1]["methods"]] == ["lora", "full"]
    assert found["levels"][-1]["quality"] == pytest.approx(2 * 0.8 - 3)


def test_nothing_was_probed():
    assert frontier([made_up_result("lora", forgetting=None)], None) is None
