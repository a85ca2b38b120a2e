"""A run's directory, and every key of its files, from the trees that read and write them."""

from __future__ import annotations

from collections.abc import Iterable

from docs.generators.text import inline, page, table
from experiments.store.lines import Prediction, Step
from experiments.store.result import Complete, Environment
from experiments.store.schema import Key, keys

FILES = {
    "config.yaml": "the whole configuration as it was composed, plugins and all",
    "environment.json": "versions, machine and commit; the keys of `environment` below",
    "metrics.jsonl": "a line for each training step",
    "predictions.jsonl": "a line for each example that was scored, with the answer",
    "delta.safetensors": "what was trained; `model.safetensors` where the method trains every weight, and no such "
    "file where it trains nothing",
    "checkpoints/": "what an interrupted run goes on from; removed when the run is complete",
    "run.log": "the output of a run that a sweep or a comparison started",
    "lock": "held by the process that is at work in the directory",
    "result.json": "every number of the run; it is written last, so a directory without it is a run that has not ended",
}


def page_of_runs() -> str:
    """The page: the files, then the keys of each."""
    return page(
        "# Runs",
        "A run leaves one directory, named after its model, task, method, seed and the hash of its configuration; the "
        "same command finds it again, and does nothing where the run is complete.",
        table(["file", "what it holds"], [[f"`{name}`", inline(text)] for name, text in FILES.items()]),
        "`python -m experiments.store` makes tables of these files, and `experiments.report` a page.",
        "## result.json",
        "A key of an inner object is written with dots, and `*` stands for names that the run gives. Units are in the "
        "meaning: sizes are in bytes, times in seconds, losses in nats. A failed run has the keys up to `environment` "
        "alone.",
        key_table(keys(Complete)),
        "## metrics.jsonl",
        "Each line is an optimizer step.",
        key_table(keys(Step)),
        "## predictions.jsonl",
        "Each line is an example of the split, in the order of `scores`.",
        key_table(keys(Prediction)),
        "## environment.json",
        "The same keys stand in `result.json` under `environment`.",
        key_table(keys(Environment)),
    )


def key_table(listed: Iterable[Key]) -> str:
    return table(
        ["key", "type", "meaning"], [[f"`{each.name}`", each.type, inline(each.description)] for each in listed]
    )
