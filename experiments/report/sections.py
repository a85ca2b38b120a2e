"""The table of the report's sections, in their order on the page; plugins add theirs at its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from experiments.config.table import Table


@dataclass(frozen=True)
class Section:
    """One section of the page.

    draw: a function of all runs, for a plugin's; None: the page's own script draws it, anew after each filter.
    per_place: whether it shows one task and model at a time.
    """

    heading: str
    about: str
    per_place: bool = False
    draw: Callable[[Sequence[Mapping[str, Any]]], Any] | None = None


SECTIONS: Table[Section] = Table(
    "section",
    {
        "comparison": Section("Comparison", "Methods in a table: means, intervals, letters, costs."),
        "plan": Section("Plan and departures", "What was planned before the first run, and what departed from it."),
        "tradeoffs": Section("Quality against cost", "Quality against parameters, bytes, memory, time.", True),
        "along": Section(
            "Quality along the training", "The validation score over steps, examples, FLOPs, seconds.", True
        ),
        "learning": Section("Learning curves", "Training loss over steps.", True),
        "rates": Section("Learning rates", "Quality and loss over learning rates.", True),
        "search": Section("The search", "The best to be expected of so many trials, and what they cost.", True),
        "forgotten": Section("Forgetting", "What the model knew before and after.", True),
        "frontier": Section(
            "Quality against forgetting", "Each method's frontier, and methods at equal quality.", True
        ),
        "weights": Section("Weights", "What became of the weight matrices: norm, ranks, intruders.", True),
        "sequences": Section("Task after task", "Scores on every task after each stage of a sequence."),
        "ledger": Section("Where time goes", "Seconds by phase, and what a method costs.", True),
        "samples": Section("Predictions", "Test prompts with the methods' answers side by side.", True),
        "failures": Section("Failed runs", "The runs that failed, and why."),
        "every-run": Section("Runs", "Every run with its settings."),
    },
    about=lambda section: section.about,
)
Draw = TypeVar("Draw", bound=Callable[[Sequence[Mapping[str, Any]]], Any])


def section(name: str, heading: str) -> Callable[[Draw], Draw]:
    """Add a section to the page, as a decorator of a function of all runs that gives HTML or a plotly figure.

    A run is a result with its configuration in dotted keys. HTML is shown without its scripts; text that a run left
    must be escaped (html.escape). Where the function gives None the section is left out.
    """

    def add(draw: Draw) -> Draw:
        about = (draw.__doc__ or "").strip().partition("\n")[0]
        SECTIONS.add(name, Section(heading, about, draw=draw))
        return draw

    return add


def drawn(runs: Sequence[Mapping[str, Any]], configs: Sequence[Any], warnings: list[str]) -> list[dict[str, Any]]:
    """The sections as the page reads them. One whose function fails becomes a warning.

    runs: those of the page, `config` an index into configs.
    """
    whole = [{**run, "config": configs[run["config"]]} for run in runs]
    shown = []
    for name, each in SECTIONS.items():
        entry: dict[str, Any] = {"id": name, "heading": each.heading, "per_place": each.per_place}
        if each.draw is not None:
            try:
                entry |= content(each.draw(whole))
            except Exception as error:  # whatever the user's code raises
                where = SECTIONS.origins[name]
                warnings.append(f"section {name!r}, {where}: {type(error).__name__}: {error}; it is left out")
                continue
        shown.append(entry)
    return shown


def content(result: Any) -> dict[str, Any]:
    """What a section's function gave, as plain values."""
    if result is None:
        return {"html": None}
    if isinstance(result, str):
        return {"html": result}
    if hasattr(result, "to_json"):  # a plotly figure
        return {"figure": json.loads(result.to_json())}
    if isinstance(result, Mapping) and "data" in result:
        return {"figure": json.loads(json.dumps(result))}
    raise TypeError(f"a section is HTML, a plotly figure or None, not {type(result).__name__}")
