"""The page in a headless Chromium: its tables and plots, filters, sorting, colours, on a phone, and hostile text."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from benchmarks.made_up import made_up, put
from benchmarks.made_up_study import failed, study
from experiments.report import gather, write
from tests.support.browser import Page, browser, needs_chromium

pytestmark = needs_chromium
METHODS = ("none", "lora", "prefix", "full")
SEQUENCE = {
    "format": 1, "method": "lora", "model": "smollm2", "seed": 0, "lr": 0.003, "steps": 60, "batch_size": 8,
    "tasks": ["ha_json", "sql task.n_test=9"], "metrics": ["exact_match", "execution_accuracy"], "n_examples": [50, 9],
    "base": [0.0, 0.125], "matrix": [[0.75, 0.25], [0.5, 0.875]], "average": 0.6875, "backward_transfer": -0.25,
    "forward_transfer": 0.125, "forgetting": [0.25], "text_perplexity": [20.0, 25.5, None], "kl_per_token": [0, 1, 2],
    "runs": ["a", "b"],
}  # fmt: skip


@pytest.fixture(scope="module")
def driver() -> Iterator[WebDriver]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, three seeds, a failure; compared.html has the comparison, plain.html has not."""
    folder = tmp_path_factory.mktemp("page")
    compared = study(folder / "runs", seeds=3, n_test=60, steps=60, methods=METHODS)
    failed(folder / "runs")
    (folder / "comparison.json").write_text(json.dumps(compared))
    (folder / "runs" / "sequence.json").write_text(json.dumps(SEQUENCE))
    write(gather([folder / "runs"], folder / "comparison.json"), folder / "compared.html")
    write(gather([folder / "runs"], title="Plain"), folder / "plain.html")
    return folder


def opened(driver: WebDriver, file: Path) -> Page:
    """The page as it is at first; loaded anew only where another one is open."""
    if driver.current_url != file.as_uri():
        return Page(driver, file)
    page = Page(driver)
    page.js("[Object.assign(state, arguments[0]), state.open.clear(), document.activeElement.blur()]", START)
    page.js("[theme = 'auto', paint(false)]")
    page.click("#reset")
    return page


START = {"place": None, "use": None, "everyRate": False, "disagreeing": False, "everySample": False, "sorts": {}}


@pytest.fixture
def compared(driver: WebDriver, folder: Path) -> Iterator[Page]:
    page = opened(driver, folder / "compared.html")
    yield page
    assert page.console() == []


@pytest.fixture
def plain(driver: WebDriver, folder: Path) -> Iterator[Page]:
    page = opened(driver, folder / "plain.html")
    yield page
    assert page.console() == []


def column(page: Page, table: str, key: str) -> list[str]:
    """The texts of a table's column, from top to bottom."""
    place = page.each(f"[id='{table}'] th[data-column]", "e.dataset.column").index(key)
    return page.each(f"[id='{table}'] tbody tr:not(.detail)", f"e.children[{place}].innerText.trim()")


def choose(page: Page, facet: str, value: str) -> None:
    """Tick or untick a value in a filter's menu."""
    page.click(f"#filters [data-facet={facet}] input[value='{value}']")


def search(page: Page, text: str) -> None:
    drawn = page.js("document.documentElement.dataset.drawn")
    field = page.driver.find_element(By.CSS_SELECTOR, "input[type=search]")
    field.clear()
    field.send_keys(text)
    WebDriverWait(page.driver, 60).until(lambda _: page.js("document.documentElement.dataset.drawn") != drawn)
    WebDriverWait(page.driver, 60).until(lambda _: page.js("state.search") == text)


COMPARISON = "comparison-ha_json · smollm2"


def test_the_comparison_is_shown_with_intervals_and_ties(compared: Page, folder: Path) -> None:
    task = json.loads((folder / "comparison.json").read_text())["tasks"]["ha_json"]
    best_first = sorted(task["methods"], key=lambda entry: -entry["mean"])
    names = [entry["method"] + " baseline" * entry["baseline"] for entry in best_first]
    assert column(compared, COMPARISON, "method") == names
    assert column(compared, COMPARISON, "value") == [f"{entry['mean']:.3f}" for entry in best_first]
    assert column(compared, COMPARISON, "group") == [entry["group"] for entry in best_first]
    shares = [f"{100 * entry['share_of_full']:.1f} %" for entry in best_first]
    assert column(compared, COMPARISON, "share") == shares
    assert [("at edge" in cell) for cell in column(compared, COMPARISON, "lr")] == [e["lr_at_edge"] for e in best_first]
    drawn = compared.each(f"[id='{COMPARISON}'] [data-interval]", "e.dataset.interval")
    trained = [entry for entry in best_first if entry["method"] != "none"]
    assert drawn == [f"{entry['low']:.3f} to {entry['high']:.3f}" for entry in trained]
    (said,) = compared.each("#comparison .remarks:nth-of-type(1)", "[...e.children].map(li => li.textContent)")[:1]
    assert said == [
        "Missing: lora seed 9: killed",
        "Margin of equivalence: 0.02.",
        "prefix: lr 0.02 is at the edge of its grid",
        "a made-up note",
    ]
    assert column(compared, COMPARISON, "below") == [
        " ".join(f"↓ {name}" for name in entry["below"]) for entry in best_first
    ]
    assert column(compared, COMPARISON, "as fast") == [entry["cost"]["step_s"]["group"] for entry in best_first]
    compared.click("#comparison details summary")
    pairs = column(compared, "pairs-ha_json", "verdict")
    assert pairs == [f"{pair['better']} better" if pair["better"] else "undecided" for pair in task["pairs"]]
    smallest = column(compared, "pairs-ha_json", "smallest")
    assert smallest == ["–" if pair["better"] else f"{pair['smallest']:.3f}" for pair in task["pairs"]]


def signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def test_all_tasks_together_have_a_table(compared: Page, folder: Path) -> None:
    across = json.loads((folder / "comparison.json").read_text())["across"]
    assert column(compared, "across-0", "method") == [item["method"] for item in across["methods"]]
    assert column(compared, "across-0", "iqm") == [signed(item["iqm"]) for item in across["methods"]]
    compared.click("[data-keep=improvement-0] summary")
    shown = column(compared, "improvement-0", "probability")
    assert shown == [f"{pair['probability']:.2f}" for pair in across["improvement"]]


def test_without_a_comparison_means_and_spread_over_seeds(plain: Page, folder: Path) -> None:
    values: dict[str, list[float]] = {}
    for run in gather([folder / "runs"])["runs"]:
        if run["status"] == "complete" and run["task"] == "ha_json" and run["chosen"]:
            values.setdefault(run["method"], []).append(run["quality"]["exact_match"])
    order = column(plain, COMPARISON, "method")
    assert set(order) == set(METHODS)
    assert column(plain, COMPARISON, "value") == [f"{statistics.fmean(values[name]):.3f}" for name in order]
    assert column(plain, COMPARISON, "sd") == [f"{statistics.stdev(values[name]):.3f}" for name in order]
    choose(plain, "seed", "1")  # the means are then those of this seed
    assert column(plain, COMPARISON, "n") == ["1"] * 4


def test_every_section_is_filled_and_nothing_is_loaded(compared: Page) -> None:
    assert compared.each("main section:not([hidden])", "!e.querySelector('.empty')") == [True] * 15
    plots = compared.each(".plot", "e.querySelectorAll('.trace').length")
    assert len(plots) == 11 and min(plots) >= 3
    assert compared.js("performance.getEntriesByType('resource').map(e => e.name)") == []
    assert not re.search(r"NaN|undefined|\[object", compared.js("document.querySelector('main').innerText"))
    assert "OutOfMemoryError: tried to allocate 2.00 GiB" in compared.texts("#failures")[0]


def test_a_sequence_shows_what_later_tasks_did_to_earlier_ones(compared: Page) -> None:
    assert column(compared, "sequence-0", "stage") == ["nothing", "ha_json", "sql"]
    assert column(compared, "sequence-0", "task-0") == ["0.000", "0.750", "0.500"]
    assert column(compared, "sequence-0", "perplexity") == ["20.00", "25.50", "–"]
    tinted = compared.each("#sequence-0 tbody td.heat", "e.style.background.includes('/ 0.25')")
    assert tinted == [False] * 4 + [True, False]
    assert "backward transfer −0.250" in compared.texts("#sequences h3")[0]


def test_the_plan_is_shown_with_what_departed_from_it(compared: Page) -> None:
    assert "2 departures from the plan" in compared.texts("#plan .alert")[0]
    assert column(compared, "departures-0", "what") == ["settings.seeds", "a run that the plan does not have"]
    assert column(compared, "departures-0", "to") == ["3", "a/b.json"]
    compared.click("#plan details summary")
    values = dict(zip(column(compared, "plan-0", "name"), column(compared, "plan-0", "value")))
    assert values["tasks.ha_json.margin"] == "0.02"
    assert values["tasks.ha_json.methods.lora.axes.optim.lr.factor"] == "3"


def test_the_search_is_shown_with_what_it_cost(compared: Page) -> None:
    trained = [name for name in METHODS if name != "none"]
    assert column(compared, "search-cost", "method") == trained
    assert column(compared, "search-cost", "train_s")[0] == "4.7 min"
    compared.click("#search details summary")
    assert len(column(compared, "trials", "setting")) == 3 * len(trained)
    assert "step 4: nan" in column(compared, "trials", "chosen")
    choose(compared, "method", "lora")
    assert column(compared, "search-cost", "method") == ["lora"]


def test_quality_along_the_training_is_shown_over_what_is_chosen(compared: Page) -> None:
    title = "[...document.querySelectorAll('#along .xtitle')].map(e => e.textContent)"
    assert compared.js(title) == ["steps (log scale)"]
    compared.click("#along [data-use=flops]")
    assert compared.js(title) == ["FLOPs (log scale)"]
    assert column(compared, "plateaus", "score") == ["not reached", "0.500", "0.500"]
    assert column(compared, "plateaus", "came") == ["3 of 3"] * 3


def test_direct_labels_name_every_method_once_in_a_plot(compared: Page) -> None:
    for key in ("trainable", "peak", "step", "bytes", "forgot"):
        said = compared.each(f"[data-plot={key}] .annotation", "e.textContent")
        assert sorted(text.split(",")[0].strip() for text in said) == sorted(METHODS)


def test_filters_act_on_tables_and_plots(compared: Page) -> None:
    def everything() -> tuple[int, int, set[str]]:
        tables, curves = (
            len(column(compared, "runs", "method")),
            compared.js("document.querySelectorAll('#learning .trace').length"),
        )
        return tables, curves, set(column(compared, "costs", "method"))

    before = everything()
    choose(compared, "method", "lora")
    runs, curves, methods = everything()
    assert methods == {"lora"} and 0 < runs < before[0] and 0 < curves < before[1]
    assert column(compared, COMPARISON, "method") == ["lora"]
    assert compared.texts("#count") == [f"{runs} of {before[0]} runs"]
    choose(compared, "task", "sql")
    assert set(column(compared, "runs", "task")) == {"sql"}
    assert not compared.js("document.getElementById(arguments[0])", COMPARISON)
    choose(compared, "status", "failed")
    assert "No run fits the filters." in compared.texts("#every-run")[0]
    compared.click("#reset")
    assert everything() == before
    choose(compared, "status", "failed")
    assert column(compared, "runs", "status") == ["✗ failed (oom)"]


def test_a_search_finds_settings_and_errors(compared: Page) -> None:
    search(compared, "allocate outofmemoryerror")
    assert column(compared, "runs", "status") == ["✗ failed (oom)"]
    search(compared, "method.name=prefix seed=2 task.name=sql")
    assert column(compared, "runs", "method") == ["prefix"]
    search(compared, "no such thing")
    assert "No run fits the filters." in compared.texts("#every-run")[0]


def number(text: str) -> float:
    """What a cell says, in its first unit's terms; the missing is lower than all."""
    if text == "–":
        return float("-inf")
    units = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "ms": 1e-3, "min": 60, "k": 1e3, "M": 1e6}
    value, _, unit = text.replace("−", "-").partition(" ")
    return float(value) * units.get(unit, 1)


def test_a_click_sorts_by_numbers_and_a_second_turns_it(compared: Page) -> None:
    for key in ("lr", "value", "loss", "peak", "step", "total"):
        head = f"#runs [data-column={key}]"
        compared.click(f"{head} button")
        down = [number(text) for text in column(compared, "runs", key)]
        assert down == sorted(down, reverse=True) and len(set(down)) > 2
        assert compared.each(head, "e.getAttribute('aria-sort')") == ["descending"]
        compared.click(f"{head} button")
        up = [number(text) for text in column(compared, "runs", key)]
        known = [value for value in up if value != float("-inf")]
        assert known == sorted(known) and up[: len(known)] == known  # the missing stay last
        assert compared.each(head, "e.getAttribute('aria-sort')") == ["ascending"]


def test_every_table_sorts_from_the_keyboard(compared: Page) -> None:
    for table, key in ((COMPARISON, "method"), ("costs", "method"), ("forgetting", "probe"), ("runs", "task")):
        button = f"[id='{table}'] [data-column={key}] button"
        compared.js("document.querySelector(arguments[0]).focus()", button)
        compared.driver.switch_to.active_element.send_keys(Keys.ENTER)
        shown = column(compared, table, key)
        assert shown == sorted(shown, key=str.lower)
        assert compared.js("document.activeElement === document.querySelector(arguments[0])", button)


def test_a_run_opens_to_its_settings(compared: Page) -> None:
    complete = "#runs tr:not(:has(.failed)) [data-run]"
    compared.click(complete)
    assert compared.js("document.querySelector(arguments[0]).getAttribute('aria-expanded')", complete) == "true"
    (said,) = compared.texts("#runs tr.detail")
    for part in ("Configuration", "method.name", "Environment", "made-up CPU", "c0ffee", "sha256"):
        assert part in said
    compared.click(complete)
    assert compared.texts("#runs tr.detail") == []


def test_a_column_says_what_its_number_means(compared: Page) -> None:
    title = compared.js("document.querySelector('#costs [data-column=stored] button').title")
    assert title == "bytes on disk of what was trained: the delta, or the whole model"


def test_samples_mark_right_and_wrong_and_can_be_narrowed(compared: Page) -> None:
    assert {"✓ right", "✗ wrong"} <= set(compared.texts("#samples .verdict"))
    compared.click("#samples .toggle input")  # only where methods disagree
    cards = compared.each("#samples .sample", "e.querySelectorAll('.answer').length")
    assert cards and min(cards) > 1


def luminance(colour: str) -> float:
    """Of an sRGB colour "rgb(r, g, b)", by WCAG 2."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


CARD = "getComputedStyle(document.querySelector('.scroll')).backgroundColor"
PLOT_LABEL = "getComputedStyle(document.querySelector('[data-plot] .annotation text')).fill"


def test_light_and_dark_by_the_system_and_by_the_button(compared: Page) -> None:
    light = compared.js(CARD), compared.js(PLOT_LABEL)
    drawn = compared.js("document.documentElement.dataset.drawn")
    compared.prefer("dark")
    WebDriverWait(compared.driver, 60).until(lambda _: compared.js("document.documentElement.dataset.drawn") != drawn)
    dark = compared.js(CARD), compared.js(PLOT_LABEL)
    assert luminance(light[0]) > 0.9 and luminance(dark[0]) < 0.05 and light[1] != dark[1]
    seen = []
    for _ in range(3):
        compared.click("#theme")
        seen.append((compared.texts("#theme span")[0], compared.js(CARD), compared.js(PLOT_LABEL)))
    assert seen == [("Light", *light), ("Dark", *dark), ("Auto", *dark)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(scheme: str, driver: WebDriver, folder: Path) -> None:
    """Contrast of at least 4.5 with the card behind them: running text, quiet text, and every method's colour."""
    page = Page(driver, folder / "compared.html", scheme=scheme)
    card = page.js(CARD)
    texts = page.js("['.note', '#comparison td', '.unit', '.verdict', '.edge', 'a'].map("
                    "s => getComputedStyle(document.querySelector(s)).color)")  # fmt: skip
    fills = page.each(".plot .annotation text", "getComputedStyle(e).fill")
    for colour in {*texts, *fills}:
        assert contrast(colour, card) >= 4.5
    known = page.js("[...USUAL, 'full', 'none', ...COLOURS.keys()].map((name, i) => typeof name === 'string'"
                    " ? colour(name) : COLOURS[name][dark() ? 1 : 0])")  # fmt: skip
    for colour in known:
        assert contrast("rgb" + str(tuple(bytes.fromhex(colour[1:]))), card) >= 4.5


def test_a_phone_scrolls_down_alone(driver: WebDriver, folder: Path) -> None:
    page = Page(driver, folder / "compared.html", width=390, height=844)
    page.click("#runs [data-run]")
    assert page.js("[innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    boxes = page.each(".scroll", "[e.clientWidth, e.scrollWidth]")
    assert max(inner for _, inner in boxes) > 390 and max(outer for outer, _ in boxes) <= 390
    assert max(page.each(".plot, .card, h1, .answer, .more", "e.getBoundingClientRect().right")) <= 390
    page.click("#filters [data-facet=method] summary")
    (menu,) = page.each("#filters [data-facet=method] .menu", "e.getBoundingClientRect().toJSON()")
    assert menu["left"] >= 0 and menu["right"] <= 390 and menu["bottom"] <= 844
    assert page.console() == []


NASTY = (
    "</script><script>window.harmed=1</script>",
    '<img src=x onerror="window.harmed=1">',
    "<b>bold</b> <a href='javascript:window.harmed=1'>x</a> &lt;i&gt;",
    '"><svg onload=window.harmed=1>',
    "{{ 7 * 7 }} ${window.harmed=1} \\u003cscript\\u003e \u2028 <!--",
)


def test_hostile_text_is_only_text(driver: WebDriver, tmp_path: Path) -> None:
    for number, text in enumerate(NASTY):
        changes: dict[str, Any] = {"task": text, "model": text, "base": text, "lr": 0.01 * (number + 1)}
        changes |= {"quality_by_part": {text: {"exact_match": 0.5}}, "config": {text: text}}
        changes |= {"environment": made_up()["environment"] | {"cpu": text, text: text}}
        changes["forgetting"] = made_up()["forgetting"] | {
            "tasks": {text: {"before": 0.5, "after": 0.25, "metric": text}}
        }
        changes["seconds"] = made_up()["seconds"] | {text: 1.0}
        for seed, method in enumerate((text, "lora")):
            run = put(tmp_path, made_up(method, **changes, seed=seed), f"{number}-{seed}").parent
            said = {"prompt": text, "gold": text, "prediction": text, "score": 0.0, "part": text, "correct": False}
            (run / "predictions.jsonl").write_text(json.dumps(said) + "\n", encoding="utf-8")
            (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
        put(tmp_path, made_up(text, status="failed", error=text, failure_kind="error", task=text), f"{number}-failed")
        put(tmp_path, made_up(text, status="failed", error=text, failure_kind=text, task=text), f"{number}-warned")
    write(gather([tmp_path], title=NASTY[0]), tmp_path / "report.html")
    page = Page(driver, tmp_path / "report.html")
    for text in NASTY:
        page.js("content.runs.forEach(run => state.open.add(run.id))")
        page.js("[state.place = arguments[0], draw()]", f"{text} · {text}")
        shown = page.each("#samples pre", "e.textContent")
        assert shown == [text] * 3  # the prompt, the gold answer, and the one that both methods gave
        labels = page.each("[data-plot=trainable] .annotation", "e.textContent")
        wanted = text if len(text) <= 30 else f"{text[:29]}…"
        assert re.sub(r"\s+", " ", " ".join(labels)).count(re.sub(r"\s+", " ", wanted)) == 1
        assert text in page.each("#failures pre", "e.textContent")
    assert page.js("document.querySelector('h1').textContent") == NASTY[0]
    assert page.js("document.title") == NASTY[0]
    assert page.js("window.harmed ?? null") is None
    assert page.js("document.querySelectorAll('main img, main svg [onload], main a[href^=javascript]').length") == 0
    assert page.js("document.scripts.length") == 3
    assert page.console() == []


def test_a_page_of_failures_alone_says_so(driver: WebDriver, tmp_path: Path) -> None:
    failed(tmp_path)
    write(gather([tmp_path]), tmp_path / "report.html")
    page = Page(driver, tmp_path / "report.html")
    assert page.texts("#comparison .empty") == ["No complete run fits the filters."]
    assert column(page, "runs", "status") == ["✗ failed (oom)"]
    assert page.console() == []


def test_a_text_task_of_log_likelihoods_has_plots_too(driver: WebDriver, tmp_path: Path) -> None:
    """Quality below zero, no answers that are right or wrong, no forgetting, an encoder without speeds."""
    for seed, (method, value) in enumerate((("lora", -2.5), ("full", -2.25))):
        result = made_up(method, seed=seed, metric="log_likelihood", scores=[value, value - 1] * 8, forgetting=None)
        result |= {"quality": {"log_likelihood": value, "perplexity": 12.5}, "cost": {"switch_s": None}}
        result["cost"]["generate_tokens_per_s"] = {"unmerged": None, "merged": None}
        folder = put(tmp_path, result, method).parent
        said = {"prompt": "", "gold": "", "prediction": "[25.0, 10, 40]", "score": value, "part": ""}
        (folder / "predictions.jsonl").write_text(json.dumps(said) + "\n")
    write(gather([tmp_path]), tmp_path / "report.html")
    page = Page(driver, tmp_path / "report.html")
    assert column(page, "comparison-made-up-task · made-up-model", "value") == ["−2.250", "−2.500"]
    assert page.texts("#samples .verdict") == ["score −2.500", "score −2.250"]
    assert page.js("document.querySelectorAll('[data-plot]').length") == 4
    assert "No run that fits the filters has measured forgetting." in page.texts("#forgotten")[0]
    assert page.console() == []


def test_an_encoder_shows_the_drift_of_its_features(driver: WebDriver, tmp_path: Path) -> None:
    for method, drift in (("lora", 0.125), ("full", 0.25)):
        forgot = {"text_perplexity": None, "kl_per_token": None, "feature_drift": drift, "tasks": {}, "reason": None}
        put(tmp_path, made_up(method, forgetting=forgot))
    write(gather([tmp_path]), tmp_path / "report.html")
    page = Page(driver, tmp_path / "report.html")
    assert column(page, "comparison-made-up-task · made-up-model", "drift") == ["0.125", "0.250"]
    assert column(page, "forgetting", "probe") == ["the encoder's features\ndrift, 1 − cosine: no forgetting"]
    assert page.each("[data-plot]", "e.dataset.plot") == ["trainable", "peak", "step", "bytes", "drift"]
    tinted = page.js("[...document.querySelectorAll('#forgotten td.heat')].map((e) => e.style.background)")
    assert all("/ 0)" in each or each.endswith("0)") for each in tinted)  # a drift is no loss
    assert page.console() == []
