"""Markdown from what the package says of itself in plain prose."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"(`[^`]+`)")
# Markdown's own signs; a line or a dash inside a word is none.
# What would begin a list or a heading, `1.` or `-` or `#`; a backslash escapes signs alone, never a digit.
LIST = re.compile(r"(?m)^(\d*)([.)]|(?<!\d)[-+#])(?=\s|#)")
SIGNS = re.compile(r"[\\*\[\]<|]|(?<!\w)_|_(?!\w)|^>", re.MULTILINE)


def table(headers: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    rows = [headers, [":--"] * len(headers), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows)


def prose(text: str) -> str:
    """A docstring as Markdown: its signs are kept as they are, `code` is code, indented lines are a block of code."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.splitlines()
        while lines:
            indented = lines[0].startswith(" ")
            n = next((i for i, line in enumerate(lines) if line.startswith(" ") != indented), len(lines))
            part, lines = lines[:n], lines[n:]
            if indented:
                blocks.append("```text\n" + inspect.cleandoc("\n" + "\n".join(part)) + "\n```")
            else:
                blocks.append(inline("\n".join(part)))
    return "\n\n".join(blocks)


def inline(text: str) -> str:
    """Running text with Markdown's own signs escaped outside of `code`."""
    parts = CODE.split(text)
    escaped = [part if CODE.fullmatch(part) else re.sub(SIGNS, r"\\\g<0>", part) for part in parts]
    return LIST.sub(r"\1\\\2", "".join(escaped))


def doc(thing: Any) -> str:
    """The docstring that an object itself has."""
    return inspect.cleandoc(thing.__doc__ or "")


def module_doc(path: Path) -> str:
    """The docstring of a file, which is not imported."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def page(*blocks: str) -> str:
    """A page of the blocks that say something."""
    return "\n\n".join(block.strip("\n") for block in blocks if block) + "\n"


def rest(lines: Sequence[str]) -> list[str]:
    """A docstring as reStructuredText, for autodoc: prose, `code`, and indented lines as they stand."""
    written: list[str] = []
    inside = False
    for line in lines:
        indented = line.startswith(" ")
        if indented and not inside:
            written += ["", "::", ""]
        if inside and line and not indented:
            written.append("")
        inside = indented or (inside and not line)
        written.append(line if indented else rest_line(line))
    return written


def rest_line(line: str) -> str:
    """A line of running text with the signs of reStructuredText escaped outside of `code`."""
    parts = CODE.split(line)
    text = "".join(
        f"``{part[1:-1]}``\\ " if CODE.fullmatch(part) else re.sub(r"([\\*_|`])", r"\\\1", part) for part in parts
    ).removesuffix("\\ ")
    return re.sub(r"^(\(?\w[.)]\s|[-+•:.=~#]|>>>)", r"\\\1", text)
