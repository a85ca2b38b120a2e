"""The streams of chance in a run: each has a seed of its own, drawn from the run's seed or given."""

from __future__ import annotations

import hashlib

from experiments.config.schema import STREAMS, Config


def chosen(config: Config) -> dict[str, int]:
    """The number of every stream: seeds.<stream> where it is given, else the run's seed."""
    given = {name: getattr(config.seeds, name) for name in STREAMS}
    return {name: config.seed if number is None else number for name, number in given.items()}


def stream(config: Config, name: str) -> int:
    """The seed of a stream's generator, of 32 bits: no two streams draw the same numbers, though theirs be alike."""
    return int.from_bytes(hashlib.sha256(f"{name} {chosen(config)[name]}".encode()).digest()[:4], "big")
