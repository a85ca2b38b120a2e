"""Certify deltatune: every law of every method on every architecture that can be built tiny.

    python -m tests.certify
    python -m tests.certify --models 'gemma*|nn:*' --methods 'Prompt|Prefix' --jobs 4 --out build/certify

writes a line a cell to OUT/cells.jsonl as it is done, and at the end OUT/table.jsonl and OUT/table.md; it ends with
1 where a cell is wrong. --resume goes on where a run stopped. --report reads OUT again without running anything.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from pathlib import Path

import torch

from tests.certify import table
from tests.certify.architectures import Architecture, architectures
from tests.certify.columns import Column, columns
from tests.certify.laws import LAWS
from tests.certify.pool import BUILD, results


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.certify", description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default="*", help="globs over the names of architectures, | between them")
    parser.add_argument("--methods", default="*", help="globs over the names of methods, | between them")
    parser.add_argument("--laws", default="*", help="globs over the names of laws, | between them")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds that one cell may take")
    parser.add_argument("--out", type=Path, default=Path("build/certify"))
    parser.add_argument("--resume", action="store_true", help="keep the cells that OUT holds")
    parser.add_argument("--report", action="store_true", help="read what OUT holds, and run nothing")
    return parser.parse_args()


def matches(name: str, globs: str) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs.split("|"))


def main() -> int:
    args = arguments()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / table.CELLS
    if not (args.resume or args.report):
        path.unlink(missing_ok=True)
    if not args.report:
        certify(args, path)
    cells = table.read(path)
    table.written(args.out, cells)
    print(table.summary(cells))
    return int(any(cell["outcome"] == "wrong" for cell in cells))


def certify(args: argparse.Namespace, path: Path) -> None:
    """Run what is wanted and not done yet, a line a cell."""
    done = {(c["architecture"], c["method"]): c["outcome"] for c in table.read(path)}
    every = [c for c in columns() if matches(c.name, args.methods)]
    laws = [law for law in LAWS if matches(law, args.laws)]

    def wanted(architecture: Architecture) -> list[Column]:
        if done.get((architecture.name, BUILD)) == "not built":
            return []
        return [c for c in every if (architecture.name, c.name) not in done]

    chosen = [a for a in architectures() if matches(a.name, args.models)]
    with path.open("a", encoding="utf-8") as f:
        for cell in results(chosen, wanted, args.jobs, args.limit, laws):
            f.write(json.dumps(cell, ensure_ascii=False) + "\n")
            f.flush()
            if cell["outcome"] in ("wrong", "not built"):
                print(f"{cell['architecture']} {cell['method']}: {cell['outcome']}: {cell['message']}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
