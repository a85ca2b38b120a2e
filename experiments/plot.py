"""The picture of a comparison: quality against trainable parameters, every point named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from experiments.rows import Row

# Where a label may stand, in points from its dot: beside, above, below, then further out.
PLACES = [(dx * far, dy * far) for far in (1, 2, 3) for dx, dy in ((8, 0), (-8, 0), (0, 11), (0, -11))] + [
    (dx, dy) for dy in (24, -24, 40, -40, 56, -56) for dx in (16, -16, 40, -40)
]


def quality_plot(rows: Sequence[Row], path: Path, title: str) -> Path:
    """Draw the complete runs at `path` (PNG) and return it; untrained, a dashed line, as log x has no 0."""
    done = [row for row in rows if row.failure is None]
    trained = sorted((row for row in done if not row.untrained), key=lambda row: row.trainable)
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    for row in done:
        if row.untrained:
            axes.axhline(row.score, color="0.55", linestyle="--", linewidth=1)
            place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "xytext": (-4, 3)}
            axes.annotate(f"{row.method} (untrained)", (1, row.score), **place, ha="right", color="0.4", fontsize=8)
    colours = [f"C{number % 10}" for number in range(len(trained))]
    axes.scatter([row.trainable for row in trained], [row.score for row in trained], s=36, c=colours, zorder=3)
    metrics = " / ".join(dict.fromkeys(row.metric.replace("_", " ") for row in done))
    axes.set(xlabel="trainable parameters", ylabel=f"{metrics} (test)", title=title, ylim=(-0.05, 1.05))
    axes.margins(x=0.15)
    axes.grid(alpha=0.3)
    figure.draw_without_rendering()
    labels = label_points(axes, [(row.trainable, row.score, row.label) for row in trained])
    for label, colour in zip(labels, colours):
        label.set_color(colour)
    figure.savefig(path)
    return path


def label_points(axes: Axes, points: Sequence[tuple[float, float, str]]) -> list[Annotation]:
    """Name each (x, y, text); no label covers a dot, another label or the frame while there is room."""
    dots = [axes.transData.transform((x, y)) for x, y, _ in points]
    taken = [Bbox.from_extents(x - 7, y - 7, x + 7, y + 7) for x, y in dots]
    taken += [text.get_window_extent() for text in axes.texts]
    taken += [line.get_window_extent() for line in axes.lines]
    frame = axes.get_window_extent()
    labels: list[Annotation] = []
    for x, y, text in points:
        label = axes.annotate(text, (x, y), xytext=PLACES[0], textcoords="offset points", va="center", fontsize=9)
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
