"""The command: python -m experiments.report DIR... [--comparison FILE] [--out report.html]."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.config.plugins import load, load_installed
from experiments.report.content import gather
from experiments.report.lines import compact_tables
from experiments.report.page import write
from experiments.store.tables import ending, terminal
from experiments.support.output import lasting_output


def main(argv: Sequence[str] | None = None) -> int:
    """Gather the runs under the folders, print them as tables, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m experiments.report", description=main.__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders that hold runs, at any depth")
    parser.add_argument(
        "--comparison", type=Path, help="comparison.json of experiments.compare; else one found in the folders"
    )
    parser.add_argument("--title", help="of the page; else the comparison's, or the folders' names")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the file to write (%(default)s)")
    parser.add_argument("--plugins", nargs="+", default=[], help="modules or files of one's own that add sections")
    given = parser.parse_args(argv)
    load(given.plugins, key="--plugins")
    load_installed()
    console = terminal()
    content = gather(given.folders, given.comparison, given.title)
    for table in compact_tables(content["runs"]):
        console.print(table)
    for line in content["warnings"]:
        console.print(f"warning: {line}", markup=False, style="yellow")
    size = write(content, given.out)
    console.print(f"report: {given.out} ({size / 2**20:.1f} MiB)", markup=False)
    return 0


if __name__ == "__main__":
    lasting_output()
    raise SystemExit(ending(main))
