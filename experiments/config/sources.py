"""The sources that can change a run's numbers, as a hash: runs of other sources are other runs.

They are deltatune with its kernels, and, of these experiments, what carrying out a run imports from the rooms of
NUMERIC: another task's module is none of them. Files of data that lie beside the sources count as they are; comments,
docstrings and empty lines count for nothing.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from experiments import ROOT
from experiments.config.compose import task_config
from experiments.config.schema import Config
from experiments.config.tasks import TASKS

NUMERIC = ("data", "evaluation", "models", "objectives", "run", "tasks", "training")
DATA = (".json", ".jsonl", ".yaml")
RUN = "experiments.run.execute"


def sources_sha256(config: Config) -> str:
    """The hash for this run: of the tasks, its own counts, and those that it is probed or replayed with."""
    texts = [entry for entry in config.forgetting.texts if " " in entry]  # what is only a name is imported anyway
    entries = [*texts, *config.forgetting.tasks, *(config.data.replay_from if config.data.replay else [])]
    names = [config.task.name, *(task_config(entry).name for entry in entries if not entry.endswith(".jsonl"))]
    loads = (TASKS[name].load for name in names if name in TASKS)
    return digest((RUN, *sorted({load for load in loads if isinstance(load, str)})))


@cache
def digest(modules: tuple[str, ...]) -> str:
    """The hash of the library, of these modules, and of what they import from the rooms of NUMERIC."""
    hashed = hashlib.sha256()
    for name, file in [*library(), *sorted(imported(modules).items()), *data_files()]:
        hashed.update(f"{name} {file_sha256(file)}\n".encode())
    return hashed.hexdigest()[:16]


@cache
def library() -> list[tuple[str, Path]]:
    """The files of deltatune and of its kernels, which lie in a folder of their own in a checkout."""
    spec = find_spec("deltatune")
    folders = [Path(place) for place in (spec.submodule_search_locations if spec else None) or ()]
    roots = {"deltatune": folders[0]} if folders else {}
    if (kernels := ROOT / "kernels" / "fused").is_dir():
        roots["deltatune/kernels"] = kernels
    return sorted(
        (f"{name}/{file.relative_to(root)}", file)
        for name, root in roots.items()
        for file in root.rglob("*")
        if file.suffix in (".py", *DATA)
    )


@cache
def data_files() -> list[tuple[str, Path]]:
    """The files of data in the rooms of NUMERIC."""
    rooms = (ROOT / "experiments" / room for room in NUMERIC)
    files = sorted(file for room in rooms for file in room.rglob("*") if file.suffix in DATA)
    return [(str(file.relative_to(ROOT)), file) for file in files]


def imported(modules: tuple[str, ...]) -> dict[str, Path]:
    """By module, the files of these modules and of all that they import, wherever in a file the import stands."""
    files: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        room = name.split(".")[1:2]
        if name in files or name.split(".")[0] != "experiments" or not room or room[0] not in NUMERIC:
            continue
        place = ROOT.joinpath(*name.split("."))
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if file.is_file():
            files[name] = file
            waiting += imports(file.read_bytes())
    return files


@cache
def nodes(text: bytes) -> list[ast.AST]:
    """Every node of a program; `ast.walk` takes twice the time."""
    tree: list[ast.AST] = [ast.parse(text)]
    for node in tree:  # which grows meanwhile
        for value in vars(node).values():
            if isinstance(value, ast.AST):
                tree.append(value)
            elif isinstance(value, list):
                tree += [each for each in value if isinstance(each, ast.AST)]
    return tree


@cache
def imports(text: bytes) -> tuple[str, ...]:
    """What a program imports: modules, and names of modules that may be modules themselves."""
    names: set[str] = set()
    for node in nodes(text):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
    return tuple(sorted(names))


def file_sha256(file: Path) -> str:
    """The hash of what a file says to the interpreter; of one of data, of all it holds."""
    text = file.read_bytes()
    return hashlib.sha256(text).hexdigest() if file.suffix in DATA else code_sha256(text)


@cache
def code_sha256(text: bytes) -> str:
    return hashlib.sha256("\n".join(code_lines(text)).encode()).hexdigest()


def code_lines(text: bytes) -> list[str]:
    """The lines of a program without comments, docstrings, and what is then empty.

    What is left of the text is taken and no form that Python gives it, so that every version of Python says the same.
    """
    lines = text.splitlines()
    strings, docstrings, kept = [], [], set()
    for node in nodes(text):
        if isinstance(node, (ast.JoinedStr, ast.Constant)):
            strings.append(span(node))
            kept |= set(range(node.lineno - 1, (node.end_lineno or 1) - 1))  # these end inside a string
        scope = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if scope and ast.get_docstring(node, clean=False) is not None:
            docstrings.append(span(node.body[0]))
    for row, line in enumerate(lines):
        # A # that stands in no string opens a comment.
        marks = [i for i, character in enumerate(line) if character == ord("#")] if b"#" in line else []
        if outside := [i for i in marks if not any(start <= (row, i) < end for start, end in strings)]:
            lines[row] = line[: outside[0]]
    for (row, column), (last, end) in sorted(docstrings, reverse=True):
        rest = lines[last][end:]
        lines[row : last + 1] = [lines[row][:column], *[b""] * (last - row)]
        lines[last] += rest
        kept -= set(range(row, last + 1))
    return [
        line.decode() if row in kept else line.decode().rstrip()
        for row, line in enumerate(lines)
        if line.strip() or row in kept
    ]


def span(node: ast.expr | ast.stmt) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where a node begins and ends: its row, from 0, and its column in bytes."""
    return (node.lineno - 1, node.col_offset), ((node.end_lineno or node.lineno) - 1, node.end_col_offset or 0)
