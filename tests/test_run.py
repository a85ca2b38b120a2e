"""Whole runs on the tiny model: what they leave, that they repeat to the bit, and that they survive being killed."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import OmegaConf
from safetensors.torch import load_file

import deltatune as dt
from experiments import run as module
from experiments.batches import Encoder
from experiments.config import Config, key, register, run_name
from experiments.evaluate import answers, mean_loss
from experiments.models import load_model
from experiments.rows import row
from experiments.run import main, run
from experiments.tasks import load_task

ROOT = Path(__file__).resolve().parents[1]
METHODS = sorted(file.stem for file in (ROOT / "experiments" / "conf" / "method").glob("*.yaml"))
KEYS = {
    *("format", "status", "error", "config", "key", "method", "model", "task", "seed", "lr", "steps", "batch_size"),
    *("quality", "validation", "metric", "loss", "n_test", "parameters", "bytes", "memory", "seconds"),
    *("tokens_per_s", "step_s", "environment", "data", "base"),
}


@pytest.fixture(autouse=True)
def own_cache_and_torch_settings(tmp_path_factory, monkeypatch):
    """A cache for the tests alone, and torch's global settings put back."""
    monkeypatch.setenv("DELTATUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    threads = torch.get_num_threads()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def words(path: Path, n: int = 40) -> Path:
    """A file of small generation records."""
    colours = ("red", "green", "blue", "grey")
    records = [{"prompt": f"{i} {colours[i % 4]} lamp?", "completion": f"{colours[i % 4]} {i % 3}"} for i in range(n)]
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def classes(path: Path, n: int = 40) -> Path:
    records = [{"text": ("warm " if i % 2 else "cold ") * (1 + i % 5) + str(i), "label": "ab"[i % 2]} for i in range(n)]
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def overrides(tmp_path: Path, *more: str, file: Path | None = None) -> list[str]:
    data = file or words(tmp_path / "words.jsonl")
    return [
        *("model=tiny", "task=jsonl", f"task.train={data}", "task.n_val=5", "task.n_test=6", "optim=quick"),
        *("eval.max_new_tokens=6", "device=cpu", f"out={tmp_path / 'runs'}", *more),
    ]


def config(*given: str) -> Config:
    register()
    with initialize_config_dir(str(ROOT / "experiments" / "conf"), version_base="1.3"):
        made = OmegaConf.to_object(compose("config", overrides=list(given)))
    assert isinstance(made, Config)
    return made


def directory(made: Config) -> Path:
    return Path(made.out) / run_name(made)


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "wall_s"} for line in lines]


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *given: str) -> str:
    """What the command line says when it exits with an error."""
    monkeypatch.setattr(sys, "argv", ["run", *given])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    return capsys.readouterr().err


# ---------------------------------------------------------------- what a run leaves


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_a_whole_directory(tmp_path, method):
    made = config(*overrides(tmp_path, f"method={method}"))
    result, folder = run(made), directory(made)
    assert set(result) == KEYS
    assert result == json.loads((folder / "result.json").read_text())
    assert row(folder / "result.json").failure is None
    assert {"config.yaml", "environment.json", "predictions.jsonl", "result.json"} <= {f.name for f in folder.iterdir()}
    assert not (folder / "checkpoints").exists()
    assert OmegaConf.load(folder / "config.yaml").optim.lr == made.optim.lr
    assert (result["metric"], result["n_test"], len((folder / "predictions.jsonl").read_text().splitlines())) == (
        *("exact_match", 6, 6),
    )
    assert set(result["validation"]) == {"exact_match", "loss"}
    if method == "none":
        assert (result["lr"], result["steps"], result["bytes"]["delta"], result["parameters"]["trainable"]) == (
            None,
            0,
            0,
            0,
        )
        return
    assert [line["step"] for line in metrics(folder)] == [1, 2, 3, 4]
    assert result["parameters"]["trainable"] > 0
    assert result["memory"]["peak_bytes"] > result["memory"]["training_increase_bytes"] >= 0
    file = folder / ("model.safetensors" if method == "full" else "delta.safetensors")
    assert result["bytes"]["delta"] == file.stat().st_size
    assert 0 < result["seconds"]["train"] < result["seconds"]["total"]
    assert result["step_s"] > 0
    assert result["tokens_per_s"] > 0


@pytest.mark.parametrize("method", ["lora", "prefix", "prompt", "mam"])
def test_the_saved_delta_alone_gives_the_reported_numbers(tmp_path, method):
    made = config(*overrides(tmp_path, f"method={method}"))
    result, folder = run(made), directory(made)
    data = load_task(made.task, seed=0)
    loaded = load_model(made.model, dtype=torch.float32, device=torch.device("cpu"))
    dt.load(loaded.model, folder / "delta.safetensors", name="mine")
    front = tuple(dt.prompt_ids(loaded.model, "mine")) if method == "prompt" else ()
    encoder = Encoder(loaded.tokenizer, made.optim.max_length, front=front)
    loss = mean_loss(loaded.model, encoder.rows(data.val), encoder.pad, made.eval.batch_size, torch.device("cpu"))
    assert loss == result["validation"]["loss"]
    said = answers(loaded.model, encoder, encoder.rows(data.test), made.eval, torch.device("cpu"), 100)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert said == [line["prediction"] for line in lines]
    assert [line["correct"] for line in lines] == [line["prediction"].strip() == line["gold"] for line in lines]


def test_full_fine_tuning_in_bf16_saves_the_whole_model(tmp_path):
    made = config(*overrides(tmp_path, "method=full", "model.dtype=bf16", "optim.lr=1e-2"))
    result, folder = run(made), directory(made)
    tensors = load_file(folder / "model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
    assert (
        sum(t.numel() for t in tensors.values()) == result["parameters"]["total"] == result["parameters"]["trainable"]
    )
    assert result["bytes"]["full_copy"] == 2 * result["parameters"]["total"]
    base = load_model(made.model, dtype=torch.bfloat16, device=torch.device("cpu")).model
    changed = [name for name, p in base.named_parameters() if not torch.equal(p, tensors[name])]
    assert len(changed) == len(tensors)


@pytest.mark.parametrize("method", ["lora", "prompt", "full", "none"])
def test_classification_trains_a_head_and_saves_it_with_the_delta(tmp_path, method):
    data = classes(tmp_path / "classes.jsonl")
    made = config(*overrides(tmp_path, f"method={method}", "optim.steps=6", file=data))
    result = run(made)
    assert result["metric"] == "accuracy"
    assert set(result["quality"]) == {"accuracy", "macro_f1"}
    assert set(result["validation"]) == {"accuracy", "macro_f1", "loss"}
    if method in ("lora", "prompt"):
        names = load_file(directory(made) / "delta.safetensors")
        assert [n for n in names if n.startswith("score")]


def test_a_completed_run_is_not_run_again(tmp_path, monkeypatch):
    made = config(*overrides(tmp_path))
    first = run(made)
    monkeypatch.setattr(module, "measured", None)
    assert run(made) == first
    assert run(config(*overrides(tmp_path, "log_every=3", "optim.checkpoint_every=1"))) == first


def test_the_key_follows_what_changes_the_outcome(tmp_path):
    given = overrides(tmp_path)
    base = key(config(*given))
    assert key(config(*given, "out=elsewhere", "log_every=1")) == base
    others = [key(config(*given, change)) for change in ("seed=1", "optim.lr=2e-3", "method=ia3", "eval.batch_size=3")]
    words(tmp_path / "words.jsonl", n=41)  # other contents under the same name
    assert len({base, *others, key(config(*given))}) == 6


# ---------------------------------------------------------------- the same again


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_same_command_twice_is_bit_identical(tmp_path, method):
    file = words(tmp_path / "words.jsonl")
    found = []
    for name in ("a", "b"):
        made = config(*overrides(tmp_path, f"method={method}", f"out={tmp_path / name}", "optim.steps=5", file=file))
        result, folder = run(made), directory(made)
        (weights,) = (f.read_bytes() for f in folder.glob("*.safetensors"))
        found.append((metrics(folder), result["validation"], (folder / "predictions.jsonl").read_text(), weights))
        torch.rand(7)  # whatever happened in between
    assert found[0] == found[1]
    other = config(*overrides(tmp_path, f"method={method}", "seed=1", "optim.steps=5", file=file))
    run(other)
    assert metrics(directory(other)) != found[0][0]


def kill_at(step: int, command: list[str], folder: Path, after_s: float) -> bool:
    """Start the command and kill it a moment after it logged the step; False if it was done before."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    log = folder / "metrics.jsonl"
    while process.poll() is None:
        if log.is_file() and log.read_bytes().count(b"\n") >= step:
            time.sleep(after_s)
            process.send_signal(signal.SIGKILL)
            process.wait()
            break
        time.sleep(0.001)
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    assert process.returncode in (0, -signal.SIGKILL), said
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("method", ["lora", "full"])
def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path, method):
    dropout = ["+method.rules.0.hparams.dropout=0.1"] if method == "lora" else ["model.dtype=bf16"]
    more = [f"method={method}", *dropout, "optim.steps=60", "optim.checkpoint_every=3", "threads=1"]
    file = words(tmp_path / "words.jsonl")
    whole = config(*overrides(tmp_path, *more, f"out={tmp_path / 'whole'}", file=file))
    expected = run(whole)

    given = overrides(tmp_path, *more, f"out={tmp_path / 'killed'}", file=file)
    folder = directory(config(*given))
    command = [sys.executable, "-m", "experiments.run", *given]
    draw = random.Random()
    moments = [(draw.randint(*span), draw.uniform(0, 0.02)) for span in ((1, 9), (12, 30), (35, 55))]
    killed = [kill_at(step, command, folder, after_s) for step, after_s in moments]
    assert any(killed), f"the runs were over before they could be killed at {moments}"
    result = run(config(*given))
    assert metrics(folder) == metrics(directory(whole)), moments
    name = "delta.safetensors" if method == "lora" else "model.safetensors"
    assert (folder / name).read_bytes() == (directory(whole) / name).read_bytes(), moments
    assert result["quality"] == expected["quality"]
    assert result["validation"] == expected["validation"]


def test_killed_in_the_evaluation_it_does_not_train_again(tmp_path, monkeypatch):
    made = config(*overrides(tmp_path))

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "mean_loss", dies)
        with pytest.raises(KeyboardInterrupt):
            run(made)
    assert not (directory(made) / "result.json").exists()
    before = (directory(made) / "metrics.jsonl").read_text()
    monkeypatch.setattr("experiments.train.accumulate", None)
    result = run(made)
    assert result["status"] == "complete"
    assert (directory(made) / "metrics.jsonl").read_text() == before


# ---------------------------------------------------------------- failures


def test_a_loss_that_blows_up_is_recorded_with_its_step(tmp_path):
    made = config(*overrides(tmp_path, "method=full", "optim.lr=1e38", "optim.clip=1e30"))
    with pytest.raises(ArithmeticError, match="step 2"):
        run(made)
    result = json.loads((directory(made) / "result.json").read_text())
    assert result["status"] == "failed"
    assert "step 2: the loss is nan" in result["error"] or "step 2: the loss is inf" in result["error"]
    assert "step 2" in (row(directory(made) / "result.json").failure or "")


def test_a_failed_run_is_tried_again(tmp_path, monkeypatch):
    made = config(*overrides(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_task", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(made)
    assert json.loads((directory(made) / "result.json").read_text())["status"] == "failed"
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
        ("optim.warmup=2", "optim.warmup=2.0: a share"),
        ("optim.lr=0", "optim.lr=0.0: must be above 0"),
        ("optim.lr=nan", "optim.lr=nan: must be above 0"),
        ("optim.max_length=4", r"completion has \d+ tokens.*optim.max_length=4"),
        ("method.rules.0.method=Lora", "no method class 'Lora'; there are: .*LoRA"),
        ("method.rules.0.where=nowhere.*", "nowhere"),
        ("task.train=absent.jsonl", "absent.jsonl"),
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


def plain_types(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and plain_types(v) for k, v in value.items())
    return isinstance(value, (str, int, float, bool, type(None))) or all(map(plain_types, value))


def test_the_environment_says_where_a_number_comes_from(tmp_path):
    made = config(*overrides(tmp_path, "method=none"))
    found = run(made)["environment"]
    assert found == json.loads((directory(made) / "environment.json").read_text())
    assert set(found) == {
        *("torch", "transformers", "deltatune", "python", "cpu", "threads", "device", "commit", "dirty", "platform"),
    }
    assert (found["torch"], found["deltatune"], found["device"]) == (torch.__version__, dt.__version__, "cpu")
    assert plain_types(found)


def test_outside_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.record.ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    from experiments.record import environment

    found = environment(torch.device("cpu"))
    assert (found["commit"], found["dirty"]) == (None, False)
