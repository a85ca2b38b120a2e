"""general: plain English text that every Python brings along, for replay and for probes of forgetting.

The topics of Python's language reference (pydoc_data) and the module docstrings of its standard library, cut into
passages of whole paragraphs. A paragraph that stands in several topics is kept in the first alone, and no topic stands
in two parts. The texts are those of the running Python: its version and the hash of the data are recorded.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import platform
import random
import sys
import sysconfig
import tokenize
from collections import deque
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from experiments.tasks.base import Example, TaskData, TaskError, TooFew, content_sha256
from experiments.tasks.metrics import log_likelihood

LONGEST = 1000  # characters of a passage, about 250 tokens; a longer paragraph is cut at a line's end
SHORTEST = 200  # what is left of a topic is dropped below this
TEST_SHARE, VAL_SHARE = 0.25, 0.1  # shares of the topics
SILENT = (tokenize.ENCODING, tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE)


def load(config: Any, seed: int = 0) -> TaskData:
    parts = split(config.n_train, config.n_val, config.n_test, seed)
    digest = content_sha256(parts["train"], parts["val"], parts["test"])
    sources = {"python": platform.python_version()}
    return TaskData(
        "general",
        "text",
        parts["train"],
        parts["val"],
        parts["test"],
        labels=(),
        sha256=digest,
        sources=sources,
        metric="log_likelihood",
        scorer=log_likelihood,
        ceiling=None,
    )


def split(n_train: int, n_val: int, n_test: int, seed: int = 0) -> dict[str, list[Example]]:
    """Passages by part; `group` is the topic. Raises TooFew where the topics of a part have too few."""
    by_topic = passages()
    topics = sorted(by_topic, key=lambda topic: hashlib.sha256(f"{seed}/{topic}".encode()).hexdigest())
    n_held = {"test": round(len(topics) * TEST_SHARE), "val": round(len(topics) * VAL_SHARE)}
    remaining = iter(topics)
    parts = {name: list(islice(remaining, count)) for name, count in n_held.items()} | {"train": list(remaining)}
    rng = random.Random(f"general/{seed}")
    wanted = {"train": n_train, "val": n_val, "test": n_test}
    return {name: drawn(name, n, [by_topic[topic] for topic in parts[name]], rng) for name, n in wanted.items()}


def drawn(part: str, count: int, topics: list[list[Example]], rng: random.Random) -> list[Example]:
    """`count` passages, the topics taking turns so that a long one does not fill the part; shuffled."""
    turns = deque(deque(passages) for passages in topics)
    chosen: list[Example] = []
    while turns and len(chosen) < count:
        topic = turns.popleft()
        chosen.append(topic.popleft())
        if topic:
            turns.append(topic)
    if len(chosen) < count:
        message = f"task.n_{part}={count}: its topics have only {len(chosen)} passages; ask for fewer"
        raise TooFew(message, part, len(chosen))
    rng.shuffle(chosen)
    return chosen


def passages() -> dict[str, list[Example]]:
    """The passages of every topic that has any, in the text's order."""
    seen: set[str] = set()
    by_topic = {}
    for topic, text in texts():
        fresh = []
        for paragraph in text.replace("\r\n", "\n").split("\n\n"):
            for piece in pieces(paragraph.strip("\n").rstrip()):
                content = " ".join(piece.split())
                if content and content not in seen:
                    seen.add(content)
                    fresh.append(piece)
        by_topic[topic] = [Example(group=topic, text=passage) for passage in joined(fresh) if len(passage) >= SHORTEST]
    return {topic: examples for topic, examples in by_topic.items() if examples}


def joined(pieces: list[str]) -> Iterator[str]:
    """Paragraphs put together up to LONGEST characters."""
    text = ""
    for piece in pieces:
        if text and len(text) + 2 + len(piece) > LONGEST:
            yield text
            text = ""
        text = f"{text}\n\n{piece}" if text else piece
    yield text


def pieces(paragraph: str) -> Iterator[str]:
    """A paragraph in pieces of whole lines, each up to LONGEST characters where its lines allow it."""
    text = ""
    for line in paragraph.split("\n"):
        if text and len(text) + 1 + len(line) > LONGEST:
            yield text
            text = ""
        text = f"{text}\n{line}" if text else line
    yield text


def texts() -> Iterator[tuple[str, str]]:
    """(topic, text): the topics of the language reference, then the modules of the standard library."""
    try:
        topics = import_module("pydoc_data.topics").topics
    except ImportError:
        raise TaskError(
            f"the Python at {sys.executable} comes without pydoc_data, which task=general reads; "
            "install its full standard library (Debian: libpython3-stdlib)"
        ) from None
    yield from sorted(topics.items())
    library = Path(sysconfig.get_path("stdlib"))
    for module in sorted(sys.stdlib_module_names):
        for file in (library / f"{module}.py", library / module / "__init__.py"):
            if file.is_file() and (text := docstring(file)):
                yield f"module {module}", text


def docstring(file: Path) -> str:
    """What a module says of itself, or "". Reads no further than its first statement: parsing all takes 4 s."""
    with tokenize.open(file) as lines:
        for token in tokenize.generate_tokens(lines.readline):
            if token.type in SILENT:
                continue
            if token.type != tokenize.STRING:
                return ""
            value = ast.literal_eval(token.string)
            return inspect.cleandoc(value) if isinstance(value, str) else ""
    return ""
