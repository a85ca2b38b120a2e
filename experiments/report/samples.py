"""Predictions side by side: a few test prompts a task, with what each shown method answered."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.report.lines import Run, lines

MOST = 12  # prompts of one task and model
LONGEST = 400  # characters of a text; of a longer one, its beginning and end
BUDGET = 1_200_000  # characters of all texts together


def side_by_side(runs: Sequence[Run], files: Mapping[int, Path], warnings: list[str]) -> list[dict[str, Any]]:
    """For each task and model, test prompts at even distances and the answers of each shown line's first seed.

    Fewer prompts where all texts together would be longer than BUDGET.
    """
    said: dict[tuple[str, str], dict[int, dict[tuple[str, str], dict[str, Any]]]] = defaultdict(dict)
    for group in lines([run for run in runs if run["chosen"]]).values():
        first = min(group, key=lambda run: run["seed"])
        if answers := predictions(files[first["id"]], warnings):
            said[first["task"], first["model"]][first["id"]] = answers
    for n in (MOST, 8, 5, 3, 1):
        made = [_some(task, model, answers, n) for (task, model), answers in said.items()]
        if len(json.dumps(made)) <= BUDGET:
            return made
    return made if said else []


def predictions(file: Path, warnings: list[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """A run's predictions by prompt and gold answer; empty without a file."""
    if not file.is_file():
        return {}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    # Not splitlines(): a text may hold a line separator of Unicode's as it is.
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").rstrip("\n").split("\n"), 1):
        try:
            entry = json.loads(line)
            found.setdefault((entry["prompt"], entry["gold"]), entry)
        except (ValueError, KeyError, TypeError):
            warnings.append(f"{file}:{number}: not a prediction; it cannot be shown as a sample")
    return found


def _some(task: str, model: str, answers: Mapping[int, Mapping[tuple[str, str], Any]], n: int) -> dict[str, Any]:
    longest = max(answers.values(), key=len)
    shared = [place for place in longest if all(place in other for other in answers.values())] or list(longest)
    taken = [shared[i * len(shared) // n] for i in range(n)] if len(shared) > n else shared
    return {
        "task": task,
        "model": model,
        "of": len(longest),
        "prompts": [
            {
                "prompt": shorten(prompt),
                "gold": shorten(gold),
                "part": next((a[prompt, gold].get("part", "") for a in answers.values() if (prompt, gold) in a), ""),
                "answers": [
                    {
                        "run": run,
                        "text": shorten(str(entry[prompt, gold]["prediction"])),
                        "score": entry[prompt, gold].get("score"),
                        "correct": entry[prompt, gold].get("correct"),
                    }
                    for run, entry in answers.items()
                    if (prompt, gold) in entry
                ],
            }
            for prompt, gold in taken
        ],
    }


def shorten(text: str) -> str:
    """The text, or the beginning and the end of a long one."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST * 3 // 4]} … {text[-LONGEST // 4 :]}"
