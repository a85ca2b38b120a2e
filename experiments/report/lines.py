"""Runs that differ by their seed alone make a line of a table: which learning rate is shown, means, terminal tables."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from experiments.store.tables import SWITCHED_OFF, size

Run = dict[str, Any]


def mark_chosen(runs: Sequence[Run], compared: dict[str, Any] | None) -> None:
    """Set `chosen` of every run: whether its learning rate is the one its method is shown at.

    That is the comparison's choice where there is one. Else, of a method's rates, the one with the most complete
    seeds, as whoever ran them chose it; among equals the one with the lowest mean validation loss. A search's runs are
    shown only where the method was not tested.
    """
    rates: dict[tuple[str, ...], dict[float | None, list[Run]]] = defaultdict(lambda: defaultdict(list))
    tested = {(run["task"], run["model"], run["method"]) for run in runs if run["split"] == "test"}
    for run in runs:
        run["chosen"] = False
        if run["split"] == "validation" and (run["task"], run["model"], run["method"]) in tested:
            continue
        rates[run["task"], run["model"], run["method"], run["variant"]][run["lr"]].append(run)
    for (task, model, method, _), by_rate in rates.items():
        decided = entry(compared, task, model, method)
        if decided is not None:
            for run in (run for group in by_rate.values() for run in group):
                run["chosen"] = _tested(run, decided)
            continue
        for run in max(by_rate.values(), key=_standing):
            run["chosen"] = True


def entry(compared: dict[str, Any] | None, task: str, model: str, method: str) -> dict[str, Any] | None:
    """The method's entry in the comparison's task, if it is of this model."""
    named = (compared or {}).get("tasks", {}).get(task, {})
    if named.get("model", model) != model:
        return None
    return next((item for item in named.get("methods", []) if item["method"] == method), None)


def _tested(run: Run, decided: dict[str, Any]) -> bool:
    """Whether the run is one of those that the entry's numbers are made of, by its key or, without keys, its numbers.

    A run of the search, at the same rate, is none of them.
    """
    if "keys" in decided:
        return run["key"] in decided["keys"]
    if run["status"] != "complete" or run["lr"] != decided["lr"]:
        return False
    value = run["quality"][run["metric"]]
    return any(abs(value - other) < 1e-9 for other in decided.get("seed_values", []))


def _standing(group: Sequence[Run]) -> tuple[int, float]:
    losses = [run["validation"].get("loss") for run in group if run["status"] == "complete"]
    known = [loss for loss in losses if loss is not None]
    return len(losses), -statistics.fmean(known) if known else float("-inf")


def lines(runs: Sequence[Run]) -> dict[tuple[Any, ...], list[Run]]:
    """Complete runs by task, model, method, variant and learning rate, in the order they came."""
    grouped: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        if run["status"] == "complete":
            grouped[run["task"], run["model"], run["method"], run["variant"], run["lr"]].append(run)
    return grouped


def compact_tables(runs: Sequence[Run]) -> list[Table]:
    """One table for each task and model: the shown lines' means over seeds, and every run that failed."""
    tables: dict[tuple[str, str], Table] = {}

    def table(run: Run) -> Table:
        place = run["task"], run["model"]
        if place not in tables:
            drifts = any(_drifts([other]) for other in runs if (other["task"], other["model"]) == place)
            caption = None if drifts else SWITCHED_OFF
            tables[place] = Table(title=f"{run['task']} · {run['model']}", caption=caption, caption_justify="left")
            headers = ("method", run.get("metric") or "quality", "± seeds", "seeds", "lr", "trainable", "per task")
            for header in (*headers, "training peak", "step", "drift of features" if drifts else "forgetting"):
                tables[place].add_column(header, justify="left" if header == "method" else "right", overflow="fold")
        return tables[place]

    shown = lines([run for run in runs if run["chosen"]]).values()
    for group in sorted(shown, key=_quality, reverse=True):
        table(group[0]).add_row(*_cells(group))
    for run in runs:
        if run["status"] != "complete":
            lr = "–" if run["lr"] is None else f"{run['lr']:g}"
            table(run).add_row(_label(run), "failed", "", f"seed {run['seed']}", lr, style="red")
    return list(tables.values())


def _label(run: Run) -> str:
    return f"{run['method']} ({run['variant']})" if run["variant"] else run["method"]


def _values(group: Sequence[Run]) -> list[float]:
    return [run["quality"][run["metric"]] for run in group]


def _quality(group: Sequence[Run]) -> float:
    return statistics.fmean(_values(group))


def _cells(group: Sequence[Run]) -> list[str]:
    first, n, values = group[0], len(group), _values(group)
    trained = first["parameters"]["trainable"] > 0

    def mean(name: str, part: str) -> float:
        return statistics.fmean(run[name][part] for run in group)

    return [
        _label(first),
        f"{_quality(group):z.3f}",
        f"{statistics.stdev(values):z.3f}" if n > 1 else "–",
        str(n),
        "–" if first["lr"] is None else f"{first['lr']:g}",
        f"{first['parameters']['trainable']:,}",
        size(first["bytes"]["delta"]) if trained else "–",
        size(mean("memory", "training_peak_bytes")) if trained else "–",
        f"{statistics.fmean(run['step_s'] for run in group):.2f} s" if trained else "–",
        _forgotten(group) if trained else "–",
    ]


def _forgotten(group: Sequence[Run]) -> str:
    """How many times the perplexity of general text is what it was; of an encoder the drift of its features."""
    probes = [run["forgetting"] for run in group if run.get("forgetting")]
    texts = [probe["text_perplexity"] for probe in probes if probe.get("text_perplexity")]
    if texts:
        return f"perplexity × {statistics.fmean(text['after'] / text['before'] for text in texts):.2f}"
    drifts = _drifts(group)
    return f"{statistics.fmean(drifts):z.3f}" if drifts else "–"


def _drifts(group: Sequence[Run]) -> list[float]:
    probes = [run["forgetting"] for run in group if run.get("forgetting")]
    return [probe["feature_drift"] for probe in probes if probe.get("feature_drift") is not None]
