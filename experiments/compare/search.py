"""The search of one method: which runs it wants next, and what it chooses of those that it had.

Every method has the same terms. The search begins around the method's defaults, in short runs first where there are
rungs, then in full length; it goes on to the neighbours of the best, until on both sides of it something was tried to
its end or diverged, and spends what is left of the trials between the best and its neighbours. All that it knows are
outcomes on the validation set, so it is a function of them alone: started again, it wants the same runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Any

from experiments.compare.axes import Axis
from experiments.compare.trials import Choice, ChooseBy, Outcome, Trial

Place = tuple[float, ...]  # a number on each axis
FINEST = 0.25  # a share of a factor's step: nearer rates than that are not told apart


@dataclass(frozen=True)
class Terms:
    """What is the same for every method."""

    trials: int  # settings that every method tries
    cap: int  # the most that it may, where its best is at an edge after so many
    seeds: tuple[int, ...]
    rungs: tuple[float, ...] = (1.0,)  # shares of the steps, rising to all of them
    keep: float = 1 / 3  # the share of a rung's trials that goes on to the next one
    finalists: int = 2  # trials, the best by the first seed, that get the other seeds too
    by: ChooseBy = ChooseBy.loss


@dataclass(frozen=True)
class Wanted:
    """A run that the search asks for."""

    place: Place
    rung: int
    seed: int


class Search:
    """A method's search on one task. take: gives it the outcome of a run that it wanted."""

    def __init__(self, axes: Sequence[Axis], terms: Terms) -> None:
        self.axes, self.terms = tuple(axes), terms
        self.last = len(terms.rungs) - 1
        self.outcomes: dict[Wanted, Outcome] = {}

    def take(self, wanted: Wanted, outcome: Outcome) -> None:
        self.outcomes[wanted] = outcome

    def wanted(self) -> list[Wanted]:
        """The runs to be carried out next; none where the search has ended."""
        places = self.start()
        for rung in range(self.last):
            if missing := self.missing(places, rung):
                return missing
            places = self.survivors(places, rung)
        return self.missing(places, self.last) or self.sides() or self.between() or self.finals()

    # ---------------------------------------------------------------- what is wanted

    def start(self) -> list[Place]:
        """The defaults and the settings nearest to them: with rungs as many as there are trials, else one step away."""
        shells: list[list[Place]] = [[(0.0,) * len(self.axes)]]
        known = set(shells[0])
        while shells[-1] and len(known) < self.terms.trials and (self.last or len(shells) < 2):
            steps = product(shells[-1], range(len(self.axes)), (1, -1))
            near = dict.fromkeys(beside(place, axis, step) for place, axis, step in steps)
            shells.append([place for place in near if place not in known and self.exists(place)])
            known |= set(shells[-1])
        return [place for shell in shells for place in sorted(shell, key=rate_first)][: self.terms.trials]

    def survivors(self, places: Iterable[Place], rung: int) -> list[Place]:
        """The best of a rung's trials, which go on to the next one."""
        done = [place for place in places if self.complete(place, rung)]
        done.sort(key=lambda place: self.trial(place, rung).rank(self.terms.by))
        return done[: ceil(len(done) * self.terms.keep)]

    def missing(self, places: Iterable[Place], rung: int) -> list[Wanted]:
        """The first seed's runs of the rung that were not carried out; what diverged earlier is not run again."""
        firsts = [Wanted(place, rung, self.terms.seeds[0]) for place in places if not self.diverged(place)]
        return [each for each in firsts if each not in self.outcomes]

    def finals(self) -> list[Wanted]:
        """The runs of the other seeds that the best trials have not had."""
        best = self.ranked()[: self.terms.finalists]
        runs = [Wanted(place, self.last, seed) for seed in self.terms.seeds[1:] for place in best]
        return [each for each in runs if each not in self.outcomes]

    def sides(self) -> list[Wanted]:
        """The neighbours of the best that were not tried to their end, as far as the cap allows."""
        wanted: list[Wanted] = []
        room = self.terms.cap - len(self.places())
        for place in self.open_sides():
            new = place not in self.places()
            if not new or room > 0:
                room -= new
                wanted += self.missing([place], self.last)
        return wanted

    def open_sides(self) -> list[Place]:
        """Where the best, or, if all diverged, the lowest rate, has a side on which nothing was tried to its end."""
        ranked = self.ranked()
        if not ranked:
            diverged = [place for place in self.places() if self.diverged(place)]
            lower = [beside(min(diverged), 0, -1)] if diverged and self.axes else []
            return [place for place in lower if self.exists(place)]
        sides = ((axis, step) for axis in range(len(self.axes)) for step in (1, -1))
        places = (self.open_side(ranked[0], axis, step) for axis, step in sides)
        return [place for place in places if place is not None]

    def open_side(self, best: Place, axis: int, step: int) -> Place | None:
        """The place to try on this side of the best; None where it is closed, or has come to the grid's end."""
        if line := self.line(best, axis, step):
            closed = self.diverged(line[0]) or self.complete(line[0], self.last)
            return None if closed or self.failed(line[0]) else line[0]
        place = beside(best, axis, step)
        return place if self.exists(place) else None

    def between(self) -> list[Wanted]:
        """A trial between the best and a neighbour, the farther or better one, while there are trials left."""
        ranked = self.ranked()
        if not self.axes or not ranked or len(self.places()) >= self.terms.trials:
            return []
        values = {self.axes[0].value(place[0]) for place in self.places()}
        lines = (self.line(ranked[0], 0, step) for step in (1, -1))
        neighbours = [line[0] for line in lines if line]
        by = self.terms.by
        neighbours.sort(key=lambda at: (-abs(at[0] - ranked[0][0]), self.trial(at, self.last).rank(by)))
        for neighbour in neighbours:
            at = (ranked[0][0] + neighbour[0]) / 2
            value = self.axes[0].value(at)
            if abs(at - neighbour[0]) >= FINEST and value is not None and value not in values:
                return [Wanted((at, *ranked[0][1:]), self.last, self.terms.seeds[0])]
        return []

    # ---------------------------------------------------------------- what is known

    def places(self) -> list[Place]:
        """Every setting that was tried, in whatever length, in the order in which they were."""
        return list(dict.fromkeys(each.place for each in self.outcomes))

    def values(self, place: Sequence[float]) -> dict[str, Any]:
        """The setting by axis."""
        return {axis.name: axis.value(at) for axis, at in zip(self.axes, place)}

    def exists(self, place: Sequence[float]) -> bool:
        return all(axis.value(at) is not None for axis, at in zip(self.axes, place))

    def line(self, best: Place, axis: int, step: int) -> list[Place]:
        """The settings tried that differ from the best on this axis alone, in this direction, the nearest first."""
        others = (
            place for place in self.places() if place[:axis] + place[axis + 1 :] == best[:axis] + best[axis + 1 :]
        )
        beyond = [place for place in others if (place[axis] - best[axis]) * step > 0]
        return sorted(beyond, key=lambda place: abs(place[axis] - best[axis]))

    def trial(self, place: Place, rung: int | None = None) -> Trial:
        """The setting with its runs of the rung, by default of the longest that it came to."""
        if rung is None:
            rung = max(each.rung for each in self.outcomes if each.place == place)
        runs = {each.seed: run for each, run in self.outcomes.items() if (each.place, each.rung) == (place, rung)}
        return Trial(self.values(place), self.terms.rungs[rung], runs)

    def trials(self) -> list[Trial]:
        return [self.trial(place) for place in sorted(self.places())]

    def complete(self, place: Place, rung: int) -> bool:
        """Whether its runs of the rung, the first seed's at least, came to their end."""
        trial = self.trial(place, rung)
        return bool(trial.outcomes) and trial.failure is None

    def diverged(self, place: Place) -> bool:
        return any(run.diverged for each, run in self.outcomes.items() if each.place == place)

    def failed(self, place: Place) -> bool:
        """Whether a run of it failed otherwise than by diverging."""
        runs = (run for each, run in self.outcomes.items() if each.place == place)
        return any(run.failure is not None and not run.diverged for run in runs)

    def ranked(self) -> list[Place]:
        """The settings that came to their end in full length, the best by its mean over the seeds it had first."""
        done = [place for place in self.places() if self.complete(place, self.last)]
        near = [(self.trial(place, self.last).rank(self.terms.by), sum(map(abs, place)), place) for place in done]
        return [place for *_, place in sorted(near)]

    # ---------------------------------------------------------------- what is chosen

    def choice(self) -> Choice:
        """The best of the trials that had every seed, and what the search leaves open."""
        failures = [f"{words(trial)} failed: {trial.failure}" for trial in self.trials() if trial.failure is not None]
        ranked = [
            place for place in self.ranked() if len(self.trial(place, self.last).outcomes) == len(self.terms.seeds)
        ]
        if not ranked:
            return Choice(None, False, ("no trial is complete, so no learning rate was chosen", *failures))
        edges = [edge for i in range(len(self.axes)) if (edge := self.edge(ranked[0], i))]
        at_edge = any(self.axes[i].grid is None and self.edge(ranked[0], i) for i in range(len(self.axes)))
        return Choice(self.trial(ranked[0], self.last).values, at_edge, (*edges, *failures))

    def edge(self, best: Place, i: int) -> str:
        """What is to be said where nothing was tried beyond the best on this axis; else nothing."""
        axis = self.axes[i]
        if not (self.is_open(best, i, 1) or self.is_open(best, i, -1)) or (
            axis.grid is not None and len(axis.grid) < 2
        ):
            return ""
        name, value = axis_word(axis.name), axis.value(best[i])
        if axis.grid is not None:
            return f"{name} {value} stands at the end of the values that were to be tried"
        tried = sorted(axis.value(place[i]) for place in self.places())
        if len(tried) == 1:
            return f"{name} {value:g} is the only one tried"
        trials = f"{len(self.places())} trials, of {self.terms.cap} that a method may have"
        return (
            f"{name} {value:g} is at the edge of its grid ({tried[0]:g} to {tried[-1]:g}) after {trials}; "
            "beyond may be better"
        )

    def is_open(self, best: Place, axis: int, step: int) -> bool:
        """Whether nothing was tried to its end, or diverged, on this side of the best."""
        line = self.line(best, axis, step)
        return not line or not (self.diverged(line[0]) or self.complete(line[0], self.last))


def beside(place: Place, axis: int, step: float) -> Place:
    """The next place on the axis at a whole factor's step from this one."""
    return (*place[:axis], place[axis] + step, *place[axis + 1 :])


def axis_word(name: str) -> str:
    """An axis in words: `lr` of optim.lr."""
    return name.rpartition(".")[2]


def rate_first(place: Place) -> list[tuple[float, float]]:
    """What sorts places as far from the default: those that differ in the rate first, and of two the higher."""
    return [(-abs(at), -at) for at in place]


def words(trial: Trial) -> str:
    """A trial's setting in words: lr 0.001, warmup_steps 20."""
    return ", ".join(f"{axis_word(name)} {number(value)}" for name, value in trial.values.items())


def number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
