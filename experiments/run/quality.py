"""How good the model of a run is: its loss, its answers and their scores, after the training and along it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from experiments.config.schema import Part
from experiments.data.encode import Encoded
from experiments.evaluation import forgetting
from experiments.evaluation.answers import answers, mean_loss
from experiments.evaluation.predictions import write_predictions
from experiments.run.subject import Subject
from experiments.tasks.base import Example, Scores
from experiments.training.curve import Curve, log_spaced
from experiments.training.loop import NotFinite


@dataclass(frozen=True)
class Quality:
    """Metrics and loss on the validation set; of the part that the run is scored on, the examples, their scores, and
    metrics by language, category or the like."""

    validation: dict[str, float]
    examples: list[Example]
    scores: Scores
    by_part: dict[str, dict[str, float]]

    @property
    def groups(self) -> tuple[str, ...] | None:
        """What each example was made from; None where the task does not say."""
        named = tuple(example.group for example in self.examples)
        return named if any(named) else None


def evaluated(subject: Subject) -> Quality:
    """The quality after the training; the predictions are written to their file."""
    config, data = subject.config, subject.data
    loss = loss_on(subject, data.val, subject.rows["val"])
    if not math.isfinite(loss):
        raise NotFinite(f"after the training the validation loss is {loss}; lower optim.lr ({config.optim.lr:g})")
    apart = {}
    examples, answered = data.val, answers_to(subject, data.val, subject.rows["val"])
    validation = data.score(data.val, answered).means
    if config.eval.part is Part.test:
        if data.apart:
            apart = data.by_part(data.apart, answers_to(subject, data.apart, subject.rows["apart"]))
        examples, answered = data.test, answers_to(subject, data.test, subject.rows["test"])
    scores = data.score(examples, answered)
    with subject.clock("save"):
        write_predictions(subject.directory / "predictions.jsonl", examples, answered, scores)
    return Quality({**validation, "loss": loss}, examples, scores, data.by_part(examples, answered) | apart)


def curve(subject: Subject) -> Curve:
    """Where along the training the validation set is scored, and how."""
    config, data = subject.config, subject.data
    n = config.eval.point_examples
    examples, rows = data.val[:n], subject.rows["val"][:n]

    def measure() -> dict[str, Any]:
        loss = loss_on(subject, data.val, subject.rows["val"])
        if not math.isfinite(loss):
            raise NotFinite(f"the validation loss is {loss}; lower optim.lr ({config.optim.lr:g})")
        score = data.score(examples, answers_to(subject, examples, rows)).means[data.metric] if n else None
        return {"loss": loss, "score": score, **forgotten(subject)}

    return Curve(log_spaced(config.eval.points, config.optim.steps), measure)


def forgotten(subject: Subject) -> dict[str, Any]:
    """What the model has forgotten by now, where forgetting.along asks for it: of an encoder nothing is known."""
    if subject.base is None or not subject.config.forgetting.along or not forgetting.goes_on(subject.reader):
        return {}
    with subject.clock("forgetting"):
        return {"kl": tuple(forgetting.kl_of_texts(subject.base, subject.reader))}


def loss_on(subject: Subject, examples: list[Example], rows: list[Encoded]) -> float:
    """The mean loss a unit of what answers in this run: the model, or the predictor in its place."""
    if subject.predictor is not None:
        return subject.predictor.loss(examples)
    return mean_loss(subject.objective, subject.reader, rows, subject.config.eval.batch_size)


def answers_to(subject: Subject, examples: list[Example], rows: list[Encoded]) -> list[str]:
    if subject.predictor is not None:
        return subject.predictor.answers(examples)
    config = subject.config
    return answers(subject.objective, subject.reader, rows, config.eval, config.log_every)
