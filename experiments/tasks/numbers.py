"""Numbers in answers: which one an answer gives, and whether two are the same, however they are written.

    1,000 = 1000 = 1000.0 = $1,000 = 1e3;  1/2 = 0.5 = 50%;  1 1/2 = 1.5;  -3 = −3

An answer's number is the one after "####" or "the answer is", else its last. Compared are exact fractions, so that no
rounding makes two numbers one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from experiments.tasks.base import Example, Scores, mean, of_each

MARK = re.compile(r"#{3,}")
PHRASE = re.compile(r"\banswer(?:\s+(?:is|equals))?\s*[:=]|\banswer\s+(?:is|equals)\b", re.IGNORECASE)
LATEX = ((r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}", r"\1/\2"), (r"\\[!,;: ]", ""), (r"\\([$%])", r"\1"))
DIGITS = r"(?:[0-9]{1,3}(?:[,\u00a0\u202f][0-9]{3})+(?![0-9])|[0-9]+)"
NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)\]%])[-+−–])?[ ]?(?P<money>[$€£])?[ ]?(?P<sign2>(?<=[$€£])[-−])?"
    rf"(?<![A-Za-z_])(?:(?P<whole>{DIGITS})[ ](?=[0-9]+/[0-9]))?"
    rf"(?P<top>{DIGITS}?\.[0-9]+|{DIGITS})(?P<power>[eE][-+]?[0-9]{{1,3}}(?![0-9A-Za-z]))?"
    rf"(?:[ ]?/[ ]?(?P<bottom>{DIGITS}(?:\.[0-9]+)?))?[ ]?(?P<percent>%|percent\b|per cent\b)?"
)
NO_NUMBER = re.compile(r"[\\^_{}]|[0-9][A-Za-z](?![A-Za-z])")  # an expression, of which a number is but a piece


@dataclass(frozen=True)
class Number:
    value: Fraction
    percent: bool = False

    def same(self, other: Number) -> bool:
        """Equal. Where one alone is a percentage it is that number, or its hundredth: 50% = 50 and 50% = 0.5."""
        if self.percent == other.percent:
            return self.value == other.value
        share, plain = (self, other) if self.percent else (other, self)
        return plain.value in (share.value, share.value / 100)


def number_of(text: str) -> Number | None:
    """The number that the answer gives, or None."""
    answer = answer_of(text)
    if answer is not None:
        return next(iter(numbers(answer)), None)
    found = numbers(text)
    return found[-1] if found else None


def answer_of(text: str) -> str | None:
    """The rest of the line after the first "####", or else after the last "answer is"; there, after the last "="."""
    mark = MARK.search(text)
    phrases = list(PHRASE.finditer(text))
    last = mark or (phrases[-1] if phrases else None)
    if last is None:
        return None
    line = text[last.end() :].strip().partition("\n")[0]
    return line.rpartition("=")[2].strip() if "=" in line else line


def gold_of(text: str) -> Number | None:
    """The number that a gold answer is, or None where it is another expression, as 3x or √2."""
    answer = plain(answer_of(text) or text)
    return None if NO_NUMBER.search(answer) and not NUMBER.fullmatch(answer) else number_of(text)


def numbers(text: str) -> list[Number]:
    return [one for match in NUMBER.finditer(plain(text)) if (one := _number(match)) is not None]


def plain(text: str) -> str:
    for pattern, instead in LATEX:
        text = re.sub(pattern, instead, text)
    return text


def _number(match: re.Match[str]) -> Number | None:
    """The number of a match; None where it is divided by zero."""
    top, bottom, whole = (_digits(match[name]) for name in ("top", "bottom", "whole"))
    bottom = Fraction(1) if bottom is None else bottom
    if top is None or bottom == 0:
        return None
    power = Fraction(10) ** int(match["power"][1:]) if match["power"] else Fraction(1)
    value = (whole or 0) + top * power / bottom
    negative = (match["sign"] or match["sign2"] or "") in tuple("-−–")
    return Number(-value if negative else value, bool(match["percent"]))


def _digits(text: str | None) -> Fraction | None:
    return None if text is None else Fraction(re.sub(r"[,\u00a0\u202f]", "", text))


def number_match(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """1 where the answer's number is an accepted one, however it is written: 1,000 = 1000.0 = $1,000 = 1e3.

    An accepted answer that is no number, as 3x, is compared as text. valid_number: share of answers that give one.
    """
    right = [any(_same_number(one, said) for one in e.accepted) for e, said in zip(examples, predictions)]
    same = (said.strip() in {one.strip() for one in e.accepted} for e, said in zip(examples, predictions))
    valid = mean(number_of(said) is not None for said in predictions)
    return of_each("number_match", right, valid_number=valid, exact_match=mean(same))


def _same_number(right: str, said: str) -> bool:
    gold, own = gold_of(right), number_of(said)
    if gold is None:
        return bool(said.strip()) and (answer_of(right) or right).strip(" .") == (answer_of(said) or said).strip(" .")
    return own is not None and own.same(gold)
