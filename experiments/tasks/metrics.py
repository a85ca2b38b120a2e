"""Metrics as scorers: (examples, predictions) -> a number for each example, and the means of a set.

A scorer is a function of a module, so that it can be pickled; its main metric is the first of the means. A metric that
is no mean over examples, as macro-F1, stands in the means alone. Shares and similarities are in [0, 1].
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from experiments.config.table import PluginError, Table, first_line
from experiments.tasks.agreement import classification, matthews, pearson
from experiments.tasks.base import Example, Hopeless, Kind, Scorer, Scores, mean, of_each
from experiments.tasks.numbers import number_match

SPACE = " \t\n\r"  # what JSON holds to be white space


# ---------------------------------------------------------------- one answer of few


def accuracy(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """1 where the prediction is the gold answer, as of a multiple choice."""
    return of_each("accuracy", (e.completion == answer for e, answer in zip(examples, predictions)))


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

    right, answers = [list(e.accepted) for e in examples], list(predictions)
    sentence_bleu, sentence_chrf = BLEU(effective_order=True), CHRF()
    each = {
        "chrf": [sentence_chrf.sentence_score(a, b).score / 100 for a, b in zip(answers, right)],
        "bleu": [sentence_bleu.sentence_score(a, b).score / 100 for a, b in zip(answers, right)],
        "rouge_l": [max(_common(_words(a), _words(one)) for one in b) for a, b in zip(answers, right)],
        "exact_match": _exact(examples, predictions),
    }
    longest = max(map(len, right))
    streams = [[b[i] if i < len(b) else None for b in right] for i in range(longest)]  # None: no such answer
    others = {name: mean(numbers) for name, numbers in each.items() if name != main}
    corpus_chrf = CHRF().corpus_score(answers, streams).score / 100  # type: ignore[arg-type]
    corpus_bleu = BLEU().corpus_score(answers, streams).score / 100  # type: ignore[arg-type]
    return of_each(main, each[main], **others, corpus_chrf=corpus_chrf, corpus_bleu=corpus_bleu)


def _exact(examples: Sequence[Example], predictions: Sequence[str]) -> list[float]:
    return [float(answer.strip() in {a.strip() for a in e.accepted}) for e, answer in zip(examples, predictions)]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _common(words: list[str], right: list[str]) -> float:
    """2 · LCS / (n + m) of two texts of n and m words: the F1 of their longest common subsequence."""
    from rapidfuzz.distance import Indel

    return Indel.normalized_similarity(words, right) if words and right else 0.0


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
    answers = [json_object(text) for text in predictions]
    right = [json_object(e.completion) for e in examples]
    scores = of_each(
        "exact_match",
        (a is not None and canonical(a) == canonical(b) for a, b in zip(answers, right)),
        valid_json=mean(value is not None for value in answers),
    )
    if schema is not None:
        from jsonschema.validators import validator_for

        allowed = validator_for(schema)(schema)
        scores.means["valid_schema"] = mean(value is not None and allowed.is_valid(value) for value in answers)
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
            "number": Metric("number_match", number_match),
        },
    ),
    "classify": _table("classify", {"accuracy": Metric("accuracy", classification), "mcc": Metric("mcc", matthews)}),
    "rate": _table("rate", {"pearson": Metric("pearson", pearson)}),
    "choose": _table("choose", {"accuracy": Metric("accuracy", accuracy)}),
    "text": _table("text", {"log_likelihood": Metric("log_likelihood", log_likelihood)}),
    "respond": _table("respond", {"log_likelihood": Metric("log_likelihood", log_likelihood)}),
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
