"""A training part that is drawn of a larger pool, while validation and test stay what `task.seed` makes them.

So that runs of several draws meet the same test. The pool is the whole records of files, else twice n_train examples of
the same templates, or as many as these give. What shares a prompt or a group with validation or test is left out of it.
The draw keeps the pool's shares of the parts (languages, categories). Where an answer is a label or is written it shows
every one that validation or test ask for and that the pool has, as far as n_train goes: each label, each fact.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from experiments.config.tasks import FilesConfig
from experiments.tasks.base import TRAITS, Example, TaskData, TaskError, TooFew, content_sha256

Load = Callable[[Any, int], TaskData]


def redrawn(load: Load, config: Any, seed: int, draw: int) -> TaskData:
    """The task with the n_train training examples that `draw` takes of the pool.

    Where the pool is no larger than n_train the data are those of the seed alone, and `pool` is their number.
    """
    n_train = getattr(config, "n_train", None)
    if n_train is not None and isinstance(config, FilesConfig):
        data = load(replace(config, n_train=None), seed)
        pool = data.train if len(data.train) > n_train else []
    else:
        data = load(config, seed)
        pool = [] if n_train is None else apart(larger(load, config, seed), [*data.val, *data.test])
    if n_train is None or len(pool) <= n_train:
        data = load(config, seed) if isinstance(config, FilesConfig) else data
        return replace(data, pool=len(data.train))
    taught = data.kind == "generate" or TRAITS[data.kind].labelled
    asked = {answer for e in [*data.val, *data.test] for answer in e.accepted} if taught else set()
    train = chosen(pool, n_train, asked, random.Random(f"draw {seed} {draw}"))
    digest = content_sha256(train, data.val, [*data.test, *data.apart])
    return replace(data, train=train, sha256=digest, pool=len(pool))


def larger(load: Load, config: Any, seed: int) -> list[Example]:
    """Twice n_train training examples of the same seed, or as many as there are; [] where there are no more."""
    try:
        return load(replace(config, n_train=2 * config.n_train), seed).train
    except TooFew as few:
        more = few.available if few.part == "train" else 0
    except TaskError:
        more = 0
    return load(replace(config, n_train=more), seed).train if more > config.n_train else []


def apart(pool: Iterable[Example], held: Sequence[Example]) -> list[Example]:
    """What has no prompt and no group of the held examples."""
    groups = {example.group for example in held} - {""}
    prompts = {prompt(example) for example in held}
    return [example for example in pool if example.group not in groups and prompt(example) not in prompts]


def prompt(example: Example) -> tuple[object, ...]:
    turns = tuple((turn["role"], turn["content"]) for turn in example.messages)
    return turns, example.text, example.text_pair, example.choices


def chosen(pool: Sequence[Example], count: int, asked: Collection[str], rng: random.Random) -> list[Example]:
    """`count` of the pool in a random order, with the pool's shares of the parts; first an example of every answer that
    is asked for."""
    shown: set[str] = set()
    first: list[Example] = []  # one for each answer that is asked for, so that none is lost
    others: list[Example] = []
    for example in rng.sample(pool, len(pool)):
        if example.completion in asked and example.completion not in shown:
            shown.add(example.completion)
            first.append(example)
        else:
            others.append(example)
    quota = shares([example.part for example in pool], count)
    drawn: list[Example] = []
    for example in [*first, *others]:
        if quota[example.part]:
            quota[example.part] -= 1
            drawn.append(example)
    rng.shuffle(drawn)
    return drawn


def shares(parts: Sequence[str], count: int) -> dict[str, int]:
    """How many of `count` each part gets, in proportion to how often it stands here; largest remainders first."""
    exact = {part: n * count / len(parts) for part, n in sorted(Counter(parts).items())}
    whole = {part: int(share) for part, share in exact.items()}
    by_remainder = sorted(exact, key=lambda part: whole[part] - exact[part])
    for part in by_remainder[: count - sum(whole.values())]:
        whole[part] += 1
    return whole
