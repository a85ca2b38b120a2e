"""What the generated tasks share: drawing parts template by template, and keeping them in the cache.

A stream is an endless or ending iterator of the examples of one template. A part takes one example of each of
its streams in turn, so every template counts alike however many sentences it could give.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from experiments.support.cache import cached
from experiments.tasks.base import Example, Scorer, TaskData, TooFew, content_sha256

T = TypeVar("T")
Parts = tuple[list[Example], list[Example], list[Example]]  # train, val, test
MISSES = 50  # drawn in a row without a new example that end a stream


def take(
    part: str,
    streams: Sequence[Iterator[Example]],
    count: int,
    taken: set[str],
    rng: random.Random,
    identity: Callable[[Example], Iterable[str]],
) -> list[Example]:
    """`count` examples, one of each stream in turn, shuffled; none has an identity in `taken`, where theirs go after.

    Identities are what may not stand in two parts (a prompt, a gold answer); within a part only prompts must differ.
    Raises TooFew where the streams do not give as many.
    """
    queue = deque(rng.sample(streams, len(streams)))
    drawn: list[Example] = []
    prompts: set[str] = set()
    while len(drawn) < count:
        if not queue:
            message = f"task.n_{part}: {count} examples are asked of templates that give {len(drawn)}: lower it"
            raise TooFew(message, part, len(drawn))
        stream = queue.popleft()
        fresh = (one for one in stream if taken.isdisjoint(identity(one)) and asked(one) not in prompts)
        example = next(fresh, None)
        if example is not None:
            prompts.add(asked(example))
            drawn.append(example)
            queue.append(stream)
    for example in drawn:
        taken.update(identity(example))
    rng.shuffle(drawn)
    return drawn


def deal(items: Sequence[T], counts: dict[str, int], rng: random.Random) -> dict[str, list[T]]:
    """The items in a random order: `counts` of them for each part that it names, the others for train."""
    left = rng.sample(items, len(items))
    dealt: dict[str, list[T]] = {}
    for part, count in counts.items():
        dealt[part], left = left[:count], left[count:]
    return {"train": left, **dealt}


def asked(example: Example) -> str:
    """All that is said before the answer."""
    return "\n".join(turn["content"] for turn in example.messages) or example.text


def distinct(draw: Callable[[], Example | None]) -> Iterator[Example]:
    """What `draw` gives, each prompt once; ends after MISSES draws in a row that were None or known."""
    seen: set[str] = set()
    misses = 0
    while misses < MISSES:
        example = draw()
        if example is None or asked(example) in seen:
            misses += 1
            continue
        misses = 0
        seen.add(asked(example))
        yield example


def user(content: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": content},)


def generated(
    name: str,
    made_by: Sequence[str],
    packages: Sequence[str],
    values: Sequence[object],
    generate: Callable[[], Parts],
    metric: str,
    scorer: Scorer,
) -> TaskData:
    """The task whose parts `generate` draws, or finds in the cache; its sources are the packages' versions.

    The cache's key is a hash of all that makes the parts: made_by (the paths of the code), packages, values (sizes and
    seed).
    """
    sources = {package: version(package) for package in packages}

    def parts() -> list[list[dict[str, object]]]:
        return [[asdict(example) for example in part] for part in generate()]

    stored = kept(f"{name}-{key([*made_by, __file__], sources, values)}", parts)
    train, val, test = ([_example(row) for row in part] for part in stored)
    return TaskData(
        name=name,
        kind="generate",
        train=train,
        val=val,
        test=test,
        labels=(),
        sha256=content_sha256(train, val, test),
        sources=sources,
        metric=metric,
        scorer=scorer,
    )


def kept(name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, as JSON, made once and kept in the cache; that it is too few is kept as well."""

    def build(into: Path) -> None:
        try:
            content = {"made": make()}
        except TooFew as few:
            content = {"too few": (str(few), few.part, few.available)}
        (into / "made.json").write_text(json.dumps(content))

    stored = json.loads((cached(name, build) / "made.json").read_text())
    if "too few" in stored:
        raise TooFew(*stored["too few"])
    return stored["made"]


def key(made_by: Sequence[str], sources: dict[str, str], values: Sequence[object] = ()) -> str:
    code = [Path(file).read_bytes() for file in made_by]
    return hashlib.sha256(repr((sources, code, values)).encode()).hexdigest()[:16]


def _example(row: dict[str, object]) -> Example:
    return Example(**{name: tuple(value) if isinstance(value, list) else value for name, value in row.items()})  # type: ignore[arg-type]
