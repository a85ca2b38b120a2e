"""Near duplicates: records whose texts have most of their 5-grams of characters in common.

The likeness of two texts is the Jaccard index of their sets of 5-grams, |A ∩ B| / |A ∪ B|, white space collapsed and
case folded. Pairs are looked for by MinHash (rensa) with banding and then measured exactly, on 64-bit hashes of the
5-grams. Signatures of 25 bands × 5 miss a pair of likeness 0.8 with probability (1 - 0.8⁵)²⁵ = 5e-5.
Legend: N records, S numbers of a signature.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from rensa import RMinHash  # type: ignore[attr-defined]

THRESHOLD = 0.8  # likeness from which two records are near duplicates
SIZE = 5  # characters
BANDS, ROWS = 25, 5
MARGIN = 0.15  # four standard deviations of a likeness of 0.8 that is estimated by 125 numbers
BUCKET = 64  # the latest records of a bucket that are looked at: a prompt that all records share fills the buckets
CLOSEST = 3  # candidates that are measured exactly
# An odd multiplier and the powers of it: the polynomial hash of SIZE code points, modulo 2^64.
MULTIPLIER = 0x9E3779B97F4A7C15
POWERS = np.array([pow(MULTIPLIER, k, 2**64) for k in range(1, SIZE + 1)], dtype=np.uint64)


@dataclass(frozen=True)
class Near:
    """Record `index` is like the earlier record `other`."""

    index: int
    other: int
    likeness: float


def near_duplicates(records: Sequence[tuple[str, ...]], parts: Sequence[str]) -> Iterator[Near]:
    """For every record the closest earlier one of its own part, and of the other parts, where one is near enough.

    records: (N) the texts of each, equally many; all of them have to be near, the likeness is the smallest.
    parts: (N) the part of each. The answer is a function of the arguments.
    """
    if not records:
        return
    sides = [[shingles(texts[side]) for texts in records] for side in range(len(records[0]))]
    signatures = [minhash(sets) for sets in sides]
    buckets: list[dict[bytes, list[int]]] = [defaultdict(list) for _ in range(BANDS)]
    codes = np.unique(np.asarray(parts), return_inverse=True)[1]
    for i in range(len(records)):
        bands = [signatures[0][i, b * ROWS : (b + 1) * ROWS].tobytes() for b in range(BANDS)]
        found = {j for bucket, band in zip(buckets, bands) for j in bucket[band][-BUCKET:]}
        for bucket, band in zip(buckets, bands):
            bucket[band].append(i)
        if not found:
            continue
        candidates = np.array(sorted(found))
        estimate = np.min([(own[candidates] == own[i]).mean(1) for own in signatures], axis=0)
        same = codes[candidates] == codes[i]
        for group in (same, ~same):
            chosen, guess = candidates[group], estimate[group]
            order = np.argsort(-guess, kind="stable")[:CLOSEST]
            exact = [
                (min(jaccard(own[i], own[j]) for own in sides), -j)
                for j in chosen[order[guess[order] >= THRESHOLD - MARGIN]].tolist()
            ]
            if exact and max(exact)[0] >= THRESHOLD:
                likeness, other = max(exact)
                yield Near(i, -other, likeness)


def shingles(text: str) -> np.ndarray:
    """The hashes of a text's 5-grams, sorted, each once; a shorter text is one gram."""
    plain = " ".join(text.casefold().split()).ljust(SIZE)
    points = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    hashes = (sliding_window_view(points, SIZE) * POWERS).sum(1, dtype=np.uint64)
    return np.unique(hashes ^ (hashes >> np.uint64(32)))


def minhash(sets: Sequence[np.ndarray]) -> np.ndarray:
    """(N, S): the signatures of sets of hashes."""
    offsets = np.cumsum([0, *map(len, sets)]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(sets), offsets, BANDS * ROWS, 0)
    return np.array(matrix.to_rows(), dtype=np.uint32)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """|A ∩ B| / |A ∪ B| of two sets, given sorted."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)
