"""Figures of a base model in the cache: a function of the base, of where it computes, and of what it is asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

import deltatune as dt
from experiments.data.reader import Reader
from experiments.evaluation import probes
from experiments.support.cache import cached

FORMAT = 2  # the version of what the cache keeps: raise it when what is measured changes


class Kept:
    """Files in the cache, each made once."""

    def __init__(self, reader: Reader) -> None:
        model, device = reader.model, reader.device
        # A task head is new and random; the base is what is under it.
        under: Any = model if reader.writes else model.base_model
        self.base = [
            FORMAT,
            dt.fingerprint(under),
            str(next(model.parameters()).dtype),
            torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            torch.get_num_threads(),  # sums are split by it, so the last bits follow it
            torch.__version__,
            transformers.__version__,
        ]

    def __call__(self, kind: str, what: Any, make: Callable[[Path], None]) -> Path:
        """The file that make(file) writes, made once."""
        key = hashlib.sha256(json.dumps([self.base, what]).encode()).hexdigest()[:16]
        return cached(f"forgetting-{kind}-{key}", lambda folder: make(folder / "file")) / "file"

    def numbers(self, kind: str, what: Any, make: Callable[[], list[float]]) -> list[float]:
        return json.loads(self(kind, what, lambda file: _write(file, make())).read_text())


def _write(file: Path, numbers: list[float]) -> None:
    file.write_text(json.dumps(numbers, allow_nan=False))


def keep_written(file: Path, reader: Reader, starts: Sequence[list[int]]) -> None:
    """Texts that the base writes, and its logits on them: T × V numbers a text in its own dtype, so that they are exact
    and those of an unchanged model are the same to the bit. They let KL be taken where the base is gone, as after
    full fine-tuning, and one text at a time."""
    texts = probes.continuations(reader, starts)
    logits = {str(i): t.cpu().contiguous() for i, t in enumerate(probes.logits_of(reader, texts))}
    save_file(logits, file, {"texts": json.dumps([asdict(text) for text in texts])})


def keep_features(file: Path, reader: Reader, texts: Sequence[list[int]]) -> None:
    save_file({"features": probes.features(reader, texts)}, file)
