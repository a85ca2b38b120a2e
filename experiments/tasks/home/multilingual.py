"""multilingual: a sentence said to a home -> its intent, in several languages, some of which are never trained on.

The same intents in each language, from home-assistant-intents; split by template within each. Training and validation
have the languages of `train_languages` alone; the test has those and `transfer_languages`, each a part of its own.
The labels are the intents of the training languages; a transfer language's other intents are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.tasks.base import Example, TaskData, TaskError, TooFew, content_sha256
from experiments.tasks.home.draw import Draw, drawn
from experiments.tasks.home.ha_intent import example
from experiments.tasks.home.sentences import Home, sources
from experiments.tasks.metrics import classification


def load(config: Any, seed: int) -> TaskData:
    """config: n_train, n_val, n_test (over all languages, in equal shares), train_languages, transfer_languages,
    n_templates (at most, of an intent in a language)."""
    learned, held = list(config.train_languages), list(config.transfer_languages)
    if not learned or len({*learned, *held}) < len(learned) + len(held):
        raise TaskError(
            "task.train_languages needs one or more, and no language stands twice in it and "
            f"task.transfer_languages: {', '.join(learned) or 'none'}; {', '.join(held) or 'none'}"
        )
    labels = tuple(sorted({intent for language in learned for intent in Home.of(language).intents.intents}))
    n_train, n_val = shares(config.n_train, learned), shares(config.n_val, learned)
    train: list[Example] = []
    val: list[Example] = []
    test: list[Example] = []
    for language, n_test in shares(config.n_test, learned + held).items():
        sizes = n_train.get(language, 0), n_val.get(language, 0), n_test
        try:
            parts = drawn(Draw(language, *sizes, seed, labels, config.n_templates))
        except TooFew as few:
            sharing = learned + held if few.part == "test" else learned
            raise TooFew(f"{language}: {few}", few.part, few.available * len(sharing)) from None
        for into, sentences in zip((train, val, test), parts):
            into += [example(said, language) for said in sentences]
    digest = content_sha256(train, val, test)
    return TaskData("multilingual", "classify", train, val, test, labels, digest, sources(), "accuracy", classification)


def shares(total: int, languages: Sequence[str]) -> dict[str, int]:
    """The total in equal shares; what is left over goes one each to the first ones."""
    each, left = divmod(total, len(languages))
    return {language: each + (i < left) for i, language in enumerate(languages)}
