"""Every metric against values worked out by hand."""

from __future__ import annotations

import math
import pickle
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from experiments.tasks import metrics
from experiments.tasks.agreement import f1
from experiments.tasks.base import Example, Scores
from experiments.tasks.metrics import (
    accuracy,
    bleu,
    chrf,
    classification,
    exact_match,
    json_match,
    log_likelihood,
    matthews,
    no_json_object,
    pearson,
    rouge_l,
)


def gold(*answers: str) -> list[Example]:
    return [Example((), answer) for answer in answers]


# ---------------------------------------------------------------- one answer of few


def test_accuracy() -> None:
    assert accuracy(gold("a", "b"), ["a", "a "]) == Scores([1.0, 0.0], {"accuracy": 0.5})


def test_classification() -> None:
    scores = classification(gold(*"aaab"), ["a", "a", "b", "b"])
    assert scores.each == [1, 1, 0, 1]
    # a: precision 1, recall 2/3; b: precision 1/2, recall 1. mcc: tp 2, tn 1, fp 0, fn 1 -> 2 / sqrt(2·3·1·2)
    expected = {"accuracy": 0.75, "macro_f1": (0.8 + 2 / 3) / 2, "mcc": 2 / math.sqrt(12)}
    assert scores.means == pytest.approx(expected)
    assert next(iter(scores.means)) == "accuracy"


def test_a_label_that_nobody_has_counts_in_macro_f1_and_one_label_alone_has_no_correlation() -> None:
    assert classification(gold("a", "a"), ["a", "c"]).means["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert classification(gold("a", "a"), ["a", "a"]).means == {"accuracy": 1.0, "macro_f1": 1.0, "mcc": 0.0}
    assert classification(gold("a", "b"), ["a", "a"]).means["mcc"] == 0.0


def test_the_matthews_correlation_as_a_mean_over_examples() -> None:
    right, said = "aabbcacbab", "abbbcaccab"
    scores = matthews(gold(*right), list(said))
    assert list(scores.means) == ["mcc", "accuracy", "macro_f1"]
    assert np.mean(scores.each) == pytest.approx(scores.means["mcc"])
    # An example's influence is the derivative in its weight: here by giving it a little more.
    step = 1e-6
    for i, number in enumerate(scores.each):
        moved = weighted_mcc(right, said, np.eye(len(right))[i], step)
        assert number - scores.means["mcc"] == pytest.approx((moved - scores.means["mcc"]) / step, abs=1e-4)
    assert matthews(gold("a", "a"), ["a", "a"]).each == [0, 0]


def test_f1_as_a_mean_over_examples() -> None:
    right, said = "aabbabbbab", "abbbaaabab"
    scores = f1(gold(*right), list(said), positive="a")
    assert list(scores.means) == ["f1", "accuracy", "macro_f1", "mcc"]
    assert scores.means["f1"] == pytest.approx(f1_score(list(right), list(said), pos_label="a"))
    assert np.mean(scores.each) == pytest.approx(scores.means["f1"])
    step = 1e-6
    for i, number in enumerate(scores.each):
        weights = 1 + step * len(right) * np.eye(len(right))[i]
        moved = f1_score(list(right), list(said), pos_label="a", sample_weight=weights)
        assert number - scores.means["f1"] == pytest.approx((moved - scores.means["f1"]) / step, abs=1e-4)
    assert f1(gold("b", "b"), ["b", "b"], positive="a").each == [0, 0]
    assert f1(gold("a", "b"), ["a", "b"], positive="a").means["f1"] == 1


def test_pearsons_correlation_as_a_mean_over_examples() -> None:
    right, said = [1.0, 2.0, 3.5, 0.5, 5.0, 2.5], [1.5, 1.0, 3.0, 2.0, 4.0, 4.5]
    scores = pearson(gold(*map(str, right)), [str(number) for number in said])
    r = np.corrcoef(right, said)[0, 1]
    assert scores.means["pearson"] == pytest.approx(r)
    assert np.mean(scores.each) == pytest.approx(r)
    step = 1e-6
    for i, number in enumerate(scores.each):
        weights = (1 - step) / len(right) + step * np.eye(len(right))[i]
        covariance = np.cov(right, said, aweights=weights, ddof=0)
        moved = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
        assert number - r == pytest.approx((moved - r) / step, abs=1e-4)


def test_a_text_that_is_no_number_tells_nothing_and_is_counted() -> None:
    right = gold("1.0", "2.0", "3.0", "4.0")
    with_words = pearson(right, ["1.0", "two", "3.0", "nan"])
    assert with_words.means == pearson(right, ["1.0", "2.0", "3.0", "2.0"]).means | {"valid_number": 0.5}
    assert pearson(right, ["a", "b", "c", "d"]).means["pearson"] == 0
    assert pearson(right, ["2"] * 4).each == [0] * 4


def weighted_mcc(right: str, said: str, towards: np.ndarray, step: float) -> float:
    weights = (1 - step) / len(right) + step * towards
    labels = sorted({*right, *said})
    t = np.array([sum(w for w, a in zip(weights, right) if a == label) for label in labels])
    p = np.array([sum(w for w, a in zip(weights, said) if a == label) for label in labels])
    share = sum(w for w, a, b in zip(weights, right, said) if a == b)
    return (share - t @ p) / math.sqrt((1 - t @ t) * (1 - p @ p))


# ---------------------------------------------------------------- text


def test_exact_match_with_any_accepted_answer() -> None:
    examples = [Example((), "yes"), Example((), "yes"), Example((), "a", references=("a", "b "))]
    assert exact_match(examples, [" yes\n", "Yes", "b"]) == Scores([1, 0, 1], {"exact_match": pytest.approx(2 / 3)})


def test_chrf() -> None:
    """ "abc" against "abd": of 1-grams 2/3 are shared, of 2-grams 1/2, of 3-grams none; longer ones there are not."""
    scores = chrf(gold("abd", "abd"), ["abc", "abd"])
    assert scores.each == pytest.approx([(2 / 3 + 1 / 2 + 0) / 3, 1])
    assert next(iter(scores.means)) == "chrf"
    # the counts of the corpus: 5 of 6, 3 of 4, 1 of 2
    assert scores.means["corpus_chrf"] == pytest.approx((5 / 6 + 3 / 4 + 1 / 2) / 3)


def test_bleu() -> None:
    """Precisions of "a b c d" against "a b c e": 3/4, 2/3, 1/2, and 0 of 1, which is smoothed to 1/2."""
    one = (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)
    scores = bleu(gold("a b c e", "a b c d"), ["a b c d", "a b c d"])
    assert scores.each == pytest.approx([one, 1])
    # the corpus: 7/8, 5/6, 3/4, 1/2
    assert scores.means["corpus_bleu"] == pytest.approx((7 / 8 * 5 / 6 * 3 / 4 * 1 / 2) ** (1 / 4))
    shorter = bleu(gold("a b c d e"), ["a b c d"])
    assert shorter.each == pytest.approx([math.exp(1 - 5 / 4)])  # the penalty for being brief


def test_rouge_l() -> None:
    """ "the cat sat" and "The mat, sat on": "the … sat" is common, so precision 2/3, recall 2/4, F1 4/7."""
    scores = rouge_l(gold("The mat, sat on", "été", "!"), ["the cat sat", "Été.", ""])
    assert scores.each == pytest.approx([4 / 7, 1, 0])
    assert scores.means["rouge_l"] == pytest.approx((4 / 7 + 1) / 3)


@pytest.mark.parametrize("scorer", [chrf, bleu, rouge_l])
def test_the_closest_of_several_answers_counts(scorer: object) -> None:
    examples = [Example((), "one two three four", references=("one two three four", "a b c d e")), *gold("x y z w v")]
    scores = scorer(examples, ["a b c d e", "x y z w v"])  # type: ignore[operator]
    assert scores.each == pytest.approx([1, 1])
    assert scores.means["corpus_bleu"] == pytest.approx(1)
    assert scores.means["corpus_chrf"] == pytest.approx(1)
    assert scores.means["exact_match"] == 1


def test_an_empty_prediction_is_worth_nothing() -> None:
    for scorer in (chrf, bleu, rouge_l):
        assert scorer(gold("some words"), [""]).each == [0]


def test_the_likelihood_of_texts() -> None:
    scores = log_likelihood(gold("", ""), ["[2.0, 4, 10]", "[6.0, 2, 6]"])
    assert scores.each == [-0.5, -3.0]
    expected = {
        "log_likelihood": -1.75,
        "perplexity": math.exp(8 / 6),
        "bits_per_byte": 8 / math.log(2) / 16,
    }
    assert scores.means == pytest.approx(expected)


# ---------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    ("prediction", "exact", "valid_json"),
    [
        ('{"intent":"A","slots":{"n":1}}', 1, 1),
        (' { "slots": {"n": 1},\n "intent": "A" } ', 1, 1),
        ('{"intent":"A","slots":{"n":2}}', 0, 1),
        ('{"intent":"A","slots":{"n":true}}', 0, 1),
        ('{"intent":"A","slots":{"n":"1"}}', 0, 1),
        ('{"intent":"A","slots":{"n":1},"more":0}', 0, 1),
        ('{"intent":"A","slots":{"n":1}} and so on', 0, 0),
        ('{"intent":"A","slots":{"n":NaN}}', 0, 0),
        ('{"intent":"A","slots":{"n":1', 0, 0),
        ("1", 0, 0),
        ("", 0, 0),
        ("[" * 100_000, 0, 0),
    ],
)
def test_json(prediction: str, exact: float, valid_json: float) -> None:
    scores = json_match(gold('{"intent":"A","slots":{"n":1}}'), [prediction])
    assert scores == Scores([exact], {"exact_match": exact, "valid_json": valid_json})


@pytest.mark.parametrize(
    ("beginning", "hopeless"),
    [
        ("", False),
        (" \n\t", False),
        ("Tea", True),
        (" [", True),
        ("\u00a0{", True),  # white space, but not JSON's
        ("\ufeff{", True),
        ("\ufffd", True),  # the first byte of some other sign than a brace
        ("{", False),
        ('{"a": {"b": 1}', False),
        ('{"a": "} x', False),
        ('{"a": 1} \n', False),
        ('{"a": 1} x', True),
        ('{"a": 1}{', True),
        ('{"a": NaN} x', True),
        ("{" * 100_000, False),
        ("{a", False),  # broken, but that is not looked for
    ],
)
def test_a_beginning_that_no_json_object_has(beginning: str, hopeless: bool) -> None:
    assert no_json_object(beginning) is hopeless


@given(st.text('{}[]":,1a \n', max_size=12), st.text('{}[]":,1a \n', max_size=12))
def test_what_is_hopeless_scores_nothing_whatever_follows(beginning: str, rest: str) -> None:
    if no_json_object(beginning):
        assert no_json_object(beginning + rest)
        for text in (beginning, beginning + rest, f"{beginning} …"):
            means = json_match(gold("{}"), [text], schema={}).means
            assert means == {"exact_match": 0, "valid_json": 0, "valid_schema": 0}


def test_json_that_a_schema_allows() -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 0}}}
    said = ['{"n":1}', '{"n":2,"m":0}', '{"n":-1}', "{}", "no"]
    scores = json_match(gold(*['{"n":1}'] * 5), said, schema=schema)
    assert scores == Scores([1, 0, 0, 0, 0], {"exact_match": 0.2, "valid_json": 0.8, "valid_schema": 0.4})


def test_scorers_can_be_pickled() -> None:
    for scorer in (accuracy, classification, matthews, exact_match, chrf, bleu, rouge_l, log_likelihood, json_match):
        assert pickle.loads(pickle.dumps(scorer)) is scorer
    with_schema = pickle.loads(pickle.dumps(partial(metrics.json_match, schema={"type": "object"})))
    assert with_schema(gold("{}"), ["{}"]).means["valid_schema"] == 1
