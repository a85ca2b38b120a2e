"""Runs that fail, values that are refused, and the command line."""

from __future__ import annotations

import fcntl
import json
import re
import sys

import pytest
import torch
from hydra.errors import ConfigCompositionException, HydraException

import deltatune as dt
from experiments.run.__main__ import main
from experiments.store.files import read
from tests.support.runs import config, directory, overrides, own_cache_and_torch_settings, run  # noqa: F401 - a fixture


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *given: str) -> str:
    """What the command line says when it exits with an error."""
    monkeypatch.setattr(sys, "argv", ["run", *given])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    return capsys.readouterr().err


# ---------------------------------------------------------------- failures


def test_a_loss_that_blows_up_is_recorded_with_its_step(tmp_path):
    made = config(*overrides(tmp_path, "method=full", "optim.lr=1e38", "optim.clip=1e30"))
    with pytest.raises(ArithmeticError, match="step 2"):
        run(made)
    result = json.loads((directory(made) / "result.json").read_text())
    assert (result["status"], result["failure_kind"]) == ("failed", "nan")
    assert "step 2: the loss is nan" in result["error"] or "step 2: the loss is inf" in result["error"]
    assert "step 2" in (read(directory(made) / "result.json").failure or "")


def test_a_failed_run_is_tried_again(tmp_path, monkeypatch):
    made = config(*overrides(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr("experiments.run.stages.load_task", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(made)
    result = json.loads((directory(made) / "result.json").read_text())
    assert (result["status"], result["failure_kind"]) == ("failed", "error")
    assert run(made)["status"] == "complete"


def test_two_processes_cannot_hold_one_run(tmp_path):
    made = config(*overrides(tmp_path))
    directory(made).mkdir(parents=True)
    with (directory(made) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match="another process is at work"):
            run(made)
    assert run(made)["status"] == "complete"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["method=lorra"], r"Could not find 'method/lorra'(.|\n)*lora"),
        (["model=bigger"], r"Could not find 'model/bigger'(.|\n)*smollm2"),
        (["task=chess"], r"Could not find 'task/chess'(.|\n)*ha_json"),
        (["optim.steps=many"], r"Value 'many' of type 'str' could not be converted to Integer(.|\n)*optim.steps"),
        (["optim.lr=[1]"], r"(.|\n)*optim.lr"),
        (["optim.decay=square"], r"Invalid value 'square', expected one of \[constant, linear, cosine\]"),
        (["model.dtype=fp8"], r"Invalid value 'fp8', expected one of \[bf16, fp32\]"),
        (["device=tpu"], r"Invalid value 'tpu', expected one of \[auto, cpu, cuda\]"),
        (["optim.momentum=1"], r"Key 'momentum'"),
        (["task.n_train=many"], r"Value 'many' of type 'str' could not be converted to Integer"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wrong_word_or_type_is_refused_by_name(given, message):
    with pytest.raises((HydraException, ConfigCompositionException)) as error:
        config(*given)
    said = f"{error.value}\n{error.value.__cause__}"
    assert re.search(message, said), said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optim.steps=0", "optim.steps=0: must be at least 1"),
        ("optim.batch_size=-1", "optim.batch_size=-1: must be at least 1"),
        ("optim.micro_batch=0", "optim.micro_batch=0: must be at least 1"),
        ("optim.warmup_steps=2000", "optim.warmup_steps=2000: from 0 to optim.steps="),
        ("optim.lr=0", "optim.lr=0.0: must be above 0"),
        ("optim.lr=nan", "optim.lr=nan: must be above 0"),
        ("optim.max_length=4", r"completion has \d+ tokens.*optim.max_length=4"),
        ("method.rules.0.method=Lora", "no method class 'Lora'; there are: .*LoRA"),
        ("method.rules.0.where=nowhere.*", "nowhere"),
        ("task.train=absent.jsonl", "absent.jsonl"),
        ("task.n_val=0", "no examples in val"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(tmp_path, change, message):
    with pytest.raises((ValueError, OSError, dt.DeltaError), match=message):
        run(config(*overrides(tmp_path, change)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(tmp_path):
    with pytest.raises(ValueError, match=r"no CUDA device.*device=cpu"):
        run(config(*overrides(tmp_path, "device=cuda")))


# ---------------------------------------------------------------- the command line


def test_errors_reach_the_exit_code(tmp_path, monkeypatch, capsys):
    assert "Could not find 'method/lorra'" in refused(monkeypatch, capsys, "method=lorra")
    assert "could not be converted to Integer" in refused(monkeypatch, capsys, "optim.steps=many")
    assert "must be at least 1" in refused(monkeypatch, capsys, *overrides(tmp_path, "optim.steps=0"))
    assert "model.path" in refused(monkeypatch, capsys, "model=hf", f"out={tmp_path}")


def test_a_sweep_makes_run_directories_and_nothing_else(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = overrides(tmp_path, "method=lora,bitfit", "optim.steps=1")
    monkeypatch.setattr(sys, "argv", ["run", "-m", *given])
    main()
    said = capsys.readouterr().out
    assert said.count("exact_match") == 2
    runs = [f for f in (tmp_path / "runs").iterdir() if f.is_dir()]
    assert sorted(json.loads((f / "result.json").read_text())["method"] for f in runs) == ["bitfit", "lora"]
    assert {f.name for f in tmp_path.iterdir()} == {"words.jsonl", "runs"}
    monkeypatch.setattr(sys, "argv", ["run", *overrides(tmp_path, "method=lora", "optim.steps=1")])
    main()
    assert "exact_match" in capsys.readouterr().out
