"""The reference: public names of the library and of its extension points, whose docstrings autodoc renders."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import deltatune as dt
from docs.generators.text import page
from experiments import extend
from experiments.data.batch import Batch
from experiments.data.encode import Cut, Encoded, Encoder, Option
from experiments.data.reader import Reader
from experiments.objectives.base import Objective
from experiments.training.tracker import About

CONTRACTS = (Objective, Reader, Encoder, Encoded, Option, Cut, Batch, About)
TERMS = (dt.Frozen, dt.Stacked, dt.Opaque, dt.Features)
LOOPS = ("linear_cross_entropy", "fast_attention", "keep_freed")
# What belongs to each page of the library's public names, so that a new name finds its page by itself.
GROUPS: dict[str, tuple[str, str, Callable[[Any], bool]]] = {
    "methods": (
        "Methods",
        "Each method is a class of deltas, put into a model by rules that `on` makes.",
        lambda each: (inspect.isclass(each) and issubclass(each, dt.DeltaModule)) or each is dt.Rule,
    ),
    "verbs": (
        "Verbs",
        "A verb acts on a model in place or says what is in it; with the deltas out, the model is the original again.",
        lambda each: inspect.isfunction(each) or each is dt.Plan,
    ),
    "terms": (
        "Terms",
        "A term is what a delta is given as its base: the host's own function, or other deltas around it.",
        lambda each: each in TERMS,
    ),
    "errors": (
        "Errors",
        "Every error that deltatune raises on purpose is a `DeltaError`, so one `except` has them all.",
        lambda each: inspect.isclass(each) and issubclass(each, BaseException),
    ),
}


def pages() -> dict[str, str]:
    """The index and a page for each group of names."""
    texts = {name: library_page(name) for name in GROUPS}
    texts["loops"] = page(
        "# Training loops",
        "A loop of one's own can use what a run of experiments does for memory and speed.",
        *(entry(home(name), name) for name in LOOPS),
    )
    texts["extend"] = extension_page()
    return {f"api/{name}.md": text for name, text in texts.items()} | {"api/index.md": index([*texts, "names"])}


def home(name: str) -> Any:
    """The module of the library that defines a function which `import deltatune` does not bring."""
    for module in (import_module(f"deltatune.{each.name}") for each in pkgutil.iter_modules(dt.__path__)):
        if getattr(getattr(module, name, None), "__module__", None) == module.__name__:
            return module
    raise LookupError(f"no module of deltatune defines {name}; put LOOPS right")


def index(names: Iterable[str]) -> str:
    return page(
        "# Reference",
        "The reference is made from the docstrings: of `import deltatune`, and of what a plugin imports from "
        "`experiments.extend`.",
        "```{toctree}\n:maxdepth: 2\n\n" + "\n".join(names) + "\n```",
    )


def library_page(group: str) -> str:
    title, about, belongs = GROUPS[group]
    return page(f"# {title}", about, *(entry(dt, name) for name in public() if belongs(getattr(dt, name))))


def public() -> list[str]:
    """The library's public names, each of which has a page; the table METHODS is the list of methods itself.

    Raises LookupError for a name that no group, or more than one, claims.
    """
    names = [name for name in dt.__all__ if name != "METHODS"]
    for name in names:
        if sum(belongs(getattr(dt, name)) for _, _, belongs in GROUPS.values()) != 1:
            raise LookupError(f"deltatune.{name} has no page of its own in the reference; name its group in GROUPS")
    return names


def extension_page() -> str:
    decorators = [name for name in extend.__all__ if inspect.isfunction(getattr(extend, name))]
    classes = [name for name in extend.__all__ if name not in decorators]
    return page(
        "# Extension points",
        "A plugin imports these names from `experiments.extend`; the [recipes](../extending/index.md) use them.",
        "## Decorators and functions",
        *(entry(extend, name) for name in decorators),
        "## Classes",
        *(entry(extend, name) for name in classes),
        "## Contracts",
        "A run's `Result` (`experiments/store/result.py`) is one tree; the page on [runs](../runs.md) has its keys. "
        "The other contracts are these classes.",
        *(directive("autoclass", f"{each.__module__}.{each.__name__}", members=True) for each in CONTRACTS),
    )


def entry(module: Any, name: str) -> str:
    """The reference of a name as it is imported from the module; of a class with its members."""
    each = getattr(module, name)
    if inspect.isclass(each):
        return directive("autoclass", f"{module.__name__}.{name}", members=not issubclass(each, BaseException))
    return directive("autofunction", f"{module.__name__}.{name}")


def directive(kind: str, name: str, members: bool = False) -> str:
    option = "\n   :members:" if members else ""
    return f"```{{eval-rst}}\n.. {kind}:: {name}{option}\n```"
