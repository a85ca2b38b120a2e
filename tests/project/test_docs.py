"""The pages are held against the project: their Python runs, their shell lines parse, their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments.list import rows
from tests.support.commands import check

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Written by `make docs` (.gitignore), so neither there in every checkout nor worded by hand.
GENERATED = ("methods", "api", "tables", "runs.md", "results.md", "performance.md")
RECIPES = {file for file in (DOCS / "extending").glob("*.md") if file.stem != "index"}  # tests/extending runs them
OWN = {file for file in DOCS.rglob("*.md") if file.relative_to(DOCS).parts[0] not in GENERATED} - RECIPES
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(OWN)]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MOST_UNRUN = 6  # blocks of other libraries' code, which is not installed here


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """What stands behind the language, and the text, of every block of that language."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(info.strip(), text) for each, info, text in found if each == language]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run in their order and see one another's names."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for info, text in blocks(page, "python"):
        code = compile(text, name(page), "exec")
        if info == "":
            exec(code, names)
        else:
            assert info == "no-run", f"{name(page)}: ```python {info}"


README_CODE = [text for _, text in blocks(ROOT / "README.md", "python")]


@pytest.mark.parametrize("code", README_CODE, ids=lambda code: code.splitlines()[-1][:30])
def test_code_of_the_readme_runs_by_itself(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert "parameters" in capsys.readouterr().out


def test_there_is_code() -> None:
    assert len(README_CODE) == 2


def test_little_is_left_unrun() -> None:
    unrun = [name(page) for page in PAGES for info, _ in blocks(page, "python") if info]
    assert len(unrun) <= MOST_UNRUN
    assert set(unrun) <= {"docs/coming-from.md"}


LINES = [(page, line) for page in PAGES for _, text in blocks(page, "sh") for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize(("page", "line"), LINES, ids=lambda part: name(part) if isinstance(part, Path) else part[:60])
def test_a_shell_line_is_one_that_its_command_takes(page: Path, line: str) -> None:
    check(line)


@pytest.mark.parametrize(
    "line",
    [
        "make demos",
        "make demo MINUTE=3",
        "pip install -e '.[experiment]'",
        "python -m experiments.rum model=tiny",
        "python -m experiments.run model=tinny",
        "python -m experiments.run -m seed=0,1 optim.lrr=1",
        "python -m experiments.run -m method=lora,lara",
        "python -m experiments.compare trial=3",
        "python -m experiments.report runs --outt a.html",
        "python -m experiments.data check task=jsonl task.trian=a.jsonl",
        "python -m benchmarks.bench_ce --quickly",
        "python -m torch",
        "rm -rf runs",
    ],
)
def test_a_wrong_line_is_seen(line: str) -> None:
    with pytest.raises(Exception):  # noqa: B017 - ours or Hydra's, each by a class of its own
        check(line)


LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", [*PAGES, *sorted(RECIPES)], ids=name)
def test_links_lead_to_files(page: Path) -> None:
    """Sphinx sees to the anchors; README and CONTRIBUTING it does not build."""
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / link).resolve()
        if "://" in link or (DOCS in target.parents and target.relative_to(DOCS).parts[0] in GENERATED):
            continue
        assert target.exists(), f"{name(page)}: {link}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent != ROOT], ids=name)
def test_a_page_opens_with_a_sentence(page: Path) -> None:
    title, blank, first = page.read_text(encoding="utf-8").splitlines()[:3]
    assert title.startswith("# ") and blank == "" and re.match(r"[A-Z`]", first), first


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent != ROOT], ids=name)
def test_no_sentence_holds_more_than_three_numbers(page: Path) -> None:
    """More numbers are a table."""
    for sentence in sentences(page.read_text(encoding="utf-8")):
        assert len(re.findall(r"(?<![\w.#])\d[\d,.]*", sentence)) <= 3, sentence


def sentences(text: str) -> list[str]:
    """The sentences of a page's prose: code, tables and links' targets are none."""
    prose = re.sub(r"^```.*?^```$|^\|.*?$|`[^`\n]*`|\]\([^)]*\)", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.split(r"(?<=[.:;!?])\s+|\n\n+|\n- ", prose)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_name_of_the_tables_is_mentioned() -> None:
    """Every method, task, objective and model of the package."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    own = [(kind, each) for kind, each, _, place in rows() if place == "package"]
    for kind in ("method", "task", "objective", "model"):
        names = [each for other, each in own if other == kind]
        missing = [each for each in names if not re.search(rf"[`=/,\[]{each}\b", text)]
        assert names and not missing, f"no page names the {kind} {', '.join(missing)}"
