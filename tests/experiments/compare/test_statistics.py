"""compare: what a comparison says of small and exact cases, and of inputs at the edge of sense."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from itertools import pairwise
from subprocess import run

import numpy as np
import pytest
import scipy.stats

from experiments.compare.crossed import Clusters, Spread, between, parts
from experiments.compare.statistics import Comparison, Pair, compare
from experiments.compare.verdicts import holm

Table = dict[str, dict[int | None, list[float]]]


def drawn(levels: dict[str, float], seeds: int = 5, n: int = 80, luck: float = 0.0, seed: int = 0) -> Table:
    """Continuous scores: shared difficulty, luck of each seed, noise."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(size=n)
    return {
        name: {s: (level + difficulty + rng.normal(0, luck) + rng.normal(0, 0.3, n)).tolist() for s in range(seeds)}
        for name, level in levels.items()
    }


def pair_of(comparison: Comparison, a: str, b: str) -> Pair:
    """The pair, whichever of the two is first."""
    return next(pair for pair in comparison.pairs if {pair.a, pair.b} == {a, b})


def test_a_pair_is_the_crossed_test_of_its_differences() -> None:
    scores = drawn({"a": 0.3, "b": 0.0}, luck=0.1)
    (pair,) = compare(scores).pairs
    table = np.array([*scores["a"].values()]) - np.array([*scores["b"].values()])
    row = parts(table[None], Clusters(np.arange(80)))
    assert (pair.a, pair.b, pair.n_seeds, pair.about) == ("a", "b", 5, "new seeds and examples")
    assert pair.difference == pytest.approx(table.mean())
    assert pair.p == pytest.approx(Spread(row).p(row.mean)[0])
    assert pair.high - pair.low == pytest.approx(2 * between(row, 0.05)[0])
    assert pair.seed_sd == pytest.approx(table.mean(axis=1).std(ddof=1))
    assert pair.p_holm == pair.p  # a family of one


def test_holm_is_over_all_pairs() -> None:
    found = compare(drawn({"a": 0.5, "b": 0.25, "c": 0.0}, luck=0.1), margin=0.4)
    p = np.array([pair.p for pair in found.pairs])
    equal = np.array([pair.p_equivalent for pair in found.pairs])
    assert [pair.p_holm for pair in found.pairs] == pytest.approx(holm(p))
    assert [pair.p_equivalent_holm for pair in found.pairs] == pytest.approx(holm(equal))


def test_luck_of_seeds_is_not_taken_for_a_difference() -> None:
    """Three methods, each seed of which shifts all examples: on the examples alone every pair is told apart."""
    scores = drawn({"a": 0.0, "b": 0.0, "c": 0.0}, seeds=3, n=200, luck=0.5, seed=3)
    found = compare(scores)
    assert [pair.verdict for pair in found.pairs] == ["undecided"] * 3
    assert set(found.letters.values()) == {"a"}
    averages = {name: np.mean([*by.values()], axis=0) for name, by in scores.items()}
    naive = [scipy.stats.ttest_rel(averages[pair.a], averages[pair.b]).pvalue for pair in found.pairs]
    assert max(naive) < 0.001 / 3


def test_better_equivalent_and_undecided() -> None:
    scores = drawn({"a": 1.0, "b": 0.0, "c": 0.0}, seeds=8, n=400)
    found = compare(scores, margin=0.2)
    assert pair_of(found, "a", "b").verdict == "better"
    assert pair_of(found, "a", "b").better == "a"
    assert pair_of(found, "b", "c").verdict == "equivalent"
    assert pair_of(found, "b", "c").better is None
    assert found.letters["a"] == "a"
    assert found.letters["b"] == found.letters["c"] == "b"
    tight = compare(scores, margin=0.001)
    assert pair_of(tight, "b", "c").verdict == "undecided"
    without = compare(scores)
    assert pair_of(without, "b", "c").verdict == "undecided"
    assert pair_of(without, "b", "c").p_equivalent is None


def test_a_real_difference_within_the_margin_is_equivalent() -> None:
    found = compare(drawn({"a": 0.1, "b": 0.0}, seeds=8, n=2000), margin=0.5)
    (pair,) = found.pairs
    assert pair.p_holm is not None and pair.p_holm < 0.001
    assert (pair.verdict, pair.better) == ("equivalent", None)
    assert set(found.letters.values()) == {"a"}


def test_clusters_widen_what_examples_alone_would_say() -> None:
    """Ten wordings of eight examples, each wording with its own taste for either method."""
    rng = np.random.default_rng(1)
    wordings = np.repeat(rng.normal(size=10), 8)
    scores: Table = {
        name: {s: (sign * wordings + rng.normal(0, 0.3, 80)).tolist() for s in range(4)}
        for name, sign in (("a", 1), ("b", -1))
    }
    by_example = compare(scores)
    by_wording = compare(scores, clusters=[f"w{i // 8}" for i in range(80)])
    assert (by_example.n_clusters, by_wording.n_clusters, by_wording.n) == (None, 10, 80)
    narrow, wide = by_example.pairs[0], by_wording.pairs[0]
    assert wide.high - wide.low > 2.5 * (narrow.high - narrow.low)
    assert wide.about == "new seeds and clusters"
    each_alone = compare(scores, clusters=list(range(80)))
    assert replace(each_alone.pairs[0], about="") == replace(narrow, about="")


def test_an_untrained_model_is_the_same_at_every_seed() -> None:
    scores = drawn({"a": 0.5, "none": 0.0})
    scores["none"] = {None: scores["none"][0]}
    repeated = scores | {"none": dict.fromkeys(range(5), scores["none"][None])}
    (alone,), (again,) = compare(scores).pairs, compare(repeated).pairs
    assert alone == again
    assert alone.n_seeds == 5
    assert compare(scores).letters == {"a": "a", "none": "b"}


def test_of_two_untrained_models_the_examples_are_all_there_is() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, 60), rng.normal(0, 1, 60)
    found = compare({"few_shot": {None: a}, "none": {None: b}})
    (pair,) = found.pairs
    assert (pair.n_seeds, pair.about, pair.seed_sd) == (0, "new examples alone", None)
    assert pair.p == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue)
    assert pair.p_holm == pair.p
    assert found.notes == ()


def test_one_seed_gets_neither_verdict_nor_letter() -> None:
    scores = drawn({"a": 3.0, "b": 0.0, "c": -3.0})
    once = {name: {0: by[0]} for name, by in scores.items()}
    found = compare(once, margin=0.1)
    assert found.letters == {"a": "", "b": "", "c": ""}
    assert {pair.verdict for pair in found.pairs} == {"undecided"}
    assert {(pair.p_holm, pair.smallest, pair.better) for pair in found.pairs} == {(None, None, None)}
    assert {pair.about for pair in found.pairs} == {"new examples alone"}
    assert max(pair.p for pair in found.pairs) < 1e-6  # what can be said is about the examples
    assert found.notes == ("a, b, c: one seed, so seeds were not varied; no verdict and no letter",)


def test_a_method_of_one_seed_does_not_spoil_the_others() -> None:
    scores = drawn({"a": 3.0, "b": 0.0, "c": -3.0})
    found = compare(scores | {"b": {0: scores["b"][0]}})
    assert found.letters == {"a": "a", "b": "", "c": "b"}
    assert pair_of(found, "a", "c").p_holm == pair_of(found, "a", "c").p  # a family of one
    assert pair_of(found, "a", "b").p_holm is None
    with_untrained = compare({"a": {0: scores["a"][0]}, "none": {None: scores["b"][0]}})
    assert with_untrained.letters == {"a": "", "none": ""}


def test_seeds_that_failed_leave_the_others() -> None:
    rng = np.random.default_rng(0)
    seeds = {"a": (0, 1, 2), "b": (0, 2), "c": (5, 6)}
    scores = {m: {s: rng.random(40).tolist() for s in each} for m, each in seeds.items()}
    found = compare(scores)
    gaps = [np.mean(scores["a"][s]) - np.mean(scores["b"][s]) for s in (0, 2)]
    a_b = pair_of(found, "a", "b")
    assert a_b.difference == pytest.approx(np.mean(gaps) * (1 if a_b.a == "a" else -1))
    assert a_b.seed_sd == pytest.approx(np.std(gaps, ddof=1))
    assert (a_b.n_seeds, pair_of(found, "a", "c").n_seeds) == (2, 2)


def test_all_equal_scores_are_undecided_or_equivalent_but_never_better() -> None:
    few = {m: {s: [1.0] * 10 for s in range(3)} for m in "abc"}
    for margin in (None, 0.05):
        found = compare(few, margin=margin)
        assert {pair.verdict for pair in found.pairs} == {"undecided"}  # ten examples do not show equivalence
        assert {(pair.difference, pair.p) for pair in found.pairs} == {(0.0, 1.0)}
        assert set(found.letters.values()) == {"a"}
        assert all(pair.low < 0 < pair.high for pair in found.pairs)
    many = {m: {s: [1.0] * 1000 for s in range(3)} for m in "abc"}
    assert {pair.verdict for pair in compare(many, margin=0.05).pairs} == {"equivalent"}
    zeros = {m: {s: [0.0, 0.0] for s in range(2)} for m in "ab"}
    assert compare(zeros).pairs[0].verdict == "undecided"
    same_anywhere = {m: {s: [-7.5] * 4 for s in range(2)} for m in "ab"}
    assert compare(same_anywhere).pairs[0].p == 1.0


def test_all_wrong_is_no_certainty() -> None:
    """The untouched model gets 200 of 200 wrong: up to 1 − 0.025^(1/200) right ones may have been missed."""
    found = compare({"none": {None: [0.0] * 200}, "perfect": {s: [1.0] * 200 for s in range(3)}})
    perfect, none = found.means
    missed = 1 - 0.025 ** (1 / 200)
    assert none.low == 0.0 and missed <= none.high < 0.025
    assert perfect.high == 1.0 and 0.975 < perfect.low <= 1 - missed
    assert none.seed_sd is None
    (pair,) = found.pairs
    assert (pair.better, pair.difference, pair.high) == ("perfect", 1.0, 1.0)
    (few,) = compare({"none": {None: [0.0] * 2}, "perfect": {s: [1.0] * 2 for s in range(3)}}).pairs
    assert few.verdict == "undecided"  # two examples


def test_two_examples_and_two_seeds_have_an_answer() -> None:
    found = compare({"a": {0: [1.0, 0.9], 1: [0.8, 1.0]}, "b": {0: [0.1, 0.0], 1: [0.0, 0.2]}}, margin=0.1)
    (pair,) = found.pairs
    assert pair.verdict == "undecided"
    assert -1 <= pair.low < pair.difference < pair.high <= 1
    assert 0.0 < pair.p < 1.0
    assert pair.smallest is not None and pair.smallest > 1  # nothing could have been found


def test_scores_of_any_size_give_the_same_verdicts() -> None:
    scores = drawn({"a": 0.6, "b": 0.2, "c": 0.0}, luck=0.1)
    plain = compare(scores, margin=0.3)
    large = {m: {s: [1e6 * x - 3e6 for x in each] for s, each in by.items()} for m, by in scores.items()}
    scaled = compare(large, margin=0.3e6)
    assert [pair.verdict for pair in scaled.pairs] == [pair.verdict for pair in plain.pairs]
    assert [pair.p for pair in scaled.pairs] == pytest.approx([pair.p for pair in plain.pairs], rel=1e-6)
    assert scaled.letters == plain.letters


def test_intervals_of_scores_from_0_to_1_stay_there() -> None:
    rng = np.random.default_rng(0)
    scores = {m: {s: (rng.random(6) < level).astype(float) for s in range(3)} for m, level in (("a", 0.97), ("b", 0.1))}
    found = compare(scores)
    assert all(0 <= mean.low <= mean.mean <= mean.high <= 1 for mean in found.means)
    assert all(-1 <= pair.low <= pair.high <= 1 for pair in found.pairs)
    assert found.pairs[0].high == 1


def test_one_number_a_seed_is_a_t_test_over_seeds() -> None:
    """What a training step costs, say: no examples, so that the seeds alone are a sample."""
    a, b = [1.0, 1.2, 1.1, 1.3], [0.9, 1.0, 1.1, 0.8]
    (pair,) = compare({"a": {s: [x] for s, x in enumerate(a)}, "b": {s: [x] for s, x in enumerate(b)}}).pairs
    peer = scipy.stats.ttest_rel(a, b)
    assert pair.p == pytest.approx(peer.pvalue, rel=0.01)
    assert pair.about == "new seeds"
    interval = peer.confidence_interval(0.95)
    assert (pair.low, pair.high) == pytest.approx((interval.low, interval.high), rel=0.02)
    (exact,) = compare({"a": {0: [5.0], 1: [5.0]}, "b": {0: [4.0], 1: [4.0]}}).pairs
    assert (exact.p, exact.verdict) == (0.0, "better")


def test_one_method_alone_has_its_mean() -> None:
    found = compare(drawn({"a": 0.5}))
    assert (found.pairs, found.letters) == ((), {"a": "a"})
    assert found.means[0].low < found.means[0].mean < found.means[0].high


def test_p_is_at_most_alpha_where_the_interval_leaves_out_0() -> None:
    """The test is stricter than the interval, and no pair has one without the other."""
    n_out = 0
    for seed in range(60):
        (pair,) = compare(drawn({"a": 0.06, "b": 0.0}, seeds=3, n=60, seed=seed)).pairs
        outside = not pair.low <= 0 <= pair.high
        n_out += outside
        assert (pair.p <= 0.05) == outside
    assert 10 < n_out < 50


def test_means_come_from_best_to_worst_and_repeat() -> None:
    rng = np.random.default_rng(0)
    scores = {f"m{k}": {s: (rng.random(50) < 0.2 * k).astype(float).tolist() for s in range(3)} for k in range(5)}
    first = compare(scores)
    assert all(a.mean >= b.mean for a, b in pairwise(first.means))
    assert all(pair.difference >= 0 for pair in first.pairs)
    assert first == compare(scores)
    assert first.means[0].seed_values == tuple(np.mean(each) for each in scores[first.means[0].method].values())


def test_ten_methods_take_well_under_a_second() -> None:
    rng = np.random.default_rng(0)
    scores = {f"m{k}": {s: rng.random(200).tolist() for s in range(5)} for k in range(10)}
    began = time.process_time()
    compare(scores, margin=0.02)
    assert time.process_time() - began < 1.0


def test_the_import_is_light() -> None:
    """No pandas, which takes seconds, and no scipy.stats."""
    check = "import sys, experiments.compare.statistics as s; print([m for m in sys.modules if m in sys.argv[1:]])"
    heavy = ["pandas", "statsmodels", "scipy.stats", "torch", "matplotlib"]
    done = run([sys.executable, "-c", check, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_pair_is_told_apart_whose_interval_holds_0() -> None:
    clusters = [0] * 30 + [1 + i % 2 for i in range(28)]
    a = {s: [1.0] * (58 - 6 * s) + [0.0] * (6 * s) for s in range(3)}
    b = {s: [float(i % 3 == 0 if i < 30 else i % 5 == s) for i in range(58)] for s in range(3)}
    rng = np.random.default_rng(3)
    studies = [({"a": a, "b": b}, clusters)]
    for _ in range(60):
        labels = rng.integers(4, size=40).tolist()
        shift = rng.normal(0, 0.3, 4)[labels]
        studies.append(({k: {s: rng.random(40) + shift * (k == "a") for s in range(3)} for k in "ab"}, labels))
    for scores, labels in studies:
        (pair,) = compare(scores, clusters=labels).pairs
        assert not (pair.verdict == "better" and pair.low <= 0 <= pair.high)
