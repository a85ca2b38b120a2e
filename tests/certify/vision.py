"""Image models of timm and torchvision, where those are installed: the smallest of every family."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import warnings
from typing import Any

from torch import nn

from tests.certify.architectures import Architecture, CannotBuild, Subject, checked, installed, roughened
from tests.certify.batches import normal

SMALL = re.compile(r"atto|femto|pico|nano|tiny|mini|small|_xxs|_xs|_s\d?$|18|_b0|_t$|lite")


def architectures() -> list[Architecture]:
    listed = []
    if installed("timm"):
        timm = importlib.import_module("timm")
        for family in timm.list_modules():
            names = sorted(timm.list_models(module=family), key=lambda n: (not SMALL.search(n), len(n), n))
            listed += [Architecture(f"timm:{n}", "timm", functools.partial(timm_model, n)) for n in names[:1]]
    if installed("torchvision"):
        models: Any = importlib.import_module("torchvision.models")
        families: dict[str, list[str]] = {}
        for name in models.list_models(module=models):
            families.setdefault(re.split(r"[\d_]", name)[0], []).append(name)
        for names in families.values():
            first = sorted(names, key=lambda n: (not SMALL.search(n), len(n), n))[0]
            listed.append(
                Architecture(f"torchvision:{first}", "torchvision", functools.partial(torchvision_model, first))
            )
    return listed


def timm_model(name: str) -> Subject:
    timm: Any = importlib.import_module("timm")
    return pictured(lambda **sizes: timm.create_model(name, num_classes=3, **sizes), {"img_size": 64})


def torchvision_model(name: str) -> Subject:
    models: Any = importlib.import_module("torchvision.models")
    return pictured(lambda **sizes: models.get_model(name, weights=None, num_classes=3, **sizes), {"image_size": 64})


def pictured(make: Any, sizes: dict[str, int]) -> Subject:
    """The model on small pictures where it takes them, else on ones of 224."""
    reason: Exception | None = None
    for given, side in ((sizes, 64), ({}, 64), ({}, 224)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model: nn.Module = roughened(make(**given))
            return checked(Subject(model, {first_input(model): normal(2, 3, side, side)}))
        except Exception as error:
            reason = error
    raise CannotBuild(str(reason))


def first_input(model: nn.Module) -> str:

    return next(iter(inspect.signature(model.forward).parameters))
