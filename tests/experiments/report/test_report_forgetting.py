"""Forgetting in the page: corpora, frontiers with methods at equal quality, weights, and the switch of a delta."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.made_up import made_up, put
from benchmarks.made_up_frontier import frontier, spectra
from benchmarks.made_up_study import study
from experiments.report import compact_tables, gather, write
from experiments.store.tables import SWITCHED_OFF
from tests.support.browser import Page, browser, needs_chromium

METHODS = {"lora": (0.8, 0.4), "prefix": (0.4, 0.1), "full": (0.85, 1.2)}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    compared = study(folder / "runs", ("ha_json",), seeds=3, n_test=20, steps=20, methods=("none", *METHODS))
    compared["tasks"]["ha_json"] |= {"frontier": frontier(METHODS), "spectra": spectra(tuple(METHODS))}
    (folder / "comparison.json").write_text(json.dumps(compared))
    write(gather([folder / "runs"], folder / "comparison.json"), folder / "report.html")
    with browser() as driver:
        opened = Page(driver, folder / "report.html")
        yield opened
        assert opened.console() == []


def rows(page: Page, table: str) -> list[list[str]]:
    lines = page.each(f"[id='{table}'] tbody tr", "[...e.children].map((cell) => cell.innerText.trim())")
    return [[str(cell) for cell in line] for line in lines]


@needs_chromium
def test_methods_stand_at_equal_quality_with_letters_and_what_is_not_reached(page: Page) -> None:
    lines = {line[0]: line[1:] for line in rows(page, "equal-quality")}
    assert set(lines) == set(METHODS)
    assert lines["prefix"][-1] == "not reached" and lines["lora"][-1].startswith("0.400")
    assert lines["lora"][-1].endswith("a") and lines["full"][-1].endswith("b")
    assert page.texts("#frontier summary") == ["Every pair at 0.800 (1 test)"]
    assert "a made-up note on fronts" in page.texts("#frontier .remarks li")


@needs_chromium
def test_the_frontier_is_drawn_a_line_a_method_from_the_base_on(page: Page) -> None:
    drawn = page.js(
        "[...document.querySelectorAll('#frontier .plot')].map((e) => e.data.map((t) => [t.mode, t.x, t.y]))"
    )
    (traces,) = drawn
    lines = [(x, y) for mode, x, y in traces if mode == "lines"]
    assert len(lines) == len(METHODS) and all((x[0], y[0]) == (0, 0.05) for x, y in lines)
    assert all(len(x) == 4 and x == sorted(x) and y == sorted(y) for x, y in lines)
    assert sum(len(x) for mode, x, _ in traces if mode == "markers") == 6 * len(METHODS)


@needs_chromium
def test_the_weights_of_each_kind_of_site(page: Page) -> None:
    lines = rows(page, "weights")
    assert [line[:2] for line in lines[:3]] == [
        ["lora", "all"],
        ["lora", "self_attn.q_proj"],
        ["lora", "mlp.down_proj"],
    ]
    assert not any(line[0] == "prefix" for line in lines)
    assert page.texts("#weights .remarks li") == ["prefix: 30 sites are left out: made up"]


@needs_chromium
def test_wherever_forgetting_is_shown_stands_that_a_delta_can_be_switched_off(page: Page) -> None:
    assert page.texts("#forgotten .switched-off") == page.texts("#frontier .switched-off") == [SWITCHED_OFF]


@needs_chromium
def test_each_corpus_has_its_lines(tmp_path: Path) -> None:
    forgot = made_up()["forgetting"]
    one = forgot["corpora"]["made-up-text"]
    other = {**one, "text_perplexity": {"before": 10.0, "after": 15.0}, "kl_per_token": 0.125}
    forgot = {**forgot, "corpora": {"prose": one, "other": other}}
    forgot["tasks"] = {"questions.jsonl": {"before": 0.5, "after": 0.25, "metric": "accuracy", "chance": 0.25}}
    put(tmp_path, made_up("lora", forgetting=forgot))
    write(gather([tmp_path]), tmp_path / "report.html")
    with browser() as driver:
        page = Page(driver, tmp_path / "report.html")
        probes = [line[0].split("\n") for line in rows(page, "forgetting")]
        assert ["prose", "perplexity"] in probes and ["other", "perplexity"] in probes
        assert ["the base's own text after other", "KL to the base, nats per token"] in probes
        assert ["all corpora", "perplexity"] in probes
        assert ["questions.jsonl", "accuracy, a guess has 0.25"] in probes
        assert page.console() == []


def test_a_terminals_table_says_it_too_and_names_a_drift_a_drift(tmp_path: Path) -> None:
    put(tmp_path, made_up("lora"))
    (table,) = compact_tables(gather([tmp_path])["runs"])
    assert table.caption == SWITCHED_OFF and table.columns[-1].header == "forgetting"
    drifted = {"text_perplexity": None, "kl_per_token": None, "feature_drift": 0.125, "tasks": {}, "reason": None}
    put(tmp_path, made_up("lora", forgetting=drifted))
    (table,) = compact_tables(gather([tmp_path])["runs"])
    assert table.caption is None and table.columns[-1].header == "drift of features"
