"""Whole runs on the tiny model: what they leave, that they repeat to the bit, and that they survive being killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

import deltatune as dt
from experiments.config.identity import key
from experiments.data.encode import Encoder
from experiments.data.reader import Reader
from experiments.evaluation.answers import answers, mean_loss
from experiments.models.load import load_model
from experiments.objectives.responses import Responses
from experiments.run import execute as module
from experiments.store.files import lines, read
from experiments.support.phase_clock import PHASES
from experiments.tasks import load_task
from tests.support.runs import (
    ROOT,
    classes,
    config,
    directory,
    metrics,
    overrides,
    own_cache_and_torch_settings,  # noqa: F401 - a fixture
    run,
    words,
)

METHODS = sorted(file.stem for file in (ROOT / "experiments" / "conf" / "method").glob("*.yaml"))
UNTRAINED = {"none", "few_shot"}
KEYS = {
    *("format", "status", "error", "config", "key", "method", "model", "task", "seed", "lr", "steps", "batch_size"),
    *("quality", "quality_by_part", "scores", "validation", "metric", "loss", "n_test", "parameters", "bytes"),
    *("memory", "seconds", "tokens_per_s", "step_s", "flops", "cost", "forgetting", "environment", "data", "base"),
    *("failure_kind", "seeds", "sources_sha256", "ceiling"),
}


# ---------------------------------------------------------------- what a run leaves


@pytest.mark.parametrize("method", sorted({*METHODS} - {"head", "tfidf"}))  # these two classify
def test_every_method_leaves_a_whole_directory(tmp_path, method):
    made = config(*overrides(tmp_path, f"method={method}"))
    result, folder = run(made), directory(made)
    assert set(result) == KEYS
    assert result == json.loads((folder / "result.json").read_text())
    assert read(folder / "result.json").failure is None
    assert {"config.yaml", "environment.json", "predictions.jsonl", "result.json"} <= {f.name for f in folder.iterdir()}
    assert not (folder / "checkpoints").exists()
    assert OmegaConf.load(folder / "config.yaml").optim.lr == made.optim.lr
    assert (result["metric"], result["n_test"], len((folder / "predictions.jsonl").read_text().splitlines())) == (
        *("exact_match", 6, 6),
    )
    assert set(result["validation"]) == {"exact_match", "loss"}
    assert result["data"]["n_truncated"] == 0
    assert len(result["scores"]) == 6
    assert sum(result["scores"]) / 6 == result["quality"]["exact_match"]
    check_costs(result, method)
    if method in UNTRAINED:
        assert (result["lr"], result["steps"], result["bytes"]["delta"], result["parameters"]["trainable"]) == (
            None,
            0,
            0,
            0,
        )
        return
    assert [line["step"] for line in metrics(folder)] == [1, 2, 3, 4]
    assert result["parameters"]["trainable"] > 0
    memory = result["memory"]
    assert memory["peak_bytes"] >= memory["training_peak_bytes"] > memory["training_increase_bytes"] >= 0
    file = folder / ("model.safetensors" if method == "full" else "delta.safetensors")
    assert result["bytes"]["delta"] == file.stat().st_size
    assert result["step_s"] > 0
    assert result["tokens_per_s"] > 0


def check_costs(result: dict[str, Any], method: str) -> None:
    """The phases sum to the whole, and each figure of use is there where the method has one."""
    seconds = dict(result["seconds"])
    total = seconds.pop("total")
    assert set(seconds) == set(PHASES)
    assert sum(seconds.values()) == pytest.approx(total, rel=1e-6)
    training = [seconds[phase] for phase in ("forward", "backward", "optimizer", "checkpoint")]
    assert all(s == 0 for s in training) if method in UNTRAINED else all(s > 0 for s in training)
    assert all(seconds[phase] > 0 for phase in ("data", "load", "inject", "save", "evaluate", "forgetting", "cost"))
    use = result["cost"]["generate_tokens_per_s"]
    assert use["unmerged"] > 0
    assert (use["merged"] is None) == (method in ("adapter", "mam", "prefix", "prompt"))
    assert (result["cost"]["switch_s"] is None) == (method in UNTRAINED)
    assert result["flops"]["per_token"] > 0
    assert (result["flops"]["train"] == 0) == (method in UNTRAINED)
    parameters = result["parameters"]
    assert parameters["added"] == (0 if method in (*UNTRAINED, "full") else parameters["trainable"])


@pytest.mark.parametrize("method", ["lora", "prefix", "prompt", "mam"])
def test_the_saved_delta_alone_gives_the_reported_numbers(tmp_path, method):
    made = config(*overrides(tmp_path, f"method={method}"))
    result, folder = run(made), directory(made)
    data = load_task(made.task, seed=0)
    loaded = load_model(made.model, dtype=torch.float32, device=torch.device("cpu"))
    dt.load(loaded.model, folder / "delta.safetensors", name="mine")
    front = tuple(dt.prompt_ids(loaded.model, "mine")) if method == "prompt" else ()
    objective = Responses(Encoder(loaded.tokenizer, made.optim.max_length, front=front))
    reader = Reader(loaded.model, objective.encoder, torch.device("cpu"))
    loss = mean_loss(objective, reader, objective.rows(data.val), made.eval.batch_size)
    assert loss == result["validation"]["loss"]
    said = answers(objective, reader, objective.rows(data.test), made.eval, 100)
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
def test_an_encoder_trains_a_head_and_saves_it_with_the_delta(tmp_path, method):
    data = classes(tmp_path / "classes.jsonl")
    made = config(*overrides(tmp_path, "model=tiny_encoder", f"method={method}", "optim.steps=6", file=data))
    result = run(made)
    assert result["metric"] == "accuracy"
    assert set(result["quality"]) == {"accuracy", "macro_f1", "mcc"}
    assert set(result["validation"]) == {"accuracy", "macro_f1", "mcc", "loss"}
    if method in ("lora", "prompt"):
        names = load_file(directory(made) / "delta.safetensors")
        assert [n for n in names if n.startswith("classifier")]


@pytest.mark.parametrize("method", ["prefix", "prompt", "none"])
def test_a_model_of_text_classifies_by_the_labels_texts(tmp_path, method):
    data = classes(tmp_path / "classes.jsonl")
    made = config(*overrides(tmp_path, f"method={method}", "optim.steps=6", file=data))
    result = run(made)
    assert set(result["quality"]) == {"accuracy", "macro_f1", "mcc"}
    lines = [json.loads(line) for line in (directory(made) / "predictions.jsonl").read_text().splitlines()]
    assert {line["prediction"] for line in lines} <= {"a", "b"}
    if method != "none":
        names = load_file(directory(made) / "delta.safetensors")
        assert not [n for n in names if n.startswith(("classifier", "score", "lm_head"))]


def test_a_run_of_a_search_is_scored_on_the_validation_set(tmp_path):
    made = config(*overrides(tmp_path, "eval.part=val"))
    result = run(made)
    assert (result["n_test"], result["data"]["n_test"], len(result["scores"])) == (5, 6, 5)
    assert result["quality"] == {name: value for name, value in result["validation"].items() if name != "loss"}
    usual = run(config(*overrides(tmp_path)))
    assert (usual["n_test"], usual["validation"]) == (6, result["validation"])
    said = {
        part: [line["prompt"] for line in lines(directory(each) / "predictions.jsonl")]
        for part, each in (("val", made), ("test", config(*overrides(tmp_path))))
    }
    assert not set(said["val"]) & set(said["test"])


def test_answers_that_end_where_they_are_hopeless_score_the_same(tmp_path):
    small = ("task.n_train=20", "task.n_val=3", "task.n_test=6", "forgetting.n_text=2", "forgetting.n_kl=1")
    shared = ("model=tiny", "task=ha_json", "optim=quick", "device=cpu", f"out={tmp_path}", *small)
    made = [config(*shared, f"eval.stop_hopeless={on}") for on in (False, True)]
    whole, short = (run(one) for one in made)
    assert whole["key"] != short["key"]
    for name in ("quality", "quality_by_part", "scores", "validation", "forgetting"):
        assert whole[name] == short[name]
    texts = [[line["prediction"] for line in lines(directory(one) / "predictions.jsonl")] for one in made]
    assert any(text.endswith(" …") for text in texts[1])
    assert all((b.endswith(" …") and a.startswith(b[:-2])) or a == b for a, b in zip(*texts))


def test_prompts_that_were_cut_are_counted(tmp_path):
    """A byte is a token here; between prompt and completion stands a line's end, and after it the end of the turn."""
    result = run(config(*overrides(tmp_path, "method=none", "optim.max_length=22")))
    data = load_task(config(*overrides(tmp_path)).task)
    examples = [*data.train, *data.val, *data.test]
    cut = sum(len(e.text) + 1 + len(e.completion) + 1 > 22 for e in examples)
    assert 0 < result["data"]["n_truncated"] == cut < len(examples)


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


def test_the_name_follows_a_local_models_files_and_those_of_other_tasks(tmp_path):
    weights, texts = tmp_path / "model" / "weights", tmp_path / "other.jsonl"
    weights.parent.mkdir()
    given = ("model=hf", f"model.path={weights.parent}", "task=ha_json")
    probing = (*given, f"forgetting.tasks=['jsonl task.train={texts}']")
    keys = set()
    for content in (b"a" * 100, b"a" * 40_000_000, b"a" * 20_000_000 + b"b" * 20_000_000):  # the last two are sampled
        weights.write_bytes(content)
        texts.write_bytes(b"first")
        keys |= {key(config(*given)), key(config(*probing))}
        texts.write_bytes(b"second")
        keys.add(key(config(*probing)))
    assert len(keys) == 9


def test_a_method_of_ones_own(tmp_path, monkeypatch):
    """As the README has it: a module that defines the class, and the rules that use it."""
    module_file = tmp_path / "own_methods.py"
    source = """
import torch
import deltatune as dt

class OwnScale(dt.DeltaModule):
    def __init__(self, host):
        super().__init__()
        self.g = torch.nn.Parameter(torch.zeros(dt.features(host).out))

    def change(self, x, h):
        return self.g * h
"""
    module_file.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    file = words(tmp_path / "words.jsonl", n=40)
    given = ("method.name=scale", "method.rules=[{method: OwnScale, where: '*.up_proj'}]", "optim.lr=1e-2")
    made = config(*overrides(tmp_path, *given, "method.module=own_methods", file=file))
    result = run(made)
    assert (result["method"], result["status"]) == ("scale", "complete")
    assert result["parameters"]["trainable"] > 0
    before = key(made)
    module_file.write_text(source + "\n# another version of it")
    assert key(made) != before
    with pytest.raises(ValueError, match=r"method\.module=nowhere_at_all: cannot be imported"):
        run(config(*overrides(tmp_path, *given, "method.module=nowhere_at_all", file=file)))


def test_the_phases_are_the_wall_time(tmp_path):
    """Against a clock outside; what no phase covers is under 4 %.

    A shared machine may stop a process anywhere, also between two phases. A phase that is missing
    is missing in every run, so the best of three runs is what has to hold.
    """
    uncovered = []
    for name in ("a", "b", "c"):
        made = config(*overrides(tmp_path, f"out={tmp_path / name}", "optim.steps=20"))
        began = time.perf_counter()
        seconds = run(made)["seconds"]
        wall_s = time.perf_counter() - began
        named = sum(s for phase, s in seconds.items() if phase not in ("other", "total"))
        assert named + seconds["other"] == pytest.approx(seconds["total"], abs=0.01)
        assert seconds["total"] <= wall_s + 0.01
        uncovered.append(1 - named / wall_s)
    assert min(uncovered) < 0.04


def test_a_process_of_its_own_counts_from_its_start(tmp_path):
    """The interpreter and torch's import are most of a small run's time."""
    given = overrides(tmp_path, "optim.steps=2", "forgetting.enabled=false")
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "experiments.run", *given], cwd=ROOT, check=True, capture_output=True)
    wall_s = time.perf_counter() - began
    seconds = json.loads((directory(config(*given)) / "result.json").read_text())["seconds"]
    assert 0.5 < seconds["start"] < seconds["total"] < wall_s
    assert seconds["total"] > 0.6 * wall_s  # what is left is the end of the interpreter


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
        patch.setattr("experiments.run.quality.mean_loss", dies)
        with pytest.raises(KeyboardInterrupt):
            run(made)
    assert not (directory(made) / "result.json").exists()
    before = (directory(made) / "metrics.jsonl").read_text()
    monkeypatch.setattr("experiments.training.loop.accumulate", None)
    began = time.perf_counter()
    result = run(made)
    wall_s = time.perf_counter() - began
    assert result["status"] == "complete"
    assert (directory(made) / "metrics.jsonl").read_text() == before
    seconds = result["seconds"]
    assert all(seconds[phase] > 0 for phase in ("forward", "backward", "optimizer"))  # the first process's
    assert seconds["total"] > wall_s
    assert sum(seconds.values()) == pytest.approx(2 * seconds["total"], rel=1e-6)


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
    monkeypatch.setattr("experiments.support.provenance.ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    from experiments.support.provenance import environment

    found = environment(torch.device("cpu"))
    assert (found["commit"], found["dirty"]) == (None, False)
