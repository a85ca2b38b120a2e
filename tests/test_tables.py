"""Tables in markdown, and the still picture of a comparison."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.plot import label_points, quality_plot
from experiments.rows import Row
from experiments.tables import markdown_table, size


def test_a_markdown_table_has_a_rule_and_equal_lines() -> None:
    text = markdown_table(["method", "score"], [["lora", "0.5"], ["full", "–"]])
    assert text == "| method | score |\n| :-- | --: |\n| lora | 0.5 |\n| full | – |"


@pytest.mark.parametrize(("count", "said"), [(0, "0.0 KiB"), (4096, "4.0 KiB"), (3 * 2**30, "3,072.0 MiB")])
def test_sizes_have_a_unit(count: int, said: str) -> None:
    assert size(count) == said


def points(n: int) -> list[tuple[float, float, str]]:
    return [(10.0 ** (3 + (i * 7 % n) / n), 0.5 + 0.02 * (i * 5 % n), f"made-up {i}") for i in range(n)]


@pytest.mark.parametrize("n", [1, 5, 10])
def test_labels_cover_nothing(n: int) -> None:
    figure = Figure(figsize=(8, 5))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xscale="log", xlim=(1e2, 1e6), ylim=(0, 1))
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in label_points(axes, points(n))]
    dots = [axes.transData.transform((x, y)) for x, y, _ in points(n)]
    assert len(boxes) == n
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert not any(box.contains(*dot) for dot in dots)


def test_a_plot_of_failures_alone_is_still_a_picture(tmp_path: Path) -> None:
    failed = Row("myth", "m", "t", 0, 0.1, 5, 3, failure="made-up failure")
    assert quality_plot([failed], tmp_path / "p.png", "made up").read_bytes().startswith(b"\x89PNG")
