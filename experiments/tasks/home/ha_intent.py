"""ha_intent: a sentence said to an English home -> its intent, one of the package's; split by template."""

from __future__ import annotations

from typing import Any

from experiments.tasks.base import Example, TaskData, content_sha256
from experiments.tasks.home.draw import Draw, drawn
from experiments.tasks.home.sentences import Home, Said, sources
from experiments.tasks.metrics import classification


def load(config: Any, seed: int) -> TaskData:
    parts = drawn(Draw("en", config.n_train, config.n_val, config.n_test, seed))
    train, val, test = ([example(said) for said in part] for part in parts)
    labels, digest = tuple(sorted(Home.of("en").intents.intents)), content_sha256(train, val, test)
    return TaskData("ha_intent", "classify", train, val, test, labels, digest, sources(), "accuracy", classification)


def example(said: Said, language: str = "") -> Example:
    """language: where there are several, it is the part, and the template's group is its own."""
    group = f"{language} {said.template}" if language else said.template
    return Example(completion=said.intent, group=group, text=said.text, part=language)
