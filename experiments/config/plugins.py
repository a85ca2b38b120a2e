"""Plugins: modules of the user's own, which add to the tables of methods, tasks, metrics, … when they are imported.

`plugins=[mine,./other.py]` names them, as modules or files seen from where the command is given. A distribution that
has an entry point of the group `deltatune.plugins` is loaded by itself. Both are known before Hydra composes, since
their tasks, methods and models are choices of its groups. A run's configuration lists each plugin that it uses, and
its key has the hash of the plugin's source.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from experiments.config.table import LOADING, TABLES, PluginError

GROUP = "deltatune.plugins"


def load_for(overrides: Sequence[str]) -> None:
    """Import what `plugins=` among the overrides names, and what is installed. Raises PluginError."""
    load(named(overrides))
    load_installed()


def named(overrides: Sequence[str]) -> list[str]:
    """The names that plugins=[…] gives. What Hydra cannot read it will itself complain of."""
    names: list[str] = []
    for word in overrides:
        if word.lstrip("+").startswith("plugins="):
            try:
                value = OverridesParser.create().parse_override(word).value()
            except HydraException:
                continue
            names += map(str, value if isinstance(value, list) else [value])
    return names


def load(names: Iterable[str], key: str = "plugins") -> None:
    """Import the plugins, each once in a process. key: of the configuration, for messages. Raises PluginError."""
    for name in names:
        LOADING.append(name)
        try:
            imported(name, key)
        finally:
            LOADING.pop()


@cache
def load_installed() -> None:
    """Import every installed plugin, once; one that cannot be imported is warned of, as the run may not need it."""
    for name in installed():
        try:
            load([name])
        except PluginError as error:
            print(f"warning: {error}", file=sys.stderr)


@cache
def installed() -> dict[str, EntryPoint]:
    """The entry points of the group, by name; a scan of all that is installed, so once a process."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def imported(name: str, key: str) -> ModuleType:
    """The plugin's module, imported from where the command is given, or from where it is installed."""
    module = module_of(name)
    folder = Path(name).resolve().parent if name.endswith(".py") else Path.cwd()
    if name.endswith(".py") and not Path(name).is_file():
        raise PluginError(f"{key}={name}: there is no such file, seen from {Path.cwd()}")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        plugin = import_module(module)
    except PluginError:  # its own message names the line
        raise
    except Exception as error:  # whatever the user's code raises
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and (module == missing or module.startswith(f"{missing}.")):
            others = ", ".join(installed()) or "none"
            raise PluginError(
                f"{key}={name}: cannot be imported: no module {missing!r} in {Path.cwd()} or among what is installed; "
                f"name a module or a file.py (installed plugins: {others})"
            ) from None
        raise PluginError(
            f"{key}={name}: cannot be imported: {place(error, name)}: {type(error).__name__}: {error}"
        ) from error
    file = getattr(plugin, "__file__", None)
    if name.endswith(".py") and (file is None or Path(file).resolve() != Path(name).resolve()):
        raise PluginError(f"{key}={name}: Python has another module {module!r}, of {file}; give the file another name")
    return plugin


def module_of(name: str) -> str:
    """The module that a name stands for: an entry point's, a file's, or the name itself."""
    if name.endswith(".py"):
        return Path(name).stem
    entry = installed().get(name)
    return entry.module if entry else name


def place(error: Exception, name: str) -> str:
    """The file and line of the plugin at which its import failed."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    machinery = [i for i, frame in enumerate(frames) if frame.filename.startswith("<frozen importlib")]
    theirs = [f for f in frames[machinery[0] :] if not f.filename.startswith("<")] if machinery else []
    own = [frame for frame in theirs if frame.filename == theirs[0].filename]  # what it calls is deeper
    return f"{own[-1].filename}:{own[-1].lineno}" if own else name


def used(values: Any) -> list[str]:
    """The plugins that have added anything which these values of a configuration name."""
    words = set(_words(values))
    origins = (origin for table in TABLES for name, origin in table.origins.items() if name in words)
    return sorted({origin.plugin for origin in origins})


def _words(values: Any) -> Iterator[str]:
    """Every word of every text in nested values: "sql task.n_test=5" names the task sql."""
    if isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _words(value)
    elif isinstance(values, str):
        yield from values.split()


def source_sha256(name: str) -> str | None:
    """The hash of a plugin's file or, of a package, of all its .py files; None where there is none."""
    files = sources(name)
    if len(files) == 1:
        return hashlib.sha256(files[0].read_bytes()).hexdigest()
    each = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return hashlib.sha256("/".join(each).encode()).hexdigest() if files else None


def sources(name: str) -> list[Path]:
    """The plugin's files."""
    if name.endswith(".py"):
        return [Path(name)] if Path(name).is_file() else []
    module = module_of(name)
    file = getattr(sys.modules.get(module), "__file__", None)
    try:
        spec = None if file else find_spec(module)
    except (ImportError, ValueError):
        return []
    path = Path(file or (spec.origin if spec and spec.origin else ""))
    if not path.is_file():
        return []
    return sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
