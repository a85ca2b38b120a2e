"""Multirun: our launcher and what it hands on, and the launchers of others with real runs of the tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import experiments.sweep.pool as pool
from benchmarks.made_up import made_up_failure, made_up_result
from experiments.run.__main__ import main
from experiments.store.result import Result
from experiments.sweep.arm import Arm
from tests.support.runs import ROOT, overrides, own_cache_and_torch_settings, words  # noqa: F401 - a fixture


class Pool:
    """In place of carry_out: what it was given, and rows, those of bitfit failed."""

    def __init__(self) -> None:
        self.arms: list[Arm] = []
        self.slots = 0

    def __call__(self, arms: list[Arm], slots: int) -> list[Result]:
        self.arms, self.slots = arms, slots
        return [self.row(arm.config.method.name, arm.config.seed) for arm in arms]

    def row(self, method: str, seed: int) -> Result:
        if method == "bitfit":
            return made_up_failure(method, seed=seed)
        return made_up_result(method, seed=seed, validation={"loss": 0.5})


def multirun(monkeypatch: pytest.MonkeyPatch, *given: str) -> Pool:
    made = Pool()
    monkeypatch.setattr(pool, "carry_out", made)
    monkeypatch.setattr(sys, "argv", ["run", "-m", *given])
    main()
    return made


def test_each_job_is_an_arm(tmp_path, monkeypatch):
    given = overrides(tmp_path, "method=lora,ia3", "seed=range(2)", "hydra.launcher.slots=3")
    made = multirun(monkeypatch, *given)
    assert made.slots == 3
    assert [(arm.config.method.name, arm.config.seed) for arm in made.arms] == [
        *(("lora", 0), ("lora", 1), ("ia3", 0), ("ia3", 1)),
    ]
    assert not any(word.startswith("hydra") for arm in made.arms for word in arm.overrides)
    assert len({arm.directory for arm in made.arms}) == 4


def test_more_configuration_folders_are_handed_on(tmp_path, monkeypatch):
    (tmp_path / "conf" / "optim").mkdir(parents=True)
    (tmp_path / "conf" / "optim" / "mine.yaml").write_text("lr: 0.5\nsteps: 3\n")
    given = overrides(tmp_path, f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "seed=0,1")
    made = multirun(monkeypatch, *(word for word in given if word != "optim=quick"), "optim=mine")
    assert [arm.config.optim.lr for arm in made.arms] == [0.5, 0.5]


def test_a_failed_job_fails_the_sweep_after_all_have_run(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        multirun(monkeypatch, *overrides(tmp_path, "method=bitfit,lora"))
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert "1 of 2 runs failed; the same command tries them again" in said
    assert "made-up failure" in said
    assert "Traceback" not in said


def test_another_config_is_refused(tmp_path, monkeypatch, capsys):
    given = overrides(tmp_path, "seed=0,1")
    with pytest.raises(SystemExit):
        multirun(monkeypatch, *given, "--config-name=schema/jsonl", "hydra/launcher=fresh")
    assert "--config-name" in capsys.readouterr().err


def sweep(folder: Path, *more: str) -> list[dict]:
    """A sweep on the command line, of two seeds; the results."""
    given = overrides(folder, "method=bitfit", "seed=0,1", "optim.steps=2", "threads=1", *more)
    command = [sys.executable, "-m", "experiments.run", "-m", *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [path for path in (folder / "runs").iterdir() if (path / "result.json").is_file()]
    results = [json.loads((path / "result.json").read_text()) for path in runs]
    assert sorted(result["seed"] for result in results) == [0, 1]
    assert {result["status"] for result in results} == {"complete"}
    for path in runs:
        assert [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    return results


@pytest.mark.slow
def test_fresh_processes(tmp_path):
    sweep(tmp_path, "hydra.launcher.slots=2")
    assert len(list((tmp_path / "runs").glob("*/run.log"))) == 2


@pytest.mark.slow
def test_joblib(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install -e '.[sweep]'")
    sweep(tmp_path, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@pytest.mark.slow
def test_submitit_with_its_local_executor(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install -e '.[sweep]'")
    sweep(tmp_path, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10")
    assert list((tmp_path / "runs" / ".submitit").rglob("*_result.pkl"))
