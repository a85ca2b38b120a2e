"""Tables in markdown, and the still picture of a comparison."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.compare.plot import Point, label_points, plot
from experiments.store.tables import markdown_table, size


def test_a_markdown_table_has_a_rule_and_equal_lines() -> None:
    text = markdown_table(["method", "score"], [["lora", "0.5"], ["full", "–"]])
    assert text == "| method | score |\n| :-- | --: |\n| lora | 0.5 |\n| full | – |"


@pytest.mark.parametrize(("count", "said"), [(0, "0.0 KiB"), (4096, "4.0 KiB"), (3 * 2**30, "3,072.0 MiB")])
def test_sizes_have_a_unit(count: int, said: str) -> None:
    assert size(count) == said


def points(n: int) -> list[Point]:
    return [Point(10.0 ** (3 + (i * 7 % n) / n), 0.5 + 0.02 * (i * 5 % n), f"made-up {i}") for i in range(n)]


@pytest.mark.parametrize("n", [1, 5, 10])
def test_labels_cover_nothing(n: int) -> None:
    figure = Figure(figsize=(8, 5))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xscale="log", xlim=(1e2, 1e6), ylim=(0, 1))
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in label_points(axes, points(n))]
    dots = [axes.transData.transform((x, y)) for x, y, *_ in points(n)]
    assert len(boxes) == n
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert not any(box.contains(*dot) for dot in dots)


def contest(*perplexity: float | None) -> dict[str, Any]:
    """comparison.json of one untrained and one trained method, as far as the picture reads it."""
    one = {"mean": 0.5, "low": 0.4, "high": 0.6, "perplexity_before": 20.0}
    methods = [
        {**one, "method": f"made-up {i}", "trainable": i * 1000, "perplexity_after": after}
        for i, after in enumerate(perplexity)
    ]
    return {"tasks": {"made_up": {"metric": "exact_match", "methods": methods}, "untested": {"methods": []}}}


def shape(png: bytes) -> tuple[int, int]:
    """Width and height, from the head of the file."""
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_forgetting_has_panels_where_it_was_measured(tmp_path: Path) -> None:
    without = shape(plot(contest(None, None), tmp_path / "a.png").read_bytes())
    with_it = shape(plot(contest(20.0, 40.0), tmp_path / "b.png").read_bytes())
    assert with_it == (2 * without[0], without[1])


def test_a_plot_of_failures_alone_is_still_a_picture(tmp_path: Path) -> None:
    assert shape(plot(contest(), tmp_path / "p.png").read_bytes())[0] > 0
