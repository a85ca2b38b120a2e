"""What keeps a model from forgetting, shown on the runs of a sweep.

    python -m experiments.run -m +sweep=forgetting model=smollm2 task=ha_json out=runs/forgetting
    python -m experiments.mitigations runs/forgetting

Runs are put together over their seeds by method, learning rate and share of replay. Each condition is held against the
one that differs from it in a single measure: replay against none; a lower learning rate against the method's highest; a
method against full fine-tuning. The difference is of KL(base ‖ tuned), nats a token of text that the base wrote, paired
by text and seed (experiments/compare/statistics.py); below zero less was forgotten. The corpora after whose beginnings
it was written are of another source than what is replayed: a run sees to that. Perplexity of a text alone can fall
below the base's where its kind was learned, so no effect is read from it.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from experiments.compare.statistics import compare
from experiments.store.files import find, read
from experiments.store.result import Complete, Result
from experiments.store.schema import flat
from experiments.store.tables import SWITCHED_OFF, ending, terminal
from experiments.support.output import lasting_output


class Condition(NamedTuple):
    """What a sweep varies beside the seed."""

    method: str
    lr: float
    replay: float

    def __str__(self) -> str:
        return f"{self.method}, lr {self.lr:g}, replay {self.replay:g}"


class Effect(NamedTuple):
    """KL to the base, nats a token, against another condition; low, high: its interval."""

    against: Condition
    difference: float
    low: float
    high: float
    p: float


Runs = dict[Condition, dict[int, Complete]]  # the inner key is the seed


def conditions(rows: Iterable[Result]) -> Runs:
    """The complete, trained runs whose model writes text. Raises ValueError where they cannot stand in one table, or
    where a run may have been probed with what it replayed, as those of before were."""
    runs: Runs = defaultdict(dict)
    seen: dict[str, Path | None] = {}
    for one in rows:
        if not isinstance(one, Complete) or one.lr is None or flat(one)["perplexity_after"] is None:
            continue
        condition = Condition(one.method, one.lr, one.config["data"]["replay"])
        if condition.replay and one.forgetting is not None and one.forgetting.corpora is None:
            raise ValueError(f"{one.file}: an older run, which could be probed with what it replayed; run it again")
        if one.seed in runs[condition]:
            raise ValueError(f"{one.file}: a second run of {condition}, seed {one.seed}; give the runs of one sweep")
        runs[condition][one.seed] = one
        seen.setdefault(f"{one.model}, {one.task}, {one.steps} steps", one.file)
    if len(seen) > 1:
        raise ValueError(f"runs of several sweeps: {'; '.join(f'{what} ({file})' for what, file in seen.items())}")
    return dict(sorted(runs.items()))


def reference(condition: Condition, runs: Runs) -> Condition | None:
    """The condition that differs in one measure; None where there is none, or it was not run."""

    def highest(method: str) -> float:
        return max((run.lr for run in runs if run.method == method), default=0.0)

    if condition.replay:
        other = condition._replace(replay=0.0)
    elif condition.lr < highest(condition.method):
        other = condition._replace(lr=highest(condition.method))
    else:
        other = Condition("full", highest("full"), 0.0)
    return other if other in runs and other != condition else None


def effect(condition: Condition, against: Condition, runs: Runs) -> Effect | None:
    """The difference over the seeds that both were run with; None where there is no such seed."""
    seeds = sorted(runs[condition].keys() & runs[against].keys())
    if not seeds:
        return None
    of: dict[str, dict[int | None, list[float]]] = {
        str(c): {seed: kept(runs[c][seed]) for seed in seeds} for c in (condition, against)
    }
    (pair,) = compare(of).pairs
    # kept is minus the KL, and the pair is the better one minus the worse
    if pair.a == str(condition):
        return Effect(against, -pair.difference, -pair.high, -pair.low, pair.p)
    return Effect(against, pair.difference, pair.low, pair.high, pair.p)


def kept(one: Complete) -> list[float]:
    """Minus the KL to the base, a token, of each text that the base wrote."""
    assert one.forgetting is not None and one.forgetting.texts.kl is not None
    return [-kl for kl in one.forgetting.texts.kl]


def table(runs: Runs) -> Table:
    """A line for each condition, with what it forgot more or less than its reference."""
    first = next(one for by_seed in runs.values() for one in by_seed.values())
    lines = Table(title=f"Forgetting: {first.model} trained on {first.task}, {first.steps} steps")
    lines.add_column("method")
    for name in ("lr", "replay", "seeds", first.metric, "perplexity", "KL a token"):
        lines.add_column(name, justify="right")
    lines.add_column("KL less or more, against", no_wrap=True)
    for condition, by_seed in runs.items():
        other = reference(condition, runs)
        change = effect(condition, other, runs) if other else None
        rows = list(by_seed.values())
        numbers = [flat(one) for one in rows]
        lines.add_row(
            condition.method,
            f"{condition.lr:g}",
            f"{condition.replay:g}",
            str(len(rows)),
            f"{mean('score', numbers):.3f}",
            f"{mean('perplexity_before', numbers):.2f} → {mean('perplexity_after', numbers):.2f}",
            f"{mean('kl_per_token', numbers):.4f}",
            f"{change.difference:+.3f} [{change.low:+.3f}, {change.high:+.3f}]  {change.against}" if change else "–",
        )
    return lines


def mean(column: str, numbers: Sequence[dict[str, Any]]) -> float:
    return sum(each[column] or 0.0 for each in numbers) / len(numbers)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m experiments.mitigations", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of the runs of one sweep")
    folders = parser.parse_args(argv).folders
    runs = conditions(read(file) for file in find(map(Path, folders)))
    if not runs:
        raise SystemExit(f"{', '.join(folders)}: no complete run that trained a model of text and measured forgetting")
    terminal().print(table(runs))
    print(f"KL: nats a token, to the base, on text that it wrote. {SWITCHED_OFF}")
    return 0


if __name__ == "__main__":
    lasting_output()
    raise SystemExit(ending(main))
