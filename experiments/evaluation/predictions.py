"""The predictions of a run, a line of JSON an example."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.support.files import write_text
from experiments.tasks.base import Example, Scores


def write_predictions(path: Path, examples: Sequence[Example], predictions: Sequence[str], scores: Scores) -> None:
    """A line an example: its prompt, gold answer, prediction and score; `correct` where the score is 0 or 1."""
    lines = []
    for example, prediction, score in zip(examples, predictions, scores.each, strict=True):
        row: dict[str, Any] = {
            "prompt": prompt_text(example),
            "gold": example.completion,
            "prediction": prediction,
            "score": score,
            "part": example.part,
        }
        if all(each in (0, 1) for each in scores.each):
            row["correct"] = score == 1
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    # Half of a character, which UTF-8 has no bytes for, is written as JSON escapes it.
    write_text(path, "".join(lines).encode("utf-8", "backslashreplace").decode())


def prompt_text(example: Example) -> str:
    return example.messages[-1]["content"] if example.messages else example.text
