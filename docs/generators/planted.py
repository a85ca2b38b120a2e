"""What the statistics of a comparison did on studies whose truth is known, from benchmarks/results."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from benchmarks.command import RESULTS
from benchmarks.planted_studies import NAME
from docs.generators.text import page, table

Line = dict[str, Any]
HEADERS = (
    *("scores", "clusters", "seeds", "studies with a false “better”", "intervals that hold the truth"),
    *("a false “equivalent” at the margin", "the smallest difference is found"),
)


def page_of_planted() -> str:
    """A line for each kind of scores, clusters and number of seeds: the range over all shares of seed variance."""
    content = json.loads((RESULTS / NAME).read_text(encoding="utf-8"))
    kinds: dict[tuple[Any, ...], list[Line]] = {}
    for line in content["designs"]:
        kind = (line["binary"], line["clusters"], line["uneven"], line["bare"], line["seeds"])
        kinds.setdefault(kind, []).append(line)
    rows = [row(kind, lines) for kind, lines in sorted(kinds.items())]
    about = (
        f"{content['studies']:,} studies of each design, by `python -m benchmarks.planted_studies`: seed "
        f"{content['seed']}, sources `{content['sources_sha256'][:12]}`."
    )
    return page(table(HEADERS, rows), about)


def row(kind: tuple[Any, ...], lines: list[Line]) -> list[str]:
    """The ranges of one kind."""
    binary, clusters, uneven, bare, seeds = kind
    equal, lifted = ([line for line in lines if bool(line["lift"]) is is_lifted] for is_lifted in (False, True))
    scores = "0 or 1" if binary else "any, no example harder than another" if bare else "any"
    return [
        scores,
        f"{clusters}{', of unlike sizes' * uneven}" if clusters else "–",
        str(seeds),
        extent(line["false_better"] for line in lines),
        extent(line["coverage"] for line in equal),
        extent(line["false_equivalent"] for line in lifted),
        extent(line["power"] for line in lifted),
    ]


def extent(shares: Iterable[float | None]) -> str:
    """The least and the most, in percent."""
    known = [share for share in shares if share is not None]
    if not known:
        return "–"
    low, high = (f"{100 * share:.1f}" for share in (min(known), max(known)))
    return f"{low} %" if low == high else f"{low} to {high} %"
