"""Metrics as scorers: (examples, predictions) -> a number for each example, and the means of a set.

A metric that is no mean over examples, as macro-F1, stands in the means alone. Shares are in [0, 1].
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.tasks import Example, Scores


def mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def of_each(name: str, each: Iterable[float], **others: float) -> Scores:
    """Scores whose main metric is the mean of `each`."""
    numbers = [float(number) for number in each]
    return Scores(numbers, {name: mean(numbers), **others})


def exact_match(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """1 where the prediction is an accepted answer but for white space around it."""
    return of_each(
        "exact_match",
        (said.strip() in {right.strip() for right in e.accepted} for e, said in zip(examples, predictions)),
    )


def classification(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """Accuracy; macro-F1 over every label that stands in the gold answers or was predicted; Matthews correlation."""
    from sklearn.metrics import f1_score, matthews_corrcoef

    gold, said = [e.completion for e in examples], list(predictions)
    return of_each(
        "accuracy",
        (a == b for a, b in zip(gold, said)),
        macro_f1=float(f1_score(gold, said, average="macro", zero_division=0)),  # type: ignore[arg-type]
        mcc=float(matthews_corrcoef(gold, said)) if len({*gold, *said}) > 1 else 0.0,  # else sklearn warns
    )


def json_match(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """1 where the prediction is the gold answer's JSON object; valid_json: it is an object, and nothing around it."""
    said = [json_object(text) for text in predictions]
    right = [json_object(e.completion) for e in examples]
    return of_each(
        "exact_match",
        (a is not None and canonical(a) == canonical(b) for a, b in zip(said, right)),
        valid_json=mean(value is not None for value in said),
    )


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that the text is, or None."""
    try:
        value = json.loads(text, parse_constant=_refuse)  # JSON itself has no NaN and no Infinity
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def canonical(value: Any) -> str:
    """Compact JSON, keys sorted: texts that tell 1 from true, which Python holds equal."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)
