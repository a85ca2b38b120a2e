"""The picture of a comparison, a row a task: the score against trainable parameters and against what was forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import LogFormatter
from matplotlib.transforms import Bbox

# Where a label may stand, in points from its dot: beside, above, below, then further out.
PLACES = [(dx * far, dy * far) for far in (1, 2, 3) for dx, dy in ((8, 0), (-8, 0), (0, 11), (0, -11))] + [
    (dx, dy) for dy in (24, -24, 40, -40, 56, -56) for dx in (16, -16, 40, -40)
]


class Point(NamedTuple):
    x: float
    y: float
    text: str
    colour: str = "black"


def plot(comparison: dict[str, Any], path: Path) -> Path:
    """Draw comparison.json's tasks at `path` (PNG) and return it; bars are the 95 % intervals of its tables."""
    tasks = {name: task for name, task in comparison["tasks"].items() if task["methods"]}
    forgets = any(item["perplexity_after"] is not None for task in tasks.values() for item in task["methods"])
    columns = 2 if forgets else 1
    figure = Figure(figsize=(5.5 * columns, max(1, len(tasks)) * 3.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    drawn: list[tuple[Axes, list[Point]]] = []
    for number, (name, task) in enumerate(tasks.items()):
        trained = [item for item in task["methods"] if item["trainable"]]
        measured = [item for item in trained if item["perplexity_after"] is not None]
        panels = {
            "trainable parameters": [(item["trainable"], item) for item in trained],
            "general text: perplexity after / before": [
                (item["perplexity_after"] / item["perplexity_before"], item) for item in measured
            ],
        }
        for column, (label, points) in enumerate(list(panels.items())[:columns]):
            axes = figure.add_subplot(len(tasks), columns, number * columns + column + 1)
            axes.set(xscale="log", xlabel=label, title=name)
            if column:
                for formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
                    formatter(LogFormatter(minor_thresholds=(2, 0.5)))
            drawn.append((axes, panel(axes, task, points)))
    figure.draw_without_rendering()  # settles where the panels stand, which the labels need
    for axes, points in drawn:
        label_points(axes, points)
    figure.savefig(path)
    return path


def panel(axes: Axes, task: dict[str, Any], points: list[tuple[float, dict[str, Any]]]) -> list[Point]:
    """Dots with bars for the trained methods, dashed lines for what is not trained; the dots, to be named."""
    axes.set_ylabel(f"{str(task['metric']).replace('_', ' ')} (test)")
    for item in task["methods"]:
        if not item["trainable"]:
            axes.axhline(item["mean"], color="0.55", linestyle="--", linewidth=1)
            place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "xytext": (-4, 3)}
            axes.annotate(
                f"{item['method']} (untrained)", (1, item["mean"]), **place, ha="right", color="0.4", fontsize=8
            )
    names = sorted(item["method"] for item in task["methods"])  # so that a method has one colour in all panels
    if points:
        least, most = min(x for x, _ in points), max(x for x, _ in points)
        room = max(1.5, (most / least) ** 0.15)
        axes.set_xlim(least / room, most * room)
    dots = []
    for x, item in points:
        colour = f"C{names.index(item['method']) % 10}"
        bar = [[item["mean"] - item["low"]], [item["high"] - item["mean"]]]
        axes.errorbar(x, item["mean"], bar, fmt="o", color=colour, markersize=5, capsize=2, zorder=3)
        dots.append(Point(x, item["mean"], item["method"], colour))
    if all(item["low"] > -0.01 and item["high"] < 1.01 for item in task["methods"]):
        axes.set_ylim(-0.05, 1.05)
    axes.grid(alpha=0.3)
    return dots


def label_points(axes: Axes, points: Sequence[Point]) -> list[Annotation]:
    """Name each point; no label covers a dot, another label or the frame while there is room."""
    dots = [axes.transData.transform((x, y)) for x, y, *_ in points]
    taken = [Bbox.from_extents(x - 7, y - 7, x + 7, y + 7) for x, y in dots]
    taken += [text.get_window_extent() for text in axes.texts]
    taken += [line.get_window_extent() for line in axes.lines]
    frame = axes.get_window_extent()
    labels: list[Annotation] = []
    for x, y, text, colour in points:
        label = axes.annotate(
            text, (x, y), xytext=PLACES[0], textcoords="offset points", va="center", fontsize=9, color=colour
        )
        for dx, dy in PLACES:
            label.set_position((dx, dy))
            label.set_horizontalalignment("center" if dx == 0 else "left" if dx > 0 else "right")
            box = label.get_window_extent()
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(label.get_window_extent())
        labels.append(label)
    return labels
