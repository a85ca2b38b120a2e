"""Sections of the report: the package's are drawn by the page's script, a plugin's are shown and cannot act."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.made_up_study import study
from experiments import ROOT
from experiments.report import gather, write
from experiments.report.sections import SECTIONS, content, section
from tests.support.browser import Page, browser, needs_chromium
from tests.support.own_tables import tables_as_before  # noqa: F401


def test_a_section_is_html_a_figure_or_nothing() -> None:
    from plotly.graph_objects import Bar, Figure

    assert content("<p>") == {"html": "<p>"}
    assert content(None) == {"html": None}
    assert content({"data": [], "layout": {}}) == {"figure": {"data": [], "layout": {}}}
    assert content(Figure(Bar(y=[1, 2])))["figure"]["data"][0]["type"] == "bar"
    with pytest.raises(TypeError, match="not int"):
        content(3)


def test_the_pages_script_draws_the_packages_sections() -> None:
    script = (ROOT / "experiments" / "report" / "page.js").read_text()
    names = script.partition("const DRAWN = {")[2].partition("};")[0]
    drawn = [name.strip(' "') for name, _ in re.findall(r'("?[\w-]+"?)\s*(:\s*\w+)?\s*,', names)]
    assert set(drawn) == set(SECTIONS)


HOSTILE = (
    '<p id="shown">shown</p><script>document.title = "ran"</script><img src="x" onerror="document.title = \'ran\'">'
)


@needs_chromium
def test_the_page_shows_a_plugins_section_and_runs_nothing_of_it(tmp_path: Path) -> None:
    @section("plug-html", "From a plugin")
    def _(runs: Any) -> str:
        return HOSTILE

    @section("plug-figure", "Drawn")
    def _(runs: Any) -> dict[str, Any]:
        return {"data": [{"type": "bar", "y": [run["config"]["optim.lr"] for run in runs]}]}

    @section("plug-broken", "Broken")
    def _(runs: Any) -> str:
        raise KeyError("no such number")

    study(tmp_path / "runs", seeds=1, n_test=20, steps=10, methods=("none", "lora"))
    shown = gather([tmp_path / "runs"], title="The page")
    assert [each["id"] for each in shown["sections"]][-2:] == ["plug-html", "plug-figure"]
    assert [line for line in shown["warnings"] if "plug-broken" in line and "no such number" in line]
    write(shown, tmp_path / "page.html")
    with browser() as driver:
        page = Page(driver, tmp_path / "page.html")
        assert page.each("#shown", "e.innerText") == ["shown"]
        assert page.each("#plug-figure .plot .bars", "1") == [1]
        assert page.each("#nav a", "e.innerText")[-2:] == ["From a plugin", "Drawn"]
        assert driver.title == "The page"
