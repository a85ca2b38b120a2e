"""The rooms of experiments/: imports go strictly down the table of CONTRIBUTING.md, and planning needs no torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"
ROW = re.compile(r"^\| (\d+) \| `(\w+)/` \| ([^|]*) \|", re.MULTILINE)
WITHOUT_TORCH = ("config", "store", "sweep", "compare", "report")


def table() -> dict[str, tuple[int, set[str]]]:
    """Each room's floor and the rooms that it may import, as CONTRIBUTING.md has them."""
    rows = ROW.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    return {room: (int(floor), set(re.findall(r"`(\w+)`", allowed))) for floor, room, allowed in rows}


def rooms() -> set[str]:
    return {path.parent.name for path in EXPERIMENTS.glob("*/__init__.py")}


def imports(path: Path) -> Iterator[str]:
    """The rooms, or modules at the top of experiments/, that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports here are absolute"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        for module in modules:
            package, _, rest = module.partition(".")
            if package == "experiments" and rest != "ROOT":
                yield rest.partition(".")[0]
            assert package not in ("tests", "benchmarks"), f"{path}:{node.lineno} imports {package}"


def wrong_imports(path: Path, room: str) -> list[str]:
    """The file's imports that the table does not allow; a `__main__` is a command, which may import any room."""
    if path.name == "__main__.py":
        return []
    allowed = table()[room][1] | {room}
    return [f"{path.name} imports {other}" for other in dict.fromkeys(imports(path)) if other not in allowed]


def test_the_table_has_every_room_once() -> None:
    rows = ROW.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert sorted(room for _, room, _ in rows) == sorted(rooms())


def test_what_a_room_may_import_lies_on_lower_floors() -> None:
    floors = table()
    for room, (floor, allowed) in floors.items():
        assert all(floors[other][0] < floor for other in allowed), room


@pytest.mark.parametrize("room", sorted(rooms()))
def test_imports_go_down_the_table(room: str) -> None:
    files = sorted((EXPERIMENTS / room).rglob("*.py"))
    assert [line for path in files for line in wrong_imports(path, room)] == []


@pytest.mark.parametrize(
    ("room", "line", "allowed"),
    [
        ("store", "from experiments.config.schema import Config", True),
        ("store", "from experiments.sweep import pool", False),
        ("config", "def f():\n    import experiments.data.gate", False),
        ("training", "from experiments.run.execute import run", False),
        ("run", "from experiments.training.loop import train", True),
        ("run", "from experiments import ROOT", True),
        ("run", "from experiments import demo", False),
    ],
)
def test_the_check_of_imports_itself(room: str, line: str, allowed: bool, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(line)
    assert (wrong_imports(path, room) == []) is allowed


def test_planning_needs_no_torch() -> None:
    files = [path for room in WITHOUT_TORCH for path in sorted((EXPERIMENTS / room).rglob("*.py"))]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    code = (
        f"import importlib, sys\nfor name in {modules!r}:\n    if not name.endswith('die_with_parent'):\n"
        "        importlib.import_module(name)\n"
        "sys.exit(', '.join({'torch', 'transformers'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
