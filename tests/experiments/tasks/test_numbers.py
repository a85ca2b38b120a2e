"""Numbers as they are written, and which of an answer's numbers is the answer."""

from __future__ import annotations

from fractions import Fraction

import pytest

from experiments.tasks.base import Example
from experiments.tasks.metrics import METRICS, number_match
from experiments.tasks.numbers import number_of

SAME = [
    ["1000", "1,000", "1000.0", "$1,000", "1e3", "1.0E+3", "1\u00a0000", "1000.", "$1,000.00", "1000 kg", "**1000**"],
    ["0.5", "1/2", ".5", "50%", "0.50", "2/4", "50 percent", "\\frac{1}{2}", "\\dfrac{1}{2}", "5e-1", "1 / 2"],
    ["-3", "\u22123", "\u20133", "-3.0", "-$3", "$-3", "(-3)", "x = -3", "-6/2", "-300%"],
    ["1.5", "1 1/2", "3/2", "$1.50"],
    ["50", "50%", "50 %", "$50", "50.00", "5e1", "50 per cent", "50\\%", "\\$50"],
    ["1234567.89", "1,234,567.89", "$1,234,567.89", "\u20ac1,234,567.89"],
    ["0", "-0", "0.0", "$0", "0/5", "0%"],
]  # fmt: skip
DIFFERENT = [
    ("1000", "100"), ("1000", "1000.5"), ("1000", "1e4"), ("3", "-3"), ("0.5", "5"), ("50%", "0.5%"), ("1/2", "2/1"),
    ("1.5", "1.05"), ("10", "1/0"), ("5", "no number"), ("5", ""), ("100", "1,00"), ("12", "1 2"), ("3", "three"),
    ("9007199254740993", "9007199254740992"), ("0.1", "0.10000000000000001"),
]  # fmt: skip


def matches(gold: str, said: str) -> bool:
    return number_match([Example(completion=gold)], [said]).each == [1.0]


@pytest.mark.parametrize(("gold", "said"), [(a, b) for same in SAME for a in same[:1] for b in same])
def test_one_number_in_many_ways(gold: str, said: str) -> None:
    for answer in (
        said,
        f"{said}.",
        f" {said}\n",
        f"#### {said}",
        f"It is 7 at first, then {said}.",
        f"The answer is: {said}",
    ):
        assert matches(gold, answer), answer
    assert matches(f"6 + 7 = 13, so\n#### {gold}", said)


@pytest.mark.parametrize(("gold", "said"), DIFFERENT)
def test_others_are_others(gold: str, said: str) -> None:
    assert not matches(gold, said)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("He has 3 + 4 = 7 apples", 7),
        ("10 - 4 = 6", 6),
        ("10 -4", -4),
        ("from 3-5", 5),
        ("<<3*4=12>>12 in all\n#### 12", 12),
        ("#### 12\n\nQuestion: How many of 99?\n#### 13", 12),
        ("The answer is 5 + 3 = 8", 8),
        ("So the answer is 8, because there are 3 left.\n", 8),
        ("To find the answer, add 3 and 4 to get 7.", 7),
        ("The answer is: $18 a day\nQ: 5?", 18),
        ("Answer: 42", 42),
        ("answer = 42", 42),
        ("The answer is:\n42", 42),
        ("The answer is unknown, 3 or so", 3),
        ("\\boxed{72}", 72),
        ("2:1, or 3 to 4", 4),
        ("H2O and 5km", 5),
        ("1, 2, 3", 3),
        ("12,34", 34),
        ("$5-$3", 3),
        ("no numbers", None),
        ("", None),
        ("#### none", None),
    ],
)
def test_which_number_is_the_answer(text: str, value: float | None) -> None:
    found = number_of(text)
    assert (found.value if found else None) == (None if value is None else Fraction(value))


def test_what_is_no_number_is_compared_as_text() -> None:
    assert matches("The answer is: 3x", "So it is.\nThe answer is: 3x")
    assert not matches("The answer is: 3x", "The answer is: 3")
    assert not matches("The answer is: \\sqrt{2}", "The answer is: 2")
    assert not matches("The answer is: 3x", "")
    assert matches("#### 5 km", "5")


def test_the_metric_is_one_of_a_table_and_says_how_many_are_numbers() -> None:
    metric = METRICS["generate"]["number"]
    scores = metric.scorer([Example(completion="#### 7"), Example(completion="8", references=("8", "9"))], ["x", "9.0"])
    assert scores.each == [0, 1]
    assert scores.means == {metric.main: 0.5, "valid_number": 0.5, "exact_match": 0}
