"""How far two models must lie apart for a test on so many examples to tell them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import ndtri

ALPHA, POWER = 0.05, 0.8  # two-sided; the share of such tests that notice a difference of the size named


@dataclass(frozen=True)
class Resolution:
    """Of n examples: the largest standard error of a score and of a difference of two, paired on the examples.

    smallest: (z(1 − α/2) + z(POWER)) · difference_se, which a test at ALPHA notices in POWER of the cases.
    """

    n: int
    score_se: float
    difference_se: float

    @property
    def smallest(self) -> float:
        return float(ndtri(1 - ALPHA / 2) + ndtri(POWER)) * self.difference_se


def resolution(scores: Sequence[Sequence[float]]) -> Resolution:
    """What these models' scores, one a test example in the same order for all, leave open; of n ≥ 2 examples.

    A lone model is held to differ from another as if both were scored on examples of their own.
    """
    each = np.array(scores, dtype=float)
    score_se = max(map(standard_error, each))
    pairs = [standard_error(a - b) for a, b in combinations(each, 2)]
    return Resolution(each.shape[1], score_se, max(pairs, default=math.sqrt(2) * score_se))


def standard_error(values: np.ndarray) -> float:
    """s / √n; at least 1 / n, as though one example in n were otherwise: values all alike do not say that all are."""
    n = len(values)
    return max(float(values.std(ddof=1)) / math.sqrt(n), 1 / n)
