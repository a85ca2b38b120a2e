"""The search: what it reads as a range, what it runs, that it goes on where it was; the runs are replaced."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

import pytest

from experiments import tune
from experiments.store.result import Result
from experiments.sweep.arm import Arm

pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[sweep]'")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from benchmarks.made_up import made_up_failure, made_up_result
from tests.support.runs import config

BASE = ("model=tiny", "task=ha_json", "method=lora", "optim=quick")
LR = config(*BASE).method.lr  # the default


class Runs:
    """In place of the pool: a loss that is least at lr 3e-3; NaN above 6e-3."""

    def __init__(self) -> None:
        self.batches: list[list[Arm]] = []
        self.stop_after = math.inf

    def __call__(self, arms: list[Arm], slots: int) -> list[Result]:
        if sum(map(len, self.batches)) >= self.stop_after:
            raise KeyboardInterrupt
        self.batches.append(arms)
        return [self.row(arm.config.optim.lr) for arm in arms]

    def row(self, lr: float) -> Result:
        if lr > 6e-3:
            return made_up_failure("lora", "NotFinite: step 2", lr=lr)
        loss = abs(math.log10(lr / 3e-3))
        return made_up_result("lora", lr=lr, validation={"loss": loss, "exact_match": 1 - loss})


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    made = Runs()
    monkeypatch.setattr(tune, "carry_out", made)
    return made


def record(folder: Path) -> dict:
    (file,) = folder.glob("tune-*.json")
    return json.loads(file.read_text())


def test_hydra_sweeps_are_the_space():
    fixed, searched = tune.space(
        [
            *BASE,
            "optim.lr=tag(log,interval(1e-4,1e-2))",
            "optim.warmup_steps=int(interval(0,30))",
            "method.rules.0.hparams.rank=choice(4,8)",
            "optim.batch_size=int(interval(1,8))",
            "seed=range(0,6,2)",
            "optim.decay=linear,'cosine'",
        ]
    )
    assert fixed == list(BASE)
    assert searched == {
        "optim.lr": FloatDistribution(1e-4, 1e-2, log=True),
        "optim.warmup_steps": IntDistribution(0, 30),
        "method.rules.0.hparams.rank": CategoricalDistribution([4, 8]),
        "optim.batch_size": IntDistribution(1, 8),
        "seed": CategoricalDistribution([0, 2, 4]),
        "optim.decay": CategoricalDistribution(["linear", "cosine"]),
    }


def test_the_learning_rate_is_searched_around_the_methods_default():
    assert tune.space(BASE)[1] == {"optim.lr": FloatDistribution(LR / 10, LR * 10, log=True)}
    assert tune.space(["method=bitfit,lora", "model=tiny"])[1]["method"] == CategoricalDistribution(["bitfit", "lora"])
    assert tune.space([*BASE, "optim.lr=1e-3", "seed=1,2"])[1] == {"seed": CategoricalDistribution([1, 2])}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["optim.lr=1e-3"], "nothing is searched"),
        (["task=glob(*)"], r"task=glob\(\*\): not searchable; write interval"),
        (["seed=1,2", "optim.steps=0"], "optim.steps=0: must be at least 1"),
        (["method=lorra"], "Could not find 'method/lorra'"),
        (["--objective", "bleu"], "--objective bleu: the runs measure loss, exact_match"),
    ],
)
def test_what_cannot_be_searched_is_refused(runs, capsys, tmp_path, given, message):
    assert tune.main([*BASE, f"out={tmp_path}", *given]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_it_finds_the_best_and_goes_on_where_it_was(runs, capsys, tmp_path):
    command = [*BASE, f"out={tmp_path}", "--slots", "3"]
    runs.stop_after = 6
    with pytest.raises(KeyboardInterrupt):
        tune.main([*command, "--trials", "14"])
    assert [len(batch) for batch in runs.batches] == [3, 3]
    runs.stop_after = math.inf
    assert tune.main([*command, "--trials", "14"]) == 0
    assert [len(batch) for batch in runs.batches] == [3, 3, 3, 3, 2]
    rates = [arm.config.optim.lr for batch in runs.batches for arm in batch]
    assert len(set(rates)) > 10  # the second start does not draw the first one's values again
    assert all(LR / 10 <= lr <= LR * 10 for lr in rates)
    assert {len(f"{lr:.10g}".lstrip("0.")) for lr in rates} <= {1, 2, 3}
    trials = record(tmp_path)["trials"]
    assert len(trials) == 14
    best = float(trials[0]["values"]["optim.lr"])
    assert abs(math.log10(best / 3e-3)) == pytest.approx(min(abs(math.log10(lr / 3e-3)) for lr in rates if lr <= 6e-3))
    said = capsys.readouterr().out
    assert f"best: python -m experiments.run model=tiny task=ha_json method=lora optim=quick out={tmp_path}" in said
    assert f"optim.lr={best:g}" in said
    n = len(runs.batches)
    assert tune.main([*command, "--trials", "14"]) == 0
    assert len(runs.batches) == n
    assert tune.main([*command, "--trials", "15"]) == 0
    assert len(runs.batches) == n + 1


def test_what_was_cut_off_is_run_first(runs, tmp_path):
    command = [*BASE, f"out={tmp_path}", "--trials", "4", "--slots", "2"]
    runs.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        tune.main(command)
    (journal,) = tmp_path.glob("tune-*.journal")
    study = tune.open_study(journal, journal.stem.removeprefix("tune-"), True)
    open_trials = study.get_trials(states=(TrialState.RUNNING,))
    assert len(open_trials) == 2
    runs.stop_after = math.inf
    assert tune.main(command) == 0
    assert [tune.values(trial)["optim.lr"] for trial in open_trials] == [
        f"{arm.config.optim.lr:.3g}" for arm in runs.batches[1]
    ]
    assert sum(map(len, runs.batches)) == 4


def test_rates_that_diverge_are_drawn_less(runs, tmp_path):
    assert tune.main([*BASE, f"out={tmp_path}", "optim.lr=tag(log,interval(1e-3,1))", "--trials", "30"]) == 0
    rates = [arm.config.optim.lr for batch in runs.batches for arm in batch]
    n_bad = [sum(lr > 6e-3 for lr in part) for part in (rates[:10], rates[-10:])]
    assert n_bad[1] < n_bad[0]
    trials = record(tmp_path)["trials"]
    assert sum(trial["loss"] is None for trial in trials) == sum(lr > 6e-3 for lr in rates)
    assert trials[-1]["loss"] is None  # those that failed come last


def test_a_metric_is_maximized(runs, tmp_path):
    assert tune.main([*BASE, f"out={tmp_path}", "--trials", "5", "--objective", "exact_match"]) == 0
    values = [trial["exact_match"] for trial in record(tmp_path)["trials"] if trial["exact_match"] is not None]
    assert values == sorted(values, reverse=True)


def test_all_trials_failed(runs, tmp_path):
    assert tune.main([*BASE, f"out={tmp_path}", "optim.lr=interval(0.1,1)", "--trials", "2"]) == 1


def test_without_optuna_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert tune.main([*BASE]) == 2
    assert "pip install" in capsys.readouterr().err
