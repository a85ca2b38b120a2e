"""What the code of the project looks like: sizes of files and functions, and how comments begin."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("deltatune", "kernels", "experiments", "benchmarks", "hydra_plugins")
MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS, MOST_AT_THE_TOP = 300, 60, 8, 10
PREPOSITIONS = (
    *(
        "above",
        "after",
        "against",
        "as",
        "at",
        "before",
        "below",
        "beneath",
        "beside",
        "between",
        "beyond",
        "by",
        "for",
    ),
    *("from", "in", "inside", "into", "of", "off", "on", "out", "over", "per", "since", "than", "through", "to"),
    *("toward", "under", "until", "up", "upon", "via", "with", "within", "without"),
)
OPENING = re.compile(rf"#\s*({'|'.join(PREPOSITIONS)})\s", re.IGNORECASE)


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=name)
def test_a_file_is_short_or_says_why_not(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert text.count("\n") <= MOST_LINES or re.search(r"may be\s+long", docstring)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function but Triton's kernels, whose parameters are pointers, strides and tile sizes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not any(
            "jit" in ast.unparse(decorator) for decorator in node.decorator_list
        ):
            yield node


def too_large(path: Path) -> list[str]:
    large = []
    for node in functions(path):
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        parameters = [a.arg for a in arguments if a.arg not in ("self", "cls", "ctx")]
        if lines > MOST_FUNCTION_LINES or len(parameters) > MOST_PARAMETERS:
            large.append(f"{name(path)}:{node.lineno} {node.name}: {lines} lines, {len(parameters)} parameters")
    return large


def test_functions_are_short_and_take_few_things() -> None:
    # The launchers in kernels/ pass on what their kernels take.
    folders = [package for package in PACKAGES if package != "kernels"]
    assert [line for path in sources(*folders) for line in too_large(path)] == []


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """Each comment with its line, a block of several lines as one."""
    text = path.read_text(encoding="utf-8")
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            alone = token.line.lstrip().startswith("#")
            if not (alone and token.start[0] == last + 1):
                yield token.start[0], token.string
            last = token.start[0] if alone else -1


def test_no_comment_opens_with_a_bare_preposition() -> None:
    found = [
        f"{name(path)}:{line} {text}"
        for path in sources(*PACKAGES, "tests")
        for line, text in comments(path)
        if OPENING.match(text)
    ]
    assert found == []


def test_the_top_of_experiments_holds_commands_alone() -> None:
    assert len(list((ROOT / "experiments").glob("*.py"))) <= MOST_AT_THE_TOP


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("x = 1  # of mallopt(3)\n", True),
        ("# In fp32\nx = 1\n", True),
        ("# The first line\n# of two is a phrase.\nx = 1\n", False),
        ("x = 1  # the sum\n", False),
        ("x = 1  # for\n", False),
    ],
)
def test_the_check_of_comments_itself(source: str, wrong: bool, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert any(OPENING.match(text) for _, text in comments(path)) is wrong


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("def f(a, b, c, d, e, f, g, h): ...\n", False),
        ("def f(a, b, c, d, e, f, g, *, h, i): ...\n", True),
        ("@triton.jit\ndef f(a, b, c, d, e, f, g, h, i): ...\n", False),
        ("def f():\n" + "    x = 1\n" * 59, False),
        ("def f():\n" + "    x = 1\n" * 60, True),
    ],
)
def test_the_check_of_functions_itself(source: str, wrong: bool, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert bool(too_large(path)) is wrong
