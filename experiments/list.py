"""Everything that a run, a comparison or a report can be given by name, the plugins' included.

    python -m experiments.list
    python -m experiments.list task method plugins=[mine]

A line each: the kind, the name, what it is, and where it comes from.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Lines

from experiments.config import plugins
from experiments.config.table import TABLES, Origin, PluginError
from experiments.store.tables import ending, terminal
from experiments.support.output import lasting_output

ROOMS = {  # the module of each kind's tables, in the order of the list
    "method": "experiments.config.methods",
    "task": "experiments.config.tasks",
    "metric": "experiments.tasks.metrics",
    "objective": "experiments.objectives",
    "model": "experiments.models.table",
    "tracker": "experiments.training.tracker_table",
    "section": "experiments.report.sections",
}


def rows(kinds: Sequence[str] = ()) -> list[tuple[str, str, str, str]]:
    """Kind, name, what it is, where it comes from; of these kinds, or all. Objectives alone wait for torch."""
    if unknown := [kind for kind in kinds if kind not in ROOMS]:
        raise PluginError(f"no kind {unknown[0]!r}; there are: {', '.join(ROOMS)}")
    rooms = [room for kind, room in ROOMS.items() if not kinds or kind in kinds]
    for room in rooms:
        import_module(room)
    return [
        (table.kind, name, table.about(entry), where(table.origins.get(name)))
        for room in rooms
        for table in TABLES
        if table.room == room
        for name, entry in table.items()
    ]


def where(origin: Origin | None) -> str:
    """The package, or the plugin with its line, and of an installed one the distribution."""
    if origin is None:
        return "package"
    entry = plugins.installed().get(origin.plugin)
    if entry is None:
        return f"plugin {origin.plugin} ({origin})"
    return f"entry point {origin.plugin} of {entry.dist.name if entry.dist else entry.value} ({origin})"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.list", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="KIND", help="of these kinds alone; or plugins=[…]")
    words = parser.parse_args(argv).words
    plugins.load_for(words)
    show(rows([word for word in words if "=" not in word]), terminal())
    return 0


def show(listed: Sequence[tuple[str, str, str, str]], console: Console) -> None:
    lines = Lines("kind", "name", "what it is", "from", box=None)
    for row in listed:
        lines.add_row(*map(escape, row))
    console.print(lines)


if __name__ == "__main__":
    lasting_output()
    raise SystemExit(ending(main))
