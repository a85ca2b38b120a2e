"""Everything that a command takes by name, as `python -m experiments.list` says it."""

from __future__ import annotations

from docs.generators.text import inline, page, table
from experiments.list import rows

OPTION = {
    "method": "`method=`",
    "task": "`task=`",
    "metric": "`task.metric=` of the user's own records",
    "objective": "`objective=`",
    "model": "`model=`, by the kind in its configuration",
    "tracker": "`tracker=`",
    "section": "the report, in this order",
}


def page_of_names() -> str:
    """A table for each kind, of the package's own names."""
    listed = rows()
    parts = []
    for kind in dict.fromkeys(kind for kind, *_ in listed):  # "metric (text)" is one of several for metrics
        lines = [
            [f"`{name}`", inline(about.removeprefix(f"{name}: "))] for each, name, about, _ in listed if each == kind
        ]
        parts += [f"## {kind}", f"Taken by {OPTION[kind.split()[0]]}.", table(["name", "what it is"], lines)]
    return page(
        "# Names",
        "Each of these names stands in one table, to which a [plugin](../extending/index.md) adds its own; "
        "`python -m experiments.list` prints them all.",
        *parts,
    )
