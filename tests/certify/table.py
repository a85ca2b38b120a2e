"""What a certification says: kinds of failure and refusal, and the table by architecture and method.

Equal messages are one kind: numbers, paths and names of classes in them are left out when they are compared.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from tests.certify import single
from tests.certify.cell import Cell
from tests.certify.pool import BUILD

CELLS, TABLE, PAGE = "cells.jsonl", "table.jsonl", "table.md"
METHOD_NAMES = r"LoRA|DoRA|Adapter|Prefix|Prompt|BitFit|IA3|Full|Head|Rows"


def kind(message: str) -> str:
    """A message without what differs from model to model."""
    text = re.sub(r"\([^()]*\d[^()]*\)|\[[^\[\]]*\d[^\[\]]*\]", "(…)", message)
    text = re.sub(r"[\w*]+(\.[\w*]+)+(?=[^\w*]|$)", "…", text)
    text = re.sub(rf"\b(?!(?:{METHOD_NAMES})\b)[A-Z][a-z0-9]*(?:[A-Z0-9][A-Za-z0-9]*)+\b", "…", text)
    text = re.sub(
        r"\b[A-Z]\w+\b", lambda word: "…" if hasattr(nn, word[0]) or hasattr(single, word[0]) else word[0], text
    )
    text = re.sub(r"\d[\d,.e+-]*", "n", text)
    return text[:300]


def read(path: Path) -> list[Cell]:
    """The cells of a file, the last of each where a cell was run again; a line cut short by a crash is left out."""
    cells: dict[tuple[str, str], Cell] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            cell = json.loads(line)
        except ValueError:
            continue
        cells[cell["architecture"], cell["method"]] = cell
    return list(cells.values())


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a written table."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def failures(cells: Iterable[Cell], outcome: str) -> list[str]:
    """A line for each kind: how many cells, which methods, an example, the message."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell["outcome"] == outcome:
            groups.setdefault((cell.get("law", ""), kind(cell["message"])), []).append(cell)
    lines = []
    for (law, message), group in sorted(groups.items(), key=lambda item: -len(item[1])):
        methods = ", ".join(f"{m} {n}" for m, n in Counter(c["method"] for c in group).most_common(6))
        names = ", ".join(dict.fromkeys(c["architecture"] for c in group[:4]))
        lines.append(f"{len(group):4d}  {law}: {message}  [{methods}; {names}]")
    return lines


def rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """A row an architecture: what it is, what was reached, and of every method its outcome; reasons as kinds."""
    named: dict[str, dict[str, Any]] = {}
    for cell in sorted(cells, key=lambda c: c["architecture"]):
        row = named.setdefault(cell["architecture"], {"name": cell["architecture"], "family": cell["family"]})
        if cell["method"] == BUILD:
            row |= {n: cell[n] for n in ("class", "parameters", "reach") if n in cell}
            if cell["outcome"] == "not built":
                row["not_built"] = cell["message"]
        else:
            told = "" if cell["outcome"] == "right" else f": {cell['law']}: {kind(cell['message'])}"
            row.setdefault("methods", {})[cell["method"]] = cell["outcome"] + told
    return list(named.values())


def written(folder: Path, cells: Sequence[Cell]) -> None:
    """The table as JSON lines, which the documentation is made from, and as Markdown to read."""
    table = rows(cells)
    text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in table)
    (folder / TABLE).write_text(text, encoding="utf-8")
    methods = list(dict.fromkeys(m for row in table for m in row.get("methods", {})))
    head = ["model", *methods, "reached"]
    body = ["| " + " | ".join(head) + " |", "|" + ":--|" * len(head)]
    for row in table:
        if "methods" in row:
            share = row.get("reach")
            reached = f"{share['covered']}/{share['maps']}" if share else ""
            outcomes = [row["methods"].get(m, "").partition(":")[0] for m in methods]
            body.append("| " + " | ".join([row["name"], *outcomes, reached]) + " |")
    (folder / PAGE).write_text("\n".join(body) + "\n", encoding="utf-8")


def summary(cells: Sequence[Cell]) -> str:
    """Counts, one line for each kind of failure, refusal and unbuilt model, and where little was reached."""
    outcomes = Counter(c["outcome"] for c in cells)
    built = [c for c in cells if c["outcome"] == "built"]
    low = sorted(
        (c["reach"]["covered"] / c["reach"]["maps"], c["architecture"], c["reach"])
        for c in built
        if c.get("reach", {}).get("maps") and c["reach"]["covered"] < 0.95 * c["reach"]["maps"]
    )
    parts = [
        f"{len(built)} models; cells: " + ", ".join(f"{outcomes[o]} {o}" for o in ("right", "refused", "wrong")),
        *section("wrong", failures(cells, "wrong")),
        *section("refused", failures(cells, "refused")),
        *section("not built", failures(cells, "not built")),
        *section("under 95 % reached", [f"{share:4.0%}  {name}: {r['left']}" for share, name, r in low]),
    ]
    return "\n".join(parts)


def section(title: str, lines: list[str]) -> list[str]:
    return [f"\n{title}: {len(lines)}", *lines] if lines else []
