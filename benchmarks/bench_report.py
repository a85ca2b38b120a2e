"""The report: from the files of runs to its HTML page, milliseconds by the number of runs; the page's size.

    python -m benchmarks.bench_report [--quick] [--runs 20 200]

The runs are made up: two tasks or more, 250 training steps and 200 predictions each.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.command import Case, finish, parser, run, settle
from benchmarks.made_up_study import study
from benchmarks.timing import Timed
from experiments.report import gather, write

NAME = "bench_report"
TASKS = ("ha_json", "sql", "style", "domain")


def cases(options: Any) -> Iterator[Case]:
    with TemporaryDirectory() as folder:
        study(Path(folder) / "runs", tasks=TASKS, seeds=6)
        found, page = sorted((Path(folder) / "runs").iterdir()), Path(folder) / "report.html"
        for n in options.runs:
            if n > len(found):
                raise SystemExit(f"--runs {n}: there are {len(found)} made-up runs")

            def build(n: int = n) -> int:
                return write(gather(found[:n], title="Made up"), page)

            providers = {"ours": Timed(build, saved_bytes=build())}
            yield Case("report", f"{n} runs", providers, median=True, clock="wall")


def main(argv: list[str] | None = None) -> int:
    made = parser(NAME, __doc__ or "", repeats=5, threads=[1])
    made.add_argument("--runs", type=int, nargs="+", default=[20, 200], help="how many (default: %(default)s)")
    return finish(run(NAME, cases, settle(made.parse_args(argv))))


if __name__ == "__main__":
    sys.exit(main())
