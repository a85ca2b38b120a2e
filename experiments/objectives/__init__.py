"""The table of objectives, and which is a task's: a file each, so a new one is a class here or in a plugin."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from experiments.config.family import Family
from experiments.config.table import PluginError, Table
from experiments.objectives.base import Objective
from experiments.objectives.classification import Classification, LabelText
from experiments.objectives.multiple_choice import MultipleChoice
from experiments.objectives.plain_text import PlainText
from experiments.objectives.rating import Rating, WrittenNumber
from experiments.objectives.response_likelihood import ResponseLikelihood
from experiments.objectives.responses import Responses
from experiments.objectives.sequence_to_sequence import (
    AnsweredChoice,
    AnsweredLabel,
    AnsweredNumber,
    AnswerLikelihood,
    Answers,
)

# Where several fit a kind of task and a model, the first is taken.
OBJECTIVES: Table[type[Objective]] = Table(
    "objective",
    {
        "responses": Responses,
        "plain_text": PlainText,
        "classification": Classification,
        "label_text": LabelText,
        "rating": Rating,
        "written_number": WrittenNumber,
        "multiple_choice": MultipleChoice,
        "response_likelihood": ResponseLikelihood,
        "answers": Answers,
        "answered_label": AnsweredLabel,
        "answered_number": AnsweredNumber,
        "answered_choice": AnsweredChoice,
        "answer_likelihood": AnswerLikelihood,
    },
)
Learned = TypeVar("Learned", bound=type[Objective])


def objective(name: str) -> Callable[[Learned], Learned]:
    """Add an objective to the table, as a decorator of its class."""

    def add(each: Learned) -> Learned:
        if not issubclass(each, Objective):
            raise PluginError(f"objective {name!r}: {each.__qualname__} is no Objective (experiments.objectives.base)")
        OBJECTIVES.add(name, each)
        return each

    return add


def objective_class(kind: str, family: Family, name: str | None = None) -> type[Objective]:
    """The objective of a task of this kind for a model of this family; `name` chooses another.

    Raises ValueError where there is none of that name, or none for such a model.
    """
    if name is not None:
        if name not in OBJECTIVES:
            raise ValueError(f"objective={name}: there is no such objective; there are: {', '.join(OBJECTIVES)}")
        chosen = OBJECTIVES[name]
        if chosen.family is not family:
            raise ValueError(
                f"objective={name} needs {chosen.family.value}, which this model is not; take another of either"
            )
        if not chosen.learns(kind):
            kinds = ", ".join(chosen.kinds)
            raise ValueError(f"objective={name} learns tasks of the kind {kinds}, and this one is of the kind {kind!r}")
        return chosen
    fitting = [each for each in OBJECTIVES.values() if kind in each.kinds]
    if chosen := next((each for each in fitting if each.family is family), None):
        return chosen
    if family is Family.encoder:
        raise ValueError("an encoder generates no text: give it a classification, or take another model")
    if fitting:
        others = ", ".join(sorted({each.family.value for each in fitting}))
        raise ValueError(f"a task of the kind {kind!r} is learned by {others}, and not by {family.value}")
    raise ValueError(f"no objective learns a task of the kind {kind!r}; name one of {', '.join(OBJECTIVES)}")


def replayed_objective(objective: Objective, kind: str) -> Objective:
    """How examples of another source are learned beside the task's: a model that writes learns each kind as its own, a
    task head has the task's outputs alone."""
    if objective.family is Family.encoder:
        return objective
    return objective_class(kind, objective.family)(objective.encoder, loss_on=objective.loss_on)
