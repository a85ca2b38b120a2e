"""What was certified, from the committed table of `python -m tests.certify`: counts, refusals, and what was reached."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from docs.generators.text import ROOT, inline, page, table

TABLE = ROOT / "tests" / "certify" / "results" / "table.jsonl"
OUTCOMES = ("right", "refused", "wrong")
ENOUGH = 0.95  # of a model's linear maps


def page_of_certified() -> str:
    """Counts by family and by method, every reason for a refusal, and the models that are not reached whole."""
    rows = [json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()]
    built = [row for row in rows if "methods" in row]
    return page(
        f"{len(built)} models and single layers were built, of {len(rows)} tried. A cell is a method on one of them.",
        "### By family",
        by_family(rows),
        "### By method",
        by_method(built),
        *reasons(built, "refused", "### Why a method is refused"),
        *reasons(built, "wrong", "### What is wrong"),
        "### What LoRA's usual sites reach",
        *reached(built),
        "### The models",
        models(built),
    )


def outcome(text: str) -> str:
    return text.partition(":")[0]


def by_family(rows: list[dict[str, Any]]) -> str:
    lines = []
    for family in dict.fromkeys(row["family"] for row in rows):
        mine = [row for row in rows if row["family"] == family]
        counts = Counter(outcome(text) for row in mine for text in row.get("methods", {}).values())
        tried, built = str(len(mine)), str(sum("methods" in row for row in mine))
        lines.append([family, tried, built, *(str(counts[o]) for o in OUTCOMES)])
    return table(["family", "tried", "built", *OUTCOMES], lines)


def by_method(rows: list[dict[str, Any]]) -> str:
    methods = dict.fromkeys(m for row in rows for m in row["methods"])
    counts = {m: Counter(outcome(row["methods"][m]) for row in rows if m in row["methods"]) for m in methods}
    return table(["method", *OUTCOMES], [[m, *(str(counts[m][o]) for o in OUTCOMES)] for m in methods])


def reasons(rows: list[dict[str, Any]], which: str, heading: str) -> list[str]:
    """A line a reason, with how many cells, the methods, and up to three models; none where there are no such cells."""
    cells: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        for method, text in row["methods"].items():
            if outcome(text) == which:
                cells.setdefault(text.split(": ", 2)[-1].lstrip("…: ").strip() or text, []).append(
                    (method, row["name"])
                )
    lines = [
        [
            str(len(group)),
            ", ".join(dict.fromkeys(method for method, _ in group)),
            inline(reason),
            ", ".join(f"`{name}`" for name in list(dict.fromkeys(name for _, name in group))[:3]),
        ]
        for reason, group in sorted(cells.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return [heading, table(["cells", "methods", "reason", "such as"], lines)] if lines else []


def reached(rows: list[dict[str, Any]]) -> list[str]:
    """How many models are reached, and what is left out of the others, by kind of layer."""
    told = [row for row in rows if row.get("reach", {}).get("maps")]
    low = [row for row in told if row["reach"]["covered"] < ENOUGH * row["reach"]["maps"]]
    lines = [
        [
            f"`{row['name']}`",
            f"{row['reach']['covered']} of {row['reach']['maps']}",
            str(row["reach"].get("silent", "–")),
            inline("; ".join(f"{n} × {place}" for place, n in row["reach"]["left"].items())),
        ]
        for row in sorted(low, key=lambda row: row["reach"]["covered"] / row["reach"]["maps"])
    ]
    return [
        f"Of {len(told)} models {len(told) - len(low)} are reached in {ENOUGH:.0%} or more of their linear maps, "
        "experts and convolutions included, token tables and the output head aside. What is left out of the others:",
        table(["model", "reached", "not said by the plan", "left out"], lines),
    ]


def models(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        counts = Counter(outcome(text) for text in row["methods"].values())
        lines.append([f"`{row['name']}`", f"`{row['class']}`", *(str(counts[o]) for o in OUTCOMES)])
    return table(["model", "class", *OUTCOMES], lines)
