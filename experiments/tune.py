"""Search hyperparameters of a run by TPE (Optuna), each trial a run of its own.

    python -m experiments.tune method=lora task=ha_json out=runs/search --trials 20 --slots 2
    python -m experiments.tune method=lora 'optim.lr=tag(log,interval(1e-4,1e-2))' \\
        'method.rules.0.hparams.rank=choice(4,8,16)' 'optim.warmup_steps=int(interval(0,30))' --objective exact_match

What is to be searched is written as Hydra's sweeps: interval(a,b), tag(log,interval(a,b)), int(interval(a,b)),
range(a,b,step), choice(x,y) or x,y. Where optim.lr is not given it is searched between a tenth and ten times the
method's default, on a log scale. The objective is measured on the validation set alone; the test set's numbers lie in
the runs' results and are not looked at.

Every trial is in a journal in `out`, named by a hash of what is asked for, so that the same command goes on where it
was stopped, with more trials if it says so. The plain library is used because hydra-optuna-sweeper wants Optuna 2.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from rich.console import Console
from rich.table import Table

from experiments.store.result import Complete
from experiments.support.files import write_json
from experiments.support.output import lasting_output
from experiments.sweep.arm import Arm
from experiments.sweep.pool import carry_out

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

LR_FACTOR = 10.0  # the search goes that far down and up from the method's default learning rate
DIGITS = 3  # a number that was drawn keeps so many
SHOWN = 10  # trials in the table at the end
LOWER_IS_BETTER = ("loss", "perplexity")


def space(overrides: Sequence[str]) -> tuple[list[str], dict[str, BaseDistribution]]:
    """The overrides that are fixed, and what is searched, by key. Raises ValueError for a sweep that is no range."""
    from optuna.distributions import FloatDistribution

    fixed: list[str] = []
    searched: dict[str, BaseDistribution] = {}
    for item in OverridesParser.create().parse_overrides(list(overrides)):
        if item.is_sweep_override():
            searched[item.get_key_element()] = distribution(item)
        else:
            fixed.append(str(item.input_line))
    if not any(name.removeprefix("+") == "optim.lr" for name in [*searched, *(word.split("=")[0] for word in fixed)]):
        start = Arm((*fixed, *first(searched))).config.optim.lr
        searched["optim.lr"] = FloatDistribution(start / LR_FACTOR, start * LR_FACTOR, log=True)
    if not searched:
        raise ValueError("nothing is searched: give an interval or a choice, or leave optim.lr out")
    return fixed, searched


def distribution(item: Override) -> BaseDistribution:
    """Hydra's sweep as a distribution of Optuna."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = item.value()
    if isinstance(value, ChoiceSweep):
        return CategoricalDistribution([plain(choice) for choice in value.list])
    if isinstance(value, RangeSweep):
        values = tuple(plain(number) for number in value.range())
        return CategoricalDistribution(values)
    if isinstance(value, IntervalSweep):
        assert value.start is not None and value.end is not None
        log = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=log)
        return FloatDistribution(value.start, value.end, log=log)
    raise ValueError(f"{item.input_line}: not searchable; write interval(a,b), range(a,b) or choice(x,y)")


def plain(value: Any) -> bool | int | float | str | None:
    """A choice as a value that an override can say: quoted strings lose their quotes."""
    return value if value is None or isinstance(value, bool | int | float) else getattr(value, "text", str(value))


def first(searched: dict[str, Any]) -> list[str]:
    """Overrides with a value of each distribution, to compose a configuration with."""
    return [
        f"{name}={written(kind.choices[0] if hasattr(kind, 'choices') else kind.low)}"
        for name, kind in searched.items()
    ]


def written(value: Any) -> str:
    """A value as an override writes it."""
    return "null" if value is None else str(value)


def arm(fixed: Sequence[str], trial: Trial | FrozenTrial) -> Arm:
    """The trial's run."""
    return Arm((*fixed, *(f"{name}={value}" for name, value in values(trial).items())))


def values(trial: Trial | FrozenTrial) -> dict[str, str]:
    """The trial's values by key; those drawn from an interval of real numbers with DIGITS digits."""
    from optuna.distributions import FloatDistribution

    real = {name for name, kind in trial.distributions.items() if isinstance(kind, FloatDistribution)}
    return {name: f"{value:.{DIGITS}g}" if name in real else written(value) for name, value in trial.params.items()}


def open_study(journal: Path, name: str, minimize: bool) -> Study:
    """The study in the journal, made where there is none."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=name,
        storage=JournalStorage(JournalFileBackend(str(journal))),
        direction="minimize" if minimize else "maximize",
        load_if_exists=True,
    )
    # A seed of its own for each continuation: the same one would draw the first trials' values again.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials), constant_liar=True)
    return study


def search(
    study: Study, fixed: Sequence[str], searched: dict[str, BaseDistribution], n_trials: int, slots: int, name: str
) -> None:
    """Carry trials out, as many at a time as there are slots, until `n_trials` have ended; first those cut off."""
    from optuna.trial import TrialState

    cut_off = study.get_trials(states=(TrialState.RUNNING,))
    while (n_left := n_trials - sum(trial.state.is_finished() for trial in study.trials)) > 0:
        size = min(slots, n_left)
        batch: list[Trial | FrozenTrial] = [*cut_off[:size]]
        cut_off = cut_off[size:]
        batch += [study.ask(searched) for _ in range(size - len(batch))]
        for trial, row in zip(batch, carry_out([arm(fixed, trial) for trial in batch], slots)):
            if isinstance(row, Complete):
                study.tell(trial.number, objective(row, name), skip_if_finished=True)
            else:
                # A pruned trial counts as a bad one, so that values which diverge are not drawn again and again.
                study.tell(trial.number, state=TrialState.PRUNED, skip_if_finished=True)


def objective(row: Complete, name: str) -> float:
    """The row's validation number of that name."""
    if name not in row.validation:
        raise ValueError(f"--objective {name}: the runs measure {', '.join(row.validation)} on their validation set")
    return row.validation[name]


def show(study: Study, fixed: Sequence[str], name: str, file: Path) -> int:
    """The trials, the best first, on the console and as JSON; 1 where none was completed."""
    ended = [trial for trial in study.trials if trial.state.is_finished()]
    done = [trial for trial in ended if trial.value is not None]
    done.sort(key=lambda trial: trial.value or 0.0, reverse=name not in LOWER_IS_BETTER)
    trials = done + [trial for trial in ended if trial.value is None]
    table = Table(*(values(trials[0]) if trials else ()), f"validation {name}", box=None)
    for trial in trials[:SHOWN]:
        table.add_row(*values(trial).values(), "failed" if trial.value is None else f"{trial.value:.4f}")
    console = Console()
    console.print(table)
    records = [{"number": trial.number, "values": values(trial), name: trial.value} for trial in trials]
    write_json(file, {"fixed": list(fixed), "objective": name, "trials": records})
    if not done:
        return 1
    command = " ".join(("python -m experiments.run", *arm(fixed, done[0]).overrides))
    console.print(f"best: {command}", soft_wrap=True, markup=False, highlight=False)
    return 0


def tune(given: argparse.Namespace) -> int:
    """Search as asked, and show the trials."""
    fixed, searched = space(given.overrides)
    asked = [*sorted(fixed), *(f"{name}={kind}" for name, kind in sorted(searched.items())), given.objective]
    name = hashlib.sha256("\n".join(asked).encode()).hexdigest()[:12]
    out = Path(Arm((*fixed, *first(searched))).config.out)
    study = open_study(out / f"tune-{name}.journal", name, given.objective in LOWER_IS_BETTER)
    search(study, fixed, searched, given.trials, given.slots, given.objective)
    return show(study, fixed, given.objective, out / f"tune-{name}.json")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, fixed or to be searched")
    parser.add_argument("--trials", type=int, default=20, help="in all, earlier ones included (%(default)s)")
    parser.add_argument("--slots", type=int, default=1, help="trials at a time (%(default)s)")
    parser.add_argument("--objective", default="loss", help="a validation number (%(default)s)")
    given = parser.parse_intermixed_args(argv)
    try:
        import optuna  # noqa: F401
    except ImportError:
        print(
            "error: the search needs optuna: pip install -c constraints.txt -e '.[experiments,sweep]'", file=sys.stderr
        )
        return 2
    try:
        return tune(given)
    except (ValueError, HydraException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    lasting_output()
    raise SystemExit(main())
