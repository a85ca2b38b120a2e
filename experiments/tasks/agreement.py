"""How far predictions agree with the gold answers over a whole set: of classes, and of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from experiments.tasks.base import Example, Scores, of_each


def classification(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """Accuracy; macro-F1 over every label that stands in the gold answers or was predicted; Matthews correlation."""
    from sklearn.metrics import f1_score, matthews_corrcoef

    gold, predicted = [e.completion for e in examples], list(predictions)
    return of_each(
        "accuracy",
        (a == b for a, b in zip(gold, predicted)),
        macro_f1=float(f1_score(gold, predicted, average="macro", zero_division=0)),  # type: ignore[arg-type]
        mcc=float(matthews_corrcoef(gold, predicted)) if len({*gold, *predicted}) > 1 else 0.0,  # else sklearn warns
    )


def matthews(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """`classification` with the Matthews correlation as the main metric.

    It is no mean over examples; an example's number is the correlation plus the example's influence on it. These have
    the correlation as their mean, and their spread is that of its sampling, to first order (Hampel 1974, "The influence
    curve and its role in robust estimation").
    """
    means = classification(examples, predictions).means
    labels = sorted({*(e.completion for e in examples), *predictions})
    gold = np.array([labels.index(e.completion) for e in examples])
    predicted = np.array([labels.index(text) for text in predictions])
    t, p = (np.bincount(one, minlength=len(labels)) / len(one) for one in (gold, predicted))
    free_t, free_p, right = 1 - t @ t, 1 - p @ p, gold == predicted
    if free_t * free_p < 1e-12:  # one label alone: the correlation is 0, whichever example is looked at
        influence = np.zeros(len(gold))
    else:
        # mcc = (share right − Σ t p) / √((1 − Σ t²)(1 − Σ p²)), and its derivative in the weight of each example
        top = right.mean() - t @ p
        d_top = right - right.mean() - (t[predicted] - t @ p) - (p[gold] - t @ p)
        d_free = -2 * (t[gold] - t @ t) / free_t - 2 * (p[predicted] - p @ p) / free_p
        influence = (d_top - top * d_free / 2) / np.sqrt(free_t * free_p)
    return Scores((means["mcc"] + influence).tolist(), {"mcc": means.pop("mcc"), **means})


def f1(examples: Sequence[Example], predictions: Sequence[str], positive: str) -> Scores:
    """`classification` with the F1 of the class `positive` as the main metric: 2 tp / (predicted + gold).

    It is no mean over examples; as in `matthews`, an example's number is F1 plus the example's influence on it,
    (2 tp_i - F1 (predicted_i + gold_i)) / share of (predicted + gold).
    """
    gold = np.array([e.completion == positive for e in examples])
    predicted = np.array([text == positive for text in predictions])
    either = gold.mean() + predicted.mean()
    value = 2 * float((gold & predicted).mean()) / either if either else 0.0
    tp = gold & predicted
    influence = (2 * tp - value * (gold.astype(int) + predicted)) / either if either else np.zeros(len(gold))
    return Scores((value + influence).tolist(), {"f1": value, **classification(examples, predictions).means})


def pearson(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """Pearson's correlation of the numbers predicted with the gold ones; Spearman's; the mean absolute error.

    A text that is no finite number counts as the mean of those that are, which tells nothing; valid_number is the
    share of the others. The correlation, 0 where either side does not vary, is no mean over examples: as in
    `matthews`, an example's number is the correlation plus the example's influence on it, z_x z_y − r (z_x² + z_y²) / 2
    (Devlin, Gnanadesikan & Kettenring 1975).
    """
    from scipy.stats import pearsonr, spearmanr

    gold = np.array([float(e.completion) for e in examples])
    numbers = np.array([_number(text) for text in predictions])
    valid = np.isfinite(numbers)
    predicted = np.where(valid, numbers, numbers[valid].mean() if valid.any() else 0.0)
    r = rho = 0.0
    influence = np.zeros(len(gold))
    if np.ptp(gold) > 0 and np.ptp(predicted) > 0:
        r, rho = float(pearsonr(gold, predicted).statistic), float(spearmanr(gold, predicted).statistic)  # type: ignore[union-attr]
        x, y = ((side - side.mean()) / side.std() for side in (gold, predicted))
        influence = x * y - r * (x**2 + y**2) / 2
    error = float(np.abs(predicted - gold).mean())
    means = {"pearson": r, "spearman": rho, "mean_absolute_error": error, "valid_number": float(valid.mean())}
    return Scores((r + influence).tolist(), means)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
