"""Rows, tables and plots from made-up result files."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments import tables
from experiments.plot import label_points, quality_plot
from experiments.rows import Row, row
from tests.made_up import UNTRAINED, made_up, put


def test_the_markdown_report(tmp_path: Path) -> None:
    results = [
        made_up("hush", **UNTRAINED),
        made_up("fable"),
        made_up("myth", status="failed", error="step 4: the loss\nis nan"),
    ]
    rows = [row(put(tmp_path, result)) for result in results]
    rows[1] = rows[1].noted("a note on fable")
    tables.write_markdown(tmp_path / "report.md", "Made up", "Made by hand.", rows, tmp_path / "p.png", "## More")
    text = (tmp_path / "report.md").read_text()
    table = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert [cell.strip() for cell in table["fable *"].strip("|").split("|")][1:] == [
        "0.250", "0.875", "1,000", "12.500%", "4.0 KiB", "12.50%", "300.0 MiB", "20.0 MiB", "0.75 s", "42 s",
        "0.01",
    ]  # fmt: skip
    assert table["hush"].count("–") == 6
    assert "| failed |" in table["myth"]
    assert len({line.count("|") for line in table.values()}) == 1
    for said in (
        "- * fable: a note on fable",
        "- myth failed: step 4: the loss is nan",
        "made-up base (no weights)",
        "steps: 11 of batch 3; seed 7",
        "16 test examples",
        "c0ffee with local changes",
        "made-up CPU, 5 threads",
        "standard error is up to 0.125",
        "](p.png)",
        "## More",
    ):
        assert said in text


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
