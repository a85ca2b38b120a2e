"""Whether the statistics of a comparison keep what they promise, on studies whose truth is known:

    python -m benchmarks.planted_studies                 # benchmarks/results/planted-studies.json; some minutes
    python -m benchmarks.planted_studies --studies 50    # a first look, in runs/benchmarks

Six methods, 1,000 studies of each design. Of equal methods: the share of studies in which any is called better, which
may be 5 %, and how many of the pairs' 95 % intervals hold the truth. Then the first method is better by as much as the
study says that it would find, and that is the margin too: how often it is found, and how often called equivalent.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.planted import Design, outcome
from experiments.support.files import write_json

ROOT = Path(__file__).parents[1]
NAME = "planted-studies.json"
STATISTICS = ("crossed", "letters", "scores", "statistics", "verdicts")
STUDIES = 1000
SEED_SHARES, SEEDS = (0.0, 0.02, 0.1, 0.3, 0.48), (3, 5, 10)
MOST_LIFT = 0.33  # binary scores lifted further would be near the most there is


def designs() -> Iterator[Design]:
    """Every design of equal methods."""
    for seeds in SEEDS:
        for share in SEED_SHARES:
            for binary in (True, False):
                yield Design(share, seeds, binary, n=150)
                yield Design(share, seeds, binary, n=150, clusters=10, icc=0.5)
                if share in (0.02, 0.3):
                    yield Design(share, seeds, binary, n=160, clusters=40, icc=0.3, uneven=True)
            if share <= 0.02:
                yield Design(share, seeds, False, n=150, bare=True)


def is_lifted(design: Design) -> bool:
    """Whether the design is carried out with a better method too."""
    return design.clusters != 40 and not design.bare and design.seed_share in (0.0, 0.02, 0.3)


def measured(design: Design, number: int, seed: int) -> list[dict[str, Any]]:
    """The lines of a design: of equal methods, and of one that is better."""
    equal = asdict(outcome(design, number, seed))
    kept = {name: equal[name] for name in ("false_better", "coverage", "smallest")}
    lines = [asdict(design) | {"margin": None} | kept]
    if is_lifted(design):
        lift = min(equal["smallest"], MOST_LIFT) if design.binary else equal["smallest"]
        shares = asdict(outcome(replace(design, lift=lift), number, seed + 1, margin=lift))
        power = shares["power"] if lift == equal["smallest"] else None
        lines.append(asdict(replace(design, lift=lift)) | {"margin": lift} | shares | {"power": power})
    return lines


def sources_sha256() -> str:
    """The hash of what was examined: the statistics and the studies themselves."""
    files = [ROOT / "experiments" / "compare" / f"{name}.py" for name in STATISTICS]
    files.append(Path(__file__).with_name("planted.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.planted_studies", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--studies", type=int, default=STUDIES, help="of each design (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=13)
    options = parser.parse_args(argv)
    folder = Path(__file__).with_name("results") if options.studies >= STUDIES else Path("runs", "benchmarks")
    folder.mkdir(parents=True, exist_ok=True)
    about = {"sources_sha256": sources_sha256(), "studies": options.studies, "seed": options.seed}
    lines: list[dict[str, Any]] = []
    for number, design in enumerate(designs()):
        lines += measured(design, options.studies, 1000 * options.seed + 2 * number)
        print(json.dumps(lines[-1]), flush=True)
        write_json(folder / NAME, about | {"designs": lines})  # what is cut off keeps the designs it has
    print(folder / NAME)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
