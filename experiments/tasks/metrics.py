"""Metrics as scorers: (examples, predictions) -> a number for each example, and the means of a set.

A scorer is a function of a module, so that it can be pickled; its main metric is the first of the means. A metric that
is no mean over examples, as macro-F1, stands in the means alone. Shares and similarities are in [0, 1].
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from experiments.config.table import PluginError, Table, first_line
from experiments.tasks.base import Example, Hopeless, Kind, Scorer, Scores

SPACE = " \t\n\r"  # what JSON holds to be white space


def mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def of_each(name: str, each: Iterable[float], **others: float) -> Scores:
    """Scores whose main metric is the mean of `each`."""
    numbers = [float(number) for number in each]
    return Scores(numbers, {name: mean(numbers), **others})


# ---------------------------------------------------------------- one answer of few


def accuracy(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """1 where the prediction is the gold answer, as of a multiple choice."""
    return of_each("accuracy", (e.completion == said for e, said in zip(examples, predictions)))


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


def matthews(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """`classification` with the Matthews correlation as the main metric.

    It is no mean over examples; an example's number is the correlation plus the example's influence on it. These have
    the correlation as their mean, and their spread is that of its sampling, to first order (Hampel 1974, "The influence
    curve and its role in robust estimation").
    """
    means = classification(examples, predictions).means
    labels = sorted({*(e.completion for e in examples), *predictions})
    gold = np.array([labels.index(e.completion) for e in examples])
    said = np.array([labels.index(text) for text in predictions])
    t, p = (np.bincount(one, minlength=len(labels)) / len(one) for one in (gold, said))
    free_t, free_p, right = 1 - t @ t, 1 - p @ p, gold == said
    if free_t * free_p < 1e-12:  # one label alone: the correlation is 0, whichever example is looked at
        influence = np.zeros(len(gold))
    else:
        # mcc = (share right − Σ t p) / √((1 − Σ t²)(1 − Σ p²)), and its derivative in the weight of each example
        top = right.mean() - t @ p
        d_top = right - right.mean() - (t[said] - t @ p) - (p[gold] - t @ p)
        d_free = -2 * (t[gold] - t @ t) / free_t - 2 * (p[said] - p @ p) / free_p
        influence = (d_top - top * d_free / 2) / np.sqrt(free_t * free_p)
    return Scores((means["mcc"] + influence).tolist(), {"mcc": means.pop("mcc"), **means})


# ---------------------------------------------------------------- a number


def pearson(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """Pearson's correlation of the numbers told with the gold ones; Spearman's; the mean absolute error.

    A text that is no finite number counts as the mean of those that are, which tells nothing; valid_number is the
    share of the others. The correlation, 0 where either side does not vary, is no mean over examples: as in
    `matthews`, an example's number is the correlation plus the example's influence on it, z_x z_y − r (z_x² + z_y²) / 2
    (Devlin, Gnanadesikan & Kettenring 1975).
    """
    from scipy.stats import pearsonr, spearmanr

    gold = np.array([float(e.completion) for e in examples])
    told = np.array([_number(text) for text in predictions])
    valid = np.isfinite(told)
    said = np.where(valid, told, told[valid].mean() if valid.any() else 0.0)
    r = rho = 0.0
    influence = np.zeros(len(gold))
    if np.ptp(gold) > 0 and np.ptp(said) > 0:
        r, rho = float(pearsonr(gold, said).statistic), float(spearmanr(gold, said).statistic)  # type: ignore[union-attr]
        x, y = ((side - side.mean()) / side.std() for side in (gold, said))
        influence = x * y - r * (x**2 + y**2) / 2
    error = float(np.abs(said - gold).mean())
    means = {"pearson": r, "spearman": rho, "mean_absolute_error": error, "valid_number": float(valid.mean())}
    return Scores((r + influence).tolist(), means)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


# ---------------------------------------------------------------- text


def exact_match(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """1 where the prediction is an accepted answer but for white space around it."""
    return of_each("exact_match", _exact(examples, predictions))


def chrf(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """The chrF of each text with its accepted answers, and the other likenesses of texts beside it."""
    return _texts("chrf", examples, predictions)


def bleu(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """The BLEU of each text with its accepted answers, and the other likenesses of texts beside it."""
    return _texts("bleu", examples, predictions)


def rouge_l(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """The F1 of ROUGE-L with the closest accepted answer, and the other likenesses of texts beside it."""
    return _texts("rouge_l", examples, predictions)


def _texts(main: str, examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """Likeness to the accepted answers: chrF (Popović 2015) and BLEU (Papineni et al. 2002) by sacrebleu, of each
    text and, as corpus_…, of the whole set; the F1 of ROUGE-L (Lin 2004) with the closest answer; exact matches."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    right, said = [list(e.accepted) for e in examples], list(predictions)
    sentence_bleu, sentence_chrf = BLEU(effective_order=True), CHRF()
    each = {
        "chrf": [sentence_chrf.sentence_score(a, b).score / 100 for a, b in zip(said, right)],
        "bleu": [sentence_bleu.sentence_score(a, b).score / 100 for a, b in zip(said, right)],
        "rouge_l": [max(_common(_words(a), _words(one)) for one in b) for a, b in zip(said, right)],
        "exact_match": _exact(examples, predictions),
    }
    longest = max(map(len, right))
    streams = [[b[i] if i < len(b) else None for b in right] for i in range(longest)]  # None: no such answer
    others = {name: mean(numbers) for name, numbers in each.items() if name != main}
    corpus_chrf = CHRF().corpus_score(said, streams).score / 100  # type: ignore[arg-type]
    corpus_bleu = BLEU().corpus_score(said, streams).score / 100  # type: ignore[arg-type]
    return of_each(main, each[main], **others, corpus_chrf=corpus_chrf, corpus_bleu=corpus_bleu)


def _exact(examples: Sequence[Example], predictions: Sequence[str]) -> list[float]:
    return [float(said.strip() in {a.strip() for a in e.accepted}) for e, said in zip(examples, predictions)]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _common(said: list[str], right: list[str]) -> float:
    """2 · LCS / (n + m) of two texts of n and m words: the F1 of their longest common subsequence."""
    from rapidfuzz.distance import Indel

    return Indel.normalized_similarity(said, right) if said and right else 0.0


def log_likelihood(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """Mean nats a token, negative, of predictions '[nll_sum, n_tokens, n_bytes]'.

    Of the whole set, so of all its tokens together: perplexity = exp(Σ nll / Σ tokens) and
    bits_per_byte = Σ nll / (ln 2 · Σ bytes).
    """
    sums = [json.loads(text) for text in predictions]
    nll, tokens, size = (sum(column) for column in zip(*sums))
    return of_each(
        "log_likelihood",
        (-nats / max(n, 1) for nats, n, _ in sums),
        perplexity=math.exp(min(nll / max(tokens, 1), 700.0)),  # beyond, a float overflows
        bits_per_byte=nll / (math.log(2) * max(size, 1)),
    )


# ---------------------------------------------------------------- JSON


def json_match(examples: Sequence[Example], predictions: Sequence[str], schema: dict[str, Any] | None = None) -> Scores:
    """1 where the prediction is the gold answer's JSON object.

    valid_json: it is an object, and nothing around it. valid_schema: and one that the JSON Schema allows. With a
    schema, a scorer is functools.partial of this.
    """
    said = [json_object(text) for text in predictions]
    right = [json_object(e.completion) for e in examples]
    scores = of_each(
        "exact_match",
        (a is not None and canonical(a) == canonical(b) for a, b in zip(said, right)),
        valid_json=mean(value is not None for value in said),
    )
    if schema is not None:
        from jsonschema.validators import validator_for

        allowed = validator_for(schema)(schema)
        scores.means["valid_schema"] = mean(value is not None and allowed.is_valid(value) for value in said)
    return scores


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that the text is, or None."""
    try:
        value = json.loads(text, parse_constant=_refuse)  # JSON itself has no NaN and no Infinity
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def no_json_object(beginning: str) -> bool:
    """Whether no JSON object begins so: it opens with no brace, or its object has closed and more than space follows.

    Nothing that follows such a beginning makes it valid, so `json_match` has nothing but zeros for it.
    """
    text = beginning.lstrip(SPACE)
    if not text.startswith("{"):
        return bool(text)
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False  # it is open still, or a fault of which more text might be the cure
    return bool(text[end:].strip(SPACE))


def canonical(value: Any) -> str:
    """Compact JSON, keys sorted: texts that tell 1 from true, which Python holds equal."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


# ---------------------------------------------------------------- by name


@dataclass(frozen=True)
class Metric:
    """A scorer, the name that its main metric has in the scores, and which beginnings of an answer are hopeless."""

    main: str
    scorer: Scorer
    hopeless: Hopeless | None = None


def _table(kind: Kind, own: dict[str, Metric]) -> Table[Metric]:
    return Table(f"metric ({kind})", own, about=lambda metric: first_line(metric.scorer))


# The metrics that task.metric chooses from for each kind of task; the usual one first.
METRICS: dict[Kind, Table[Metric]] = {
    "generate": _table(
        "generate",
        {
            "exact_match": Metric("exact_match", exact_match),
            "chrf": Metric("chrf", chrf),
            "bleu": Metric("bleu", bleu),
            "rouge_l": Metric("rouge_l", rouge_l),
            "json": Metric("exact_match", json_match, no_json_object),
        },
    ),
    "classify": _table("classify", {"accuracy": Metric("accuracy", classification), "mcc": Metric("mcc", matthews)}),
    "rate": _table("rate", {"pearson": Metric("pearson", pearson)}),
    "choose": _table("choose", {"accuracy": Metric("accuracy", accuracy)}),
    "text": _table("text", {"log_likelihood": Metric("log_likelihood", log_likelihood)}),
}
Scoring = TypeVar("Scoring", bound=Scorer)


def metric(name: str, kind: Kind, hopeless: Hopeless | None = None) -> Callable[[Scoring], Scoring]:
    """Add a metric of a kind of task to its table, as a decorator of a scorer whose main metric has this name.

    hopeless: says of the beginning of an answer whether all metrics are 0 for it, whatever follows.
    """
    if kind not in METRICS:
        raise PluginError(f"metric {name!r}: no kind of task {kind!r}; there are: {', '.join(METRICS)}")

    def add(scorer: Scoring) -> Scoring:
        METRICS[kind].add(name, Metric(name, scorer, hopeless))
        return scorer

    return add
