"""The files of records beside a result: a step of training a line, a prediction a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from experiments.store.result import about


@dataclass(frozen=True, kw_only=True)
class Step:
    """A line of metrics.jsonl."""

    step: Annotated[int, about("the optimizer's step, from 1")]
    loss: Annotated[float | None, about("training loss of the step's batch, nats a labelled token")] = None
    lr: Annotated[float | None, about("learning rate of the step")] = None
    grad_norm: Annotated[float | None, about("norm of the gradient before clipping")] = None
    tokens: Annotated[int | None, about("tokens seen since the first step")] = None
    wall_s: Annotated[float | None, about("seconds in steps since the first one")] = None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A line of predictions.jsonl: an example of the run's split."""

    part: Annotated[str | None, about("language, category or the like; empty for an example of none")] = None
    prompt: Annotated[str | None, about("what was asked")] = None
    gold: Annotated[str | None, about("the answer that is right")] = None
    prediction: Annotated[str | None, about("what the model answered")] = None
    score: Annotated[float | None, about("the main metric's number for this example")] = None
    correct: Annotated[bool | None, about("whether the score is 1; absent where scores lie between 0 and 1")] = None
