"""A shell line of a page, held against the command that it gives: parsed as the command would, never carried out."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from experiments.compare.__main__ import composed as composed_comparison
from experiments.config.compose import CONF, composed, register

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE)
VARIABLES = {*re.findall(r"^([A-Z]+) \??=", MAKEFILE, re.MULTILINE), *re.findall(r"\$[({]([A-Z]+)[)}]", MAKEFILE)}
EXTRAS = re.findall(r'^        "(\w+)": ', (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE)
SHELL = ("cd", "export", "git")  # and `. .venv/bin/activate`
OTHERS = ("pytest", "venv")  # modules of others that a page may run


class Parsed(BaseException):
    """Raised in place of what a command would do with its arguments; they are its argument."""


def check(line: str) -> None:
    """Raise an error that says why where the line is no command, or one that its program would refuse."""
    words = shlex.split(line, comments=True)
    if not words or words[0] in SHELL or words == [".", ".venv/bin/activate"]:
        return
    program, *rest = words
    if program == "make":
        check_make(rest)
    elif program == "pip":
        check_pip(rest)
    elif program in ("python", "python3") and rest[:1] == ["-m"]:
        check_module(rest[1], rest[2:])
    else:
        raise ValueError(f"{line!r}: no page gives a command of this kind")


def check_make(words: list[str]) -> None:
    for word in words:
        name, is_variable, _ = word.partition("=")
        known = VARIABLES if is_variable else TARGETS
        if name not in known:
            raise ValueError(f"make {word}: the Makefile has no {name!r}; it has {', '.join(sorted(known))}")


def check_pip(words: list[str]) -> None:
    if words[0] != "install":
        raise ValueError(f"pip {words[0]}: pages install and no more")
    for word in words[1:]:
        for extra in filter(None, (re.findall(r"\.\[(.*)\]", word) or [""])[0].split(",")):
            if extra not in EXTRAS:
                raise ValueError(f"{word}: setup.py has no extra {extra!r}; it has {', '.join(EXTRAS)}")


def check_module(module: str, words: list[str]) -> None:
    """Let the module's own parser read the words, and compose the Hydra overrides among them."""
    if module in OTHERS:
        return
    if module.split(".")[0] not in ("experiments", "benchmarks"):
        raise ValueError(f"python -m {module}: it is none of this project's commands")
    if module == "experiments.run":
        check_run([word for word in words if word != "-m"])
        return
    if module == "experiments.sequence":
        (tasks,) = (word for word in words if word.startswith("tasks="))
        others = [word for word in words if word != tasks]
        for task in parse([tasks])[0].value():  # type: ignore[union-attr]
            check_run([f"task={task}", *others])
        return
    given = parsed(module, words)
    if module == "experiments.compare":
        composed_comparison(given.overrides)
    if module == "experiments.tune":
        check_run(given.overrides)
    if module == "experiments.data":
        composed([word for word in given.what if "=" in word])


def check_run(words: list[str]) -> None:
    """Compose the configuration of each run; of a sweep, one after another for each value of each key."""
    overrides = parse(words)
    register()
    plain = [first_value(override) for override in overrides]
    versions = [plain]
    for place, override in enumerate(overrides):
        if override.is_sweep_override() and not override.is_hydra_override():
            versions += [[*plain[:place], word, *plain[place + 1 :]] for word in values(override)]
    for version in versions:
        composed([word for word in version if not word.startswith(("hydra", "+sweep"))])
        with initialize_config_dir(str(CONF), version_base="1.3"):
            compose("config", overrides=version, return_hydra_config=True)


def parse(words: list[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(words)


def first_value(override: Override) -> str:
    return next(values(override)) if override.is_sweep_override() else str(override.input_line)


def values(override: Override) -> Iterator[str]:
    """The override once for each value that it sweeps over; for an interval, its beginning."""
    name = override.get_key_element()
    if override.is_interval_sweep():
        yield f"{name}={override.value().start}"  # type: ignore[union-attr]
    else:
        yield from (f"{name}={value}" for value in override.sweep_string_iterator())


def parsed(module: str, words: list[str]) -> argparse.Namespace:
    """The words as the command's own parser reads them. Raises ValueError with its message where it refuses them."""
    spec = find_spec(module)
    if spec is None:
        raise ValueError(f"python -m {module}: there is no such module")
    main = import_module(f"{module}.__main__" if spec.submodule_search_locations else module).main
    with stopped_after_parsing():
        try:
            main(words)
        except Parsed as stop:
            return stop.args[0]
    raise ValueError(f"python -m {module}: it parses no arguments")


@contextmanager
def stopped_after_parsing() -> Iterator[None]:
    """Every parser raises Parsed with its arguments once it has read them, and ValueError where it cannot."""

    def stopping(parse: Any) -> Any:
        def stop(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
            raise Parsed(parse(self, *args, **kwargs))

        return stop

    def refuse(self: argparse.ArgumentParser, message: str) -> None:
        raise ValueError(f"{self.prog}: {message}")

    parser = argparse.ArgumentParser
    with (
        mock.patch.object(parser, "parse_args", stopping(parser.parse_args)),
        mock.patch.object(parser, "parse_intermixed_args", stopping(parser.parse_intermixed_args)),
        mock.patch.object(parser, "error", refuse),
    ):
        yield
