"""Imports go strictly down: every module of the library stands on a floor and imports lower ones alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "deltatune"

FLOORS = {
    "deltatune.kernels": 0,
    "deltatune.attention": 1,
    "deltatune.convolution": 1,
    "deltatune.core": 1,
    "deltatune.fast": 1,
    "deltatune.functional": 1,
    "deltatune.loss": 1,
    "deltatune.maps": 1,
    "deltatune.hosts": 1,
    "deltatune.blocks": 1,
    "deltatune.matrices": 1,
    "deltatune.token_tables": 1,
    "deltatune.examples": 1,
    "deltatune.shadow": 1,
    "deltatune.values": 1,
    "deltatune.repeats": 1,
    "deltatune.trace": 1,
    "deltatune.sublayers": 1,
    "deltatune.heads": 1,
    "deltatune.structure": 1,
    "deltatune.sites": 1,
    "deltatune.products": 1,
    "deltatune.written": 1,
    "deltatune.freed_memory": 1,
    "deltatune.containers": 2,
    "deltatune.deltafile": 2,
    "deltatune.hidden": 2,
    "deltatune.methods": 2,
    "deltatune.strengths": 2,
    "deltatune.late": 2,
    "deltatune.fingerprint": 2,
    "deltatune.still": 1,
    "deltatune.hyperparameters": 2,
    "deltatune.host": 3,
    "deltatune.call": 3,
    "deltatune.swap": 3,
    "deltatune.select": 3,
    "deltatune.together": 3,
    "deltatune.plan": 4,
    "deltatune.prompts": 4,
    "deltatune.switching": 4,
    "deltatune.inject": 4,
    "deltatune.merge": 4,
    "deltatune.io": 4,
    "deltatune.hf": 5,
    "deltatune": 6,
}
# Imports inside a floor that are meant: the algebra, what a host is and the hand-written backwards are the ground of
# floor 1, the class swap that of floor 3, the plan and inject that of floor 4 (load and diff put deltas in as it does),
# and DoRA is a LoRA.
SIDEWAYS = {
    ("deltatune.attention", "deltatune.fast"),
    ("deltatune.attention", "deltatune.functional"),
    ("deltatune.functional", "deltatune.core"),
    ("deltatune.functional", "deltatune.fast"),
    ("deltatune.loss", "deltatune.fast"),
    ("deltatune.hosts", "deltatune.maps"),
    ("deltatune.maps", "deltatune.convolution"),
    ("deltatune.maps", "deltatune.core"),
    ("deltatune.hosts", "deltatune.core"),
    ("deltatune.matrices", "deltatune.core"),
    ("deltatune.matrices", "deltatune.hosts"),
    ("deltatune.matrices", "deltatune.maps"),
    ("deltatune.blocks", "deltatune.maps"),
    ("deltatune.blocks", "deltatune.core"),
    ("deltatune.blocks", "deltatune.hosts"),
    ("deltatune.call", "deltatune.host"),
    ("deltatune.still", "deltatune.maps"),
    ("deltatune.swap", "deltatune.call"),
    ("deltatune.swap", "deltatune.host"),
    ("deltatune.products", "deltatune.attention"),
    ("deltatune.products", "deltatune.core"),
    ("deltatune.written", "deltatune.products"),
    ("deltatune.written", "deltatune.core"),
    ("deltatune.token_tables", "deltatune.hosts"),
    ("deltatune.examples", "deltatune.hosts"),
    ("deltatune.shadow", "deltatune.core"),
    ("deltatune.shadow", "deltatune.maps"),
    ("deltatune.trace", "deltatune.attention"),
    ("deltatune.trace", "deltatune.hosts"),
    ("deltatune.trace", "deltatune.maps"),
    ("deltatune.trace", "deltatune.shadow"),
    ("deltatune.trace", "deltatune.values"),
    ("deltatune.sublayers", "deltatune.values"),
    ("deltatune.heads", "deltatune.values"),
    ("deltatune.structure", "deltatune.values"),
    ("deltatune.sublayers", "deltatune.trace"),
    ("deltatune.heads", "deltatune.hosts"),
    ("deltatune.heads", "deltatune.sublayers"),
    ("deltatune.heads", "deltatune.trace"),
    ("deltatune.structure", "deltatune.examples"),
    ("deltatune.structure", "deltatune.heads"),
    ("deltatune.structure", "deltatune.hosts"),
    ("deltatune.structure", "deltatune.maps"),
    ("deltatune.structure", "deltatune.repeats"),
    ("deltatune.structure", "deltatune.sublayers"),
    ("deltatune.structure", "deltatune.trace"),
    ("deltatune.sites", "deltatune.blocks"),
    ("deltatune.sites", "deltatune.core"),
    ("deltatune.sites", "deltatune.hosts"),
    ("deltatune.sites", "deltatune.maps"),
    ("deltatune.sites", "deltatune.matrices"),
    ("deltatune.sites", "deltatune.structure"),
    ("deltatune.together", "deltatune.host"),
    ("deltatune.inject", "deltatune.prompts"),
    ("deltatune.inject", "deltatune.plan"),
    ("deltatune.inject", "deltatune.switching"),
    ("deltatune.io", "deltatune.switching"),
    ("deltatune.merge", "deltatune.switching"),
    ("deltatune.io", "deltatune.plan"),
    ("deltatune.merge", "deltatune.plan"),
    ("deltatune.io", "deltatune.inject"),
    ("deltatune.merge", "deltatune.inject"),
    ("deltatune.methods.dora", "deltatune.methods.lora"),
}


def floor(module: str) -> int:
    """The floor of the nearest listed package; `deltatune` itself lists no module but its own __init__."""
    name = module
    while name not in FLOORS:
        name = name.rpartition(".")[0]
    assert name != "deltatune" or module == name, f"{module} stands on no floor; give it one in FLOORS"
    return FLOORS[name]


def imports(path: Path, module: str) -> Iterator[str]:
    """Every module of deltatune that the file imports, at its top or inside a function."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    modules = {name_of(file) for file in LIBRARY.rglob("*.py")} | {"deltatune.kernels"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*up, *([node.module] if node.module else [])])
            # `from deltatune import core` imports a module, `from deltatune.core import Frozen` a name of one
            found = [f"{source}.{a.name}" if f"{source}.{a.name}" in modules else source for a in node.names]
        else:
            continue
        yield from (name for name in found if name.split(".")[0] in ("deltatune", "experiments", "benchmarks"))


def name_of(path: Path) -> str:
    parts = ("deltatune", *path.relative_to(LIBRARY).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def wrong_imports(path: Path, module: str) -> list[str]:
    wrong = []
    for imported in dict.fromkeys(imports(path, module)):
        # a package gathers its own modules
        own = imported.startswith(f"{module}.") and path.name == "__init__.py"
        if own or (module, imported) in SIDEWAYS:
            continue
        if imported.split(".")[0] != "deltatune" or floor(imported) >= floor(module):
            wrong.append(f"{module} imports {imported}")
    return wrong


def test_imports_go_strictly_down() -> None:
    files = sorted(LIBRARY.rglob("*.py"))
    assert len(files) > 10
    assert [line for path in files for line in wrong_imports(path, name_of(path))] == []


@pytest.mark.parametrize(
    ("module", "line", "allowed"),
    [
        ("deltatune.core", "from deltatune.hosts import frozen", False),
        ("deltatune.core", "from deltatune import hosts", False),
        ("deltatune.core", "def f():\n    from .hosts import frozen", False),
        ("deltatune.hosts", "from deltatune.core import Frozen", True),
        ("deltatune.methods.lora", "from deltatune.methods.dora import DoRA", False),
        ("deltatune.methods.lora", "from .dora import DoRA", False),
        ("deltatune.methods.lora", "from deltatune.functional import low_rank", True),
        ("deltatune.methods.dora", "from deltatune.methods.lora import LoRA", True),
        ("deltatune.swap", "import deltatune.inject", False),
        ("deltatune.inject", "import experiments.run", False),
        ("deltatune.inject", "import deltatune", False),
        ("deltatune.functional", "import deltatune.kernels", True),
    ],
)
def test_the_floor_check_itself(module: str, line: str, allowed: bool, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(line)
    assert (wrong_imports(path, module) == []) is allowed
