"""The search of one method, on planted losses: bracketed, within the cap, equal for all, blind to the test set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from benchmarks.made_up import made_up, put
from experiments.compare.axes import Axis
from experiments.compare.search import Search, Terms, Wanted
from experiments.compare.trials import ChooseBy, Outcome, Trial
from experiments.store.files import read

RATE = Axis("optim.lr", 1e-3)
SEEDS = (101, 102, 103)
Loss = Callable[[dict[str, Any], int], float | None]  # a function of a setting and a seed; None: it diverges


def terms(**changes: Any) -> Terms:
    return Terms(**{"trials": 5, "cap": 9, "seeds": SEEDS} | changes)


def planted(best: float, diverges_above: float = math.inf) -> Loss:
    """A loss whose lowest point is at this rate."""

    def loss(values: dict[str, Any], seed: int) -> float | None:
        lr = values["optim.lr"]
        return None if lr > diverges_above else abs(math.log(lr / best)) + 0.001 * seed

    return loss


def outcome(loss: float | None) -> Outcome:
    if loss is None:
        return Outcome(failure="step 4: nan", diverged=True)
    return Outcome("accuracy", {"loss": loss, "accuracy": 1 / (1 + loss)})


def carried_out(search: Search, loss: Loss) -> list[Wanted]:
    """Carry out what the search wants until it wants no more; the runs in their order."""
    ran: list[Wanted] = []
    while wanted := search.wanted():
        assert len(set(wanted)) == len(wanted) and not {*wanted} & {*ran}, "a run is wanted twice"
        for each in wanted:
            search.take(each, outcome(loss(search.values(each.place), each.seed)))
        ran += wanted
        assert len(ran) < 200
    return ran


def rates(search: Search) -> list[float]:
    return [trial.values["optim.lr"] for trial in search.trials()]


@pytest.mark.parametrize("best", [1e-5, 1e-4, 4e-4, 1e-3, 2e-3, 8e-3, 0.03, 0.1])
@pytest.mark.parametrize("rungs", [(1.0,), (0.25, 1.0), (0.1, 0.3, 1.0)])
def test_a_planted_optimum_is_found_and_bracketed(best: float, rungs: tuple[float, ...]) -> None:
    search = Search([RATE], terms(rungs=rungs))
    carried_out(search, planted(best))
    choice = search.choice()
    assert not choice.at_edge and choice.notes == ()
    assert choice.lr is not None
    assert abs(math.log(choice.lr / best)) <= math.log(RATE.factor) / 2 + 0.05
    full = [trial for trial in search.trials() if trial.share == 1]
    assert min(trial.lr or 1.0 for trial in full) < choice.lr < max(trial.lr or 0.0 for trial in full)
    assert len(search.trials()) <= 9


def test_every_method_has_as_many_trials() -> None:
    for best in (3e-4, 1e-3, 4e-3):
        search = Search([RATE], terms(trials=6))
        carried_out(search, planted(best))
        assert len(search.trials()) == 6
        assert 1e-3 in rates(search)


def test_the_cap_ends_a_search_that_finds_no_other_side() -> None:
    search = Search([RATE], terms(cap=6))
    carried_out(search, planted(10.0))
    choice = search.choice()
    assert len(search.trials()) == 6
    assert (choice.at_edge, choice.lr) == (True, max(rates(search)))
    assert choice.notes == (
        "lr 0.081 is at the edge of its grid (0.00033 to 0.081) after 6 trials, of 6 that a method may have; "
        "beyond may be better",
    )


def test_what_diverged_is_the_other_side() -> None:
    search = Search([RATE], terms())
    ran = carried_out(search, planted(10.0, diverges_above=5e-3))
    choice = search.choice()
    assert not choice.at_edge
    assert choice.lr is not None and 2.9e-3 < choice.lr <= 5e-3
    assert any("failed: step 4: nan" in note for note in choice.notes)
    diverged = [each for each in ran if search.values(each.place)["optim.lr"] > 5e-3]
    assert {each.seed for each in diverged} == {SEEDS[0]}, "what diverged with one seed is not run with another"


def test_where_all_diverge_it_goes_down() -> None:
    search = Search([RATE], terms())
    carried_out(search, planted(1e-3, diverges_above=5e-5))
    choice = search.choice()
    assert choice.lr == pytest.approx(3.7e-5)
    assert not choice.at_edge
    none = Search([RATE], terms())
    carried_out(none, planted(1e-3, diverges_above=1e-12))
    assert none.choice().values is None
    assert len(none.trials()) == 9


def test_a_failure_otherwise_is_no_other_side_and_not_tried_again() -> None:
    search = Search([RATE], terms())
    while wanted := search.wanted():
        for each in wanted:
            lr = search.values(each.place)["optim.lr"]
            made = outcome(planted(10.0)({"optim.lr": lr}, each.seed))
            search.take(each, made if lr < 2e-3 else Outcome(failure="out of memory"))
    choice = search.choice()
    assert (choice.lr, choice.at_edge) == (1.7e-3, True)
    assert "lr 0.003 failed: out of memory" in choice.notes


def test_the_last_rung_is_in_full_length_and_its_choice_has_every_seed() -> None:
    search = Search([RATE], terms(trials=9, cap=12, rungs=(0.2, 1.0)))
    ran = carried_out(search, planted(2e-3))
    short = [each for each in ran if each.rung == 0]
    assert len(short) == 9 and {each.seed for each in short} == {SEEDS[0]}
    assert len({each.place for each in ran if each.rung == 1}) < 9, "a rung halves"
    choice = search.choice()
    chosen = next(trial for trial in search.trials() if trial.values == choice.values)
    assert chosen.share == 1 and set(chosen.outcomes) == set(SEEDS)
    seeds = {trial.lr: len(trial.outcomes) for trial in search.trials()}
    assert sum(n == 3 for n in seeds.values()) == 2, "the two best have all seeds, the others one"


def test_short_runs_that_mislead_are_put_right_in_full_length() -> None:
    """In short runs a rate nine times too high is best; the bracket in full length leads back."""
    search = Search([RATE], terms(rungs=(0.2, 1.0)))
    while wanted := search.wanted():
        for each in wanted:
            best = 1e-2 if each.rung == 0 else 1e-3
            search.take(each, outcome(planted(best)(search.values(each.place), each.seed)))
    assert search.choice().lr == 1e-3
    assert not search.choice().at_edge


def test_the_mean_over_seeds_chooses() -> None:
    """The first seed is lucky at the default; over three seeds the rate above is better."""

    def loss(values: dict[str, Any], seed: int) -> float:
        lr = values["optim.lr"]
        luck = {1e-3: {101: 0.3, 102: 1.5, 103: 1.6}, 3e-3: {101: 0.5, 102: 0.5, 103: 0.5}}
        return luck[lr][seed] if lr in luck else 2.0 + abs(math.log(lr / 2e-3))

    search = Search([RATE], terms(trials=3))
    carried_out(search, loss)
    assert search.choice().lr == 3e-3


def test_started_again_it_wants_what_is_left() -> None:
    """Whatever it was cut off after, and in whatever order it is told what there is."""
    whole = Search([RATE], terms(rungs=(0.5, 1.0)))
    ran = carried_out(whole, planted(0.02))
    for n in range(len(ran) + 1):
        again = Search([RATE], terms(rungs=(0.5, 1.0)))
        for each in reversed(ran[:n]):
            again.take(each, whole.outcomes[each])
        assert set(carried_out(again, planted(0.02))) == set(ran[n:])
        assert again.choice() == whole.choice()


def test_axes_are_searched_along_all_of_them() -> None:
    axes = [RATE, Axis("size", 16, factor=2.0), Axis("optim.warmup_steps", 20, (0, 20, 60))]

    def loss(values: dict[str, Any], seed: int) -> float:
        return (
            abs(math.log(values["optim.lr"] / 3e-3))
            + abs(math.log(values["size"] / 32))
            + abs(values["optim.warmup_steps"] - 60) / 50
        )

    search = Search(axes, terms(trials=7, cap=40))
    carried_out(search, loss)
    choice = search.choice()
    assert choice.values == {"optim.lr": 3e-3, "size": 32, "optim.warmup_steps": 60}
    assert not choice.at_edge
    assert choice.notes == ("warmup_steps 60 stands at the end of the values that were to be tried",)


def test_by_the_metric_the_loss_decides_where_two_tie() -> None:
    def run(score: float, loss: float) -> Trial:
        return Trial({"optim.lr": loss}, 1.0, {101: Outcome("accuracy", {"accuracy": score, "loss": loss})})

    better, tied, worse = run(0.5, 0.9), run(0.5, 1.0), run(0.4, 0.1)
    assert min((tied, worse, better), key=lambda trial: trial.rank(ChooseBy.metric)) is better
    assert min((tied, worse, better), key=lambda trial: trial.rank(ChooseBy.loss)) is worse


def test_an_outcome_holds_no_test_score(tmp_path: Path) -> None:
    """Two results that differ in the test set alone are one and the same outcome."""
    poor = made_up(quality={"exact_match": 0.0}, scores=[0.0] * 16)
    good = made_up(quality={"exact_match": 1.0}, scores=[1.0] * 16)
    outcomes = [Outcome.of(read(put(tmp_path, result, str(i)))) for i, result in enumerate((poor, good))]
    assert outcomes[0] == outcomes[1] == Outcome("exact_match", made_up()["validation"])
    assert {item.name for item in fields(Outcome)} == {"metric", "validation", "failure", "diverged"}
    nan = made_up(status="failed", error="step 4: nan", failure_kind="nan")
    assert Outcome.of(read(put(tmp_path, nan))) == Outcome(failure="step 4: nan", diverged=True)


def brute(values: Sequence[float], n: int) -> float:
    """The mean of the best of n, over every draw of n with replacement."""
    draws = list(product(values, repeat=n))
    return sum(map(max, draws)) / len(draws)


def test_the_expected_best_is_that_of_every_draw() -> None:
    from experiments.compare.expected_best import by_method, expected_best

    values = [0.2, 0.9, 0.4, 0.4]
    assert expected_best(values) == pytest.approx([brute(values, n) for n in (1, 2, 3, 4)])
    search = Search([RATE], terms())
    carried_out(search, planted(10.0, diverges_above=5e-3))
    calm = Search([RATE], terms())
    carried_out(calm, planted(1e-3))
    made = by_method({"wild": search.trials(), "calm": calm.trials()})
    assert len(made["wild"]["score"]) == len(search.trials())
    assert made["wild"]["score"] == sorted(made["wild"]["score"]), "more trials never lower it"
    assert made["wild"]["loss"] == sorted(made["wild"]["loss"], reverse=True)
    assert made["calm"]["score"][0] > made["wild"]["score"][0]


def test_without_an_axis_the_default_is_all_there_is() -> None:
    search = Search((), terms())
    ran = carried_out(search, lambda values, seed: 1.0 + seed)
    assert {each.place for each in ran} == {()}
    assert {each.seed for each in ran} == set(SEEDS)
    choice = search.choice()
    assert choice.values == {} and not choice.at_edge
