"""The generated pages say all that the tables, the tree of results and the measurements hold, and no other number."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import yaml

import deltatune
from docs import generate
from docs.generators import performance, results, tasks, text
from experiments.config.compose import composed
from experiments.config.methods import METHODS
from experiments.config.schema import FILES
from experiments.config.tasks import TASKS
from experiments.list import rows
from experiments.run.stages import CHECKPOINTS
from experiments.store import schema
from experiments.store.lines import Prediction, Step
from experiments.store.result import Complete
from experiments.sweep.job import LOG
from experiments.tasks.public.table import PUBLIC

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return generate.pages()


def test_every_name_of_every_table_is_on_a_page(pages: dict[str, str]) -> None:
    listed = [(kind, name) for kind, name, _, origin in rows() if origin == "package"]
    assert {"method", "task", "metric", "objective", "model", "tracker", "section"} == {
        kind.split()[0] for kind, _ in listed
    }
    assert [name for _, name in listed if f"| `{name}` |" not in pages["api/names.md"]] == []


def test_every_method_has_a_page_with_its_formula_paper_and_configuration(pages: dict[str, str]) -> None:
    names = [name for name, entry in METHODS.items() if isinstance(entry, Path)]
    assert len(names) >= 10
    for name in names:
        page, path = pages[f"methods/{name}.md"], ROOT / "experiments" / "conf" / "method" / f"{name}.yaml"
        assert path.read_text(encoding="utf-8").strip() in page
        assert f"]({name}.md)" in pages["methods/index.md"]
        for rule in yaml.safe_load(path.read_text(encoding="utf-8")).get("rules", []):
            formula = getattr(deltatune, rule["method"]).__doc__.partition("\n")[0]
            assert text.inline(formula) in page
        baseline = yaml.safe_load(path.read_text(encoding="utf-8")).get("baseline", False)
        assert ("## Paper" in page) != baseline
        assert ("A baseline" in page) == baseline


def test_every_command_of_a_method_page_composes(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        for command in re.findall(r"^python -m experiments\.run (.*)$", page, re.MULTILINE):
            assert composed(command.split()).method.name == Path(name).stem


def test_every_key_of_every_task_is_in_the_table(pages: dict[str, str]) -> None:
    own = {name: task for name, task in TASKS.items() if name not in PUBLIC}
    for name, task in own.items():
        part = pages["tables/tasks.md"].partition(f"### {name}\n")[2].partition("\n### ")[0]
        for key in task.config.__dataclass_fields__:
            assert (f"`task.{key}`" in part) == (key != "name"), (name, key)
    assert "| `task.metric` | `str | None` |".replace("str |", r"str \|") in pages["tables/tasks.md"]


def test_every_public_task_has_its_sources_columns_licence_metric_and_protocol(pages: dict[str, str]) -> None:
    page = pages["tables/public_tasks.md"]
    for key in TASKS["gsm8k"].config.__dataclass_fields__:
        assert (f"`task.{key}`" in page) == (key != "name"), key
    for name, public in PUBLIC.items():
        part = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        sources = [*public.splits.train, *public.splits.val, *public.splits.test]
        assert all(f"`{source.name}`" in part for source in sources) and (sources or public.members)
        for said in (public.columns, public.licence, public.protocol):
            assert text.inline(said) in part
        assert "| metric | `" in part and "| the most it can be | " in part


def test_a_comment_beside_a_key_is_its_meaning() -> None:
    keys = {line[0]: line for line in tasks.keys(TASKS["domain"].config)}
    assert keys["`task.n_entities`"] == [
        "`task.n_entities`", "`int`", "`50`", "terms that are learned, and as many that are not",
    ]  # fmt: skip
    assert keys["`task.seed`"][3] == "draws the data and its split; the run's seed does not"


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.csv")), ids=lambda path: path.stem)
def test_every_ratio_on_the_page_is_one_of_the_file(path: Path) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        measured = list(csv.DictReader(file))
    _, _, table, origin = performance.measured(path)
    header, _, *lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    column = "ratio_peft" if header[2] == "peft, ms" else "ratio_frozen"
    assert lines
    for op, shape, own, *ratios in lines:
        here = [row for row in measured if (row["op"], row["shape"]) == (op, shape)]
        assert own in {performance.number(row["best"]) for row in here if row["provider"] == header[2][:-4]} | {"–"}
        for provider, ratio in zip(header[3:], ratios):
            assert ratio in {performance.number(row[column]) for row in here if row["provider"] == provider} | {"–"}
    assert f"`{measured[0]['commit'][:12]}`" in origin
    assert f"| {measured[0]['torch']} |" in origin


def test_every_key_of_a_runs_files_is_on_the_page_with_its_meaning(
    pages: dict[str, str],
) -> None:
    for tree, heading in ((Complete, "result.json"), (Step, "metrics.jsonl"), (Prediction, "predictions.jsonl")):
        part = pages["runs.md"].partition(f"## {heading}\n")[2].partition("\n## ")[0]
        listed = list(schema.keys(tree))
        assert [each.name for each in listed] == re.findall(r"^\| `([^`]+)` \|", part, re.MULTILINE)
        assert all(text.inline(each.description) in part and each.description for each in listed)


def test_every_file_of_a_run_is_on_the_page(pages: dict[str, str]) -> None:
    names = ["config.yaml", "environment.json", "metrics.jsonl", "predictions.jsonl", "result.json", "lock"]
    names += [*FILES.values(), LOG, f"{CHECKPOINTS}/"]
    assert [name for name in names if f"`{name}`" not in pages["runs.md"]] == []


def test_every_committed_study_is_on_the_page_under_its_warning(pages: dict[str, str]) -> None:
    page = pages["results.md"]
    for path in (ROOT / "experiments" / "results").glob("*/comparison.json"):
        assert str(path.relative_to(ROOT)) in page
    assert page.index("no ranking of methods") < page.index("\n## ")


def test_every_public_name_is_in_the_reference_once(pages: dict[str, str]) -> None:
    reference = "\n".join(page for name, page in pages.items() if name.startswith("api/"))
    for name in deltatune.__all__:
        assert len(re.findall(rf":: deltatune\.{name}$", reference, re.MULTILINE)) == (name != "METHODS"), name


@pytest.mark.parametrize(
    ("docstring", "markdown"),
    [
        ("a * b_i [x] is `a*b`", r"a \* b_i \[x\] is `a*b`"),
        ("text:\n\n    code_ * here\n\nmore", "text:\n\n```text\ncode_ * here\n```\n\nmore"),
        ("- 1 is no item", r"\- 1 is no item"),
        ("2. is no item", r"2\. is no item"),
        ("1 where it is", "1 where it is"),
    ],
)
def test_a_docstring_keeps_its_signs(docstring: str, markdown: str) -> None:
    assert text.prose(docstring) == markdown


def test_a_docstring_is_escaped_for_autodoc() -> None:
    assert text.rest(["h * `x` |y|_", "", "    as it is *", "end"]) == [
        "h \\* ``x``\\  \\|y\\|\\_", "", "", "::", "", "    as it is *", "", "end",
    ]  # fmt: skip


def test_no_sentence_of_the_results_page_holds_more_than_three_numbers() -> None:
    for sentence in re.split(r"[.:;]\s", results.WARNING):
        assert len(re.findall(r"\b\d+(?:\.\d+)?\b", sentence)) <= 3


def test_the_page_on_planted_studies_has_a_line_for_each_kind(pages: dict[str, str]) -> None:
    page = pages["tables/planted.md"]
    assert "| 0 or 1 | 10 | 3 |" in page and "| any | – | 10 |" in page
    assert "1,000 studies of each design" in page
