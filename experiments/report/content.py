"""What the page shows, as plain values: every run, its learning curve, its settings, the comparison, the samples.

No number is computed here that a run has not measured, but for the standard error of a test result and the means of
neighbouring training losses, which keep a long curve small.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.report.lines import mark_chosen
from experiments.report.samples import side_by_side
from experiments.report.sections import drawn
from experiments.store import schema
from experiments.store.files import ReportError, beside, find, read
from experiments.store.result import Complete, Result, plain
from experiments.store.schema import columns
from experiments.store.small import essentials
from experiments.store.tables import SWITCHED_OFF

POINTS = 24_000  # all learning curves together have no more, so that the page stays small however many runs there are
FEWEST, MOST = 20, 150  # points of one curve
# Settings that change neither what is learned nor what it is tested on.
NO_VARIANT = (
    *("seed", "optim.lr", "optim.checkpoint_every", "eval.batch_size", "eval.part", "eval.stop_hopeless"),
    *("method.lr_from", "out", "log_every", "threads", "device", "track"),
)
# Kept apart from the run's record: too large, or stored once for all runs.
APART = ("config", "environment", "scores", "groups", "format")


def gather(folders: Sequence[Path], comparison: Path | None = None, title: str | None = None) -> dict[str, Any]:
    """All results under the folders; a file that cannot be shown becomes a warning that the page shows too.

    Raises:
        ReportError: a folder is missing, no result can be read, or the comparison cannot.
    """
    warnings: list[str] = []
    results: list[tuple[Path, Result]] = []
    for path in find(folders):
        try:
            results.append((path, read(path)))
        except ReportError as error:
            warnings.append(str(error))
    if not results:
        raise ReportError("\n".join(warnings))
    results = once(results)
    compared = read_comparison(comparison, folders, warnings)
    points = min(MOST, max(FEWEST, POINTS // len(results)))
    environments, configs = Distinct(), Distinct()
    runs = []
    for number, (path, result) in enumerate(results):
        run = {name: value for name, value in plain(result).items() if name not in APART}
        run |= {
            "id": number,
            "split": result.split,
            "numbers": numbers(result),
            "name": path.name.removesuffix("result.json").rstrip(".") or path.parent.name,
            "environment": environments.index(plain(result.environment)),
            "config": configs.index(flat(result.config)),
            "standard_error": standard_error(result.scores if isinstance(result, Complete) else ()),
            "curve": curve(beside(path, "metrics.jsonl"), points, warnings),
        }
        runs.append(run)
    name_variants(runs, configs.values)
    mark_chosen(runs, compared)
    paths = {run["id"]: beside(path, "predictions.jsonl") for run, (path, _) in zip(runs, results)}
    return finite(
        {
            "title": title or (compared or {}).get("title") or " · ".join(folder.resolve().name for folder in folders),
            "how": (compared or {}).get("how", ""),
            "switched_off": SWITCHED_OFF,
            "runs": runs,
            "columns": {column.name: column.description for column in columns()},
            "environments": environments.values,
            "configs": configs.values,
            "comparison": compared,
            "sequences": read_sequences(folders, warnings),
            "samples": side_by_side(runs, paths, warnings),
            "sections": drawn(runs, configs.values, warnings),
            "warnings": warnings,
        }
    )


def once(results: Sequence[tuple[Path, Result]]) -> list[tuple[Path, Result]]:
    """Each run once, though its small copy be there too; of the two the one with a learning curve."""
    kept: dict[str, tuple[Path, Result]] = {}
    for path, result in results:
        same = json.dumps(essentials(result), sort_keys=True)
        if same not in kept or beside(path, "metrics.jsonl").is_file():
            kept[same] = (path, result)
    return list(kept.values())


def read_comparison(given: Path | None, folders: Iterable[Path], warnings: list[str]) -> dict[str, Any] | None:
    """The comparison at the path given, else those in the folders, put together, else None.

    One that cannot be shown is an error where it was asked for, and else a warning.
    """
    if given:
        return together([given], [one_comparison(given)])
    files, read = [], []
    for file in sorted({file for folder in folders if folder.is_dir() for file in folder.rglob("comparison.json")}):
        try:
            read.append(one_comparison(file))
            files.append(file)
        except ReportError as error:
            warnings.append(str(error))
    return together(files, read) if files else None


def together(files: Sequence[Path], read: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several comparisons as one. Raises ReportError where two are of the same task."""
    tasks: dict[str, Any] = {}
    for one in read:
        if twice := tasks.keys() & one["tasks"].keys():
            raise ReportError(
                f"several comparisons of {', '.join(sorted(twice))}: {', '.join(map(str, files))}; choose one with "
                "--comparison"
            )
        tasks |= one["tasks"]
    title, how = (dict.fromkeys(one.get(name, "") for one in read) for name in ("title", "how"))
    plans = [{name: one.get(name) for name in ("title", "plan", "departures")} for one in read if one.get("plan")]
    merged = {name: value for name, value in read[0].items() if name not in ("plan", "departures")}
    said = {"title": " · ".join(filter(None, title)), "how": "\n\n".join(how)}
    across = [one["across"] for one in read if one.get("across")]
    return {**merged, **said, "tasks": tasks, "across": across, **({"plans": plans} if plans else {})}


def one_comparison(file: Path) -> dict[str, Any]:
    """The comparison in the file. Raises ReportError where it cannot be shown."""
    try:
        compared = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ReportError(f"{file}: not a readable comparison ({error}); run experiments.compare again") from error
    if isinstance(compared, dict) and compared.get("format") == 1:
        raise ReportError(
            f"{file}: key 'format' is 1: its letters and intervals are about examples alone, a test that is no longer "
            "held; run experiments.compare again"
        )
    if not isinstance(compared, dict) or compared.get("format") != 2 or not isinstance(compared.get("tasks"), dict):
        raise ReportError(f"{file}: key 'format' is not 2 or 'tasks' is missing; run experiments.compare again")
    return compared


def read_sequences(folders: Iterable[Path], warnings: list[str]) -> list[dict[str, Any]]:
    """What experiments.sequence left in the folders: the scores on every task after each stage."""
    found = []
    for file in sorted({file for folder in folders if folder.is_dir() for file in folder.rglob("sequence.json")}):
        try:
            one = json.loads(file.read_text(encoding="utf-8"))
            width = len(one["tasks"])
            if not all(len(line) == width for line in (one["base"], one["metrics"], *one["matrix"])):
                raise ValueError("its lines have different lengths")
            found.append(one)
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.append(f"{file}: not a readable sequence ({error}); run experiments.sequence again")
    return found


class Distinct:
    """Equal values stored once, by their index."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._at: dict[str, int] = {}

    def index(self, value: Any) -> int:
        text = json.dumps(value, sort_keys=True)
        if text not in self._at:
            self._at[text] = len(self.values)
            self.values.append(value)
        return self._at[text]


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}; a list of mappings is numbered, any other stays whole."""
    nested = isinstance(config, list) and any(isinstance(item, dict) for item in config)
    pairs = config.items() if isinstance(config, dict) else enumerate(config) if nested else ()
    leaves: dict[str, Any] = {}
    for name, value in pairs:
        leaves |= flat(value, f"{prefix}{name}.")
    return leaves or ({prefix[:-1]: config} if prefix else {})


def numbers(result: Result) -> dict[str, float]:
    """The result's columns that hold a number, by their names; those that do not apply are left out."""
    values = schema.flat(result).items()
    return {name: value for name, value in values if isinstance(value, (int, float)) and not isinstance(value, bool)}


def standard_error(scores: Sequence[float]) -> float | None:
    """s / √n of the main metric's number over the n test examples."""
    return statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None


def curve(file: Path, most: int, warnings: list[str]) -> dict[str, Any] | None:
    """Training loss over steps, each point the mean of `every` neighbouring steps; None without a file.

    A loss that is no number makes a gap. A line that cannot be read, as a killed process leaves it, is a warning.
    """
    if not file.is_file():
        return None
    steps: list[int] = []
    losses: list[float] = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            entry = json.loads(line)
            steps.append(int(entry["step"]))
            losses.append(float(entry["loss"]))
        except (ValueError, KeyError, TypeError):
            warnings.append(f"{file}:{number}: not a line of metrics; its step is missing from the learning curve")
    every = max(1, math.ceil(len(steps) / most))
    starts = range(0, len(steps), every)
    return {
        "every": every,
        "step": [steps[min(i + every, len(steps)) - 1] for i in starts],
        "loss": [float(f"{statistics.fmean(losses[i : i + every]):.4g}") for i in starts],
    }


def name_variants(runs: Sequence[dict[str, Any]], configs: Sequence[dict[str, Any]]) -> None:
    """Say in `variant` by what else than seed and learning rate a method's runs on one task and model differ.

    Those of a search, which are scored on the validation set, are a variant of their own.
    """
    same: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        same[run["task"], run["model"], run["method"], run["split"]].append(run)
    for group in same.values():
        leaves = [configs[run["config"]] for run in group]
        names = dict.fromkeys(name for leaf in leaves for name in leaf)
        differ = [
            name
            for name in names
            if name not in NO_VARIANT
            and not name.startswith("forgetting.")
            and len({json.dumps(leaf[name]) for leaf in leaves if name in leaf}) > 1
        ]
        last = [name.rpartition(".")[2] for name in differ]
        short = {name: end if last.count(end) == 1 else name for name, end in zip(differ, last)}
        for run, leaf in zip(group, leaves):
            said = [f"{short[name]}={leaf[name]}" for name in differ if leaf.get(name) is not None]
            run["variant"] = ", ".join(["search", *said] if run["split"] == "validation" else said)


def finite(value: Any) -> Any:
    """The same with None for every number that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list) else value
