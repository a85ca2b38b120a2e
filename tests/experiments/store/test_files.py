"""Result files become a tree, or errors that name the file and the key; all of them made up."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.made_up import UNTRAINED, made_up, put
from experiments import ROOT
from experiments.store.files import ReportError, find, lines, read
from experiments.store.result import Complete, Environment, Failed, OtherTask, plain
from experiments.store.schema import flat
from experiments.store.small import essentials

HEADER = (
    *("format", "status", "error", "failure_kind", "config", "key", "method", "model", "task", "seed", "lr", "steps"),
    *("batch_size", "environment", "sources_sha256"),
)


def complete(path: Path) -> Complete:
    result = read(path)
    assert isinstance(result, Complete)
    return result


def test_a_result_is_read_as_a_tree(tmp_path: Path) -> None:
    item = complete(put(tmp_path, made_up()))
    assert (item.method, item.score, item.parameters.trainable, item.bytes.delta) == ("fable", 0.25, 1000, 4096)
    assert (item.memory.peak_bytes, item.memory.training_peak_bytes) == (300 * 2**20, 290 * 2**20)
    assert (item.memory.training_increase_bytes, item.train_s, item.seconds.total) == (20 * 2**20, 42.0, 52.0)
    assert item.scores == (1.0, 0.0, 0.0, 0.0) * 4
    assert item.quality_by_part["south"]["valid_json"] == 0.75
    speed = item.cost.generate_tokens_per_s
    assert (item.cost.switch_s, speed.unmerged, speed.merged) == (0.125, 30.0, 40.0)
    assert item.forgetting is not None and item.forgetting.text_perplexity is not None
    text = item.forgetting.text_perplexity
    assert (text.before, text.after, item.forgetting.kl_per_token) == (20.0, 25.0, 0.0625)
    other = OtherTask(before=0.5, after=0.375, metric="accuracy", n_examples=8)
    assert item.forgetting.tasks == {"made-up-other": other}
    assert item.config["optim"] == {"lr": 0.01}
    assert item.file == tmp_path / "made-up-fable" / "result.json"
    assert (item.failure, item.memory.device_peak_bytes, item.untrained) == (None, None, False)


def test_a_result_is_written_as_it_was_read(tmp_path: Path) -> None:
    for result in (made_up(), made_up("hush", **UNTRAINED)):
        assert plain(read(put(tmp_path, result))) == result == json.loads(json.dumps(result))
    failed = made_up(status="failed", error="e", failure_kind="oom")
    assert plain(read(put(tmp_path, failed))) == {name: failed[name] for name in HEADER}


def test_what_does_not_apply_is_none(tmp_path: Path) -> None:
    item = complete(put(tmp_path, made_up("hush", **UNTRAINED)))
    assert item.untrained
    assert (item.lr, item.loss.train_last, item.cost.switch_s, item.forgetting) == (None, None, None, None)
    assert item.cost.generate_tokens_per_s.merged is None
    numbers = flat(item)
    assert (numbers["perplexity_after"], numbers["merged_tokens_per_s"], numbers["train_loss"]) == (None, None, None)


def test_an_accelerator_has_its_own_peak(tmp_path: Path) -> None:
    memory = made_up()["memory"] | {"device_peak_bytes": 5}
    assert complete(put(tmp_path, made_up(memory=memory))).memory.device_peak_bytes == 5


def test_a_failed_run_says_how(tmp_path: Path) -> None:
    result = made_up(status="failed", error="step 4: the loss is nan", failure_kind="nan")
    for key in ("quality", "scores", "seconds", "cost"):
        del result[key]
    item = read(put(tmp_path, result))
    assert isinstance(item, Failed)
    assert (item.failure, item.failure_kind, item.key) == ("step 4: the loss is nan", "nan", "0123456789ab")
    assert item.environment.cpu == "made-up CPU"
    silent = read(put(tmp_path, result | {"error": None, "environment": {}}))
    assert (silent.failure, silent.environment) == ("failed without a message", Environment())


def changed(key: str, *new: Any) -> dict[str, Any]:
    """A result with this dotted key at a new value, or without it."""
    result = copy.deepcopy(made_up())
    *outer, last = key.split(".")
    inner = result
    for part in outer:
        inner = inner[part]
    if new:
        inner[last] = new[0]
    else:
        del inner[last]
    return result


@pytest.mark.parametrize(
    "key",
    [
        "method", "lr", "quality", "scores", "metric", "step_s", "base", "parameters.share", "bytes.delta",
        "memory.peak_bytes", "memory", "seconds.total", "cost.generate_tokens_per_s", "forgetting.kl_per_token",
    ],
)  # fmt: skip
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    path = put(tmp_path, changed(key), "x")
    with pytest.raises(ReportError, match=f"^{re.escape(str(path))}: key '{key}.*' is missing.*run again"):
        read(path)


@pytest.mark.parametrize(
    ("key", "new"),
    [
        ("method", 3), ("seed", None), ("seed", True), ("steps", 1.5), ("lr", "1e-3"), ("scores", [1.0, None]),
        ("seconds.forward", "1"), ("environment.threads", 1.5), ("failure_kind", "tired"),
        ("forgetting.tasks", {"t": {"before": 0.5, "after": "high"}}),
        ("quality", {"exact_match": "0.5"}), ("bytes.delta", None), ("loss.train_last", "nan"), ("data", []),
        ("forgetting", 3.0),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_named(key: str, new: Any, tmp_path: Path) -> None:
    path = put(tmp_path, changed(key, new), "x")
    with pytest.raises(ReportError, match=f"^{re.escape(str(path))}: key '{key}[^']*' is "):
        read(path)


def test_the_main_metric_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="'quality' has no 'chrf'"):
        read(put(tmp_path, made_up(metric="chrf")))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not a readable result file"),
        ('{"format": 2, "status"', "not a readable result file"),
        ("[]", "key 'format' is None, not 2"),
        (json.dumps(made_up(format=1)), "key 'format' is 1, not 2: another version made this file; delete it and run"),
        (json.dumps(made_up(status="running")), "'status' is 'running'"),
    ],
)
def test_a_bad_file_is_named(content: str, said: str, tmp_path: Path) -> None:
    path = put(tmp_path, content, "x")
    with pytest.raises(ReportError, match=re.escape(str(path))) as caught:
        read(path)
    assert said in str(caught.value)


def test_find_takes_folders_and_files_once(tmp_path: Path) -> None:
    one, two = put(tmp_path / "b", made_up("one")), put(tmp_path / "a" / "deep", made_up("two"))
    small = two.with_name("three.result.json")
    small.write_text("{}")
    (tmp_path / "comparison.json").write_text("{}")
    assert find([tmp_path]) == [two, small, one]
    assert find([one, tmp_path / "b"]) == [one]


def test_find_says_what_it_did_not_find(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no such folder"):
        find([tmp_path / "nowhere"])
    with pytest.raises(ReportError, match=r"no result\.json under"):
        find([tmp_path])


@pytest.mark.parametrize(("line", "said"), [('{"loss": ', "not a JSON record"), ("3", "int, not a JSON record")])
def test_a_bad_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"loss": 1.5}\n')
    assert lines(file) == [{"loss": 1.5}]
    file.write_text('{"loss": 1.5}\n' + line)
    with pytest.raises(ReportError, match=re.escape(f"{file}:2: {said}")):
        lines(file)
    with pytest.raises(ReportError, match=r"nowhere.*cannot be read"):
        lines(tmp_path / "nowhere")


def test_only_a_newline_ends_a_record(tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    records = [{"prediction": "a\u2028b\u0085c\x0bd\r"}, {"prediction": ""}]
    file.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), newline="\n")
    assert lines(file) == records
    file.write_text("")
    assert lines(file) == []


def test_essentials_hold_no_path_of_this_machine_and_stay_readable(tmp_path: Path) -> None:
    result = made_up(base=f"{ROOT}/models/mine")
    result["config"] |= {"out": "/tmp/made-up/runs", "task": {"train": "/data/made up/train.jsonl", "n_test": 16}}
    result["scores"][0] = 0.5
    result["data"]["sources"] = {"/data/made-up/train.jsonl": "sha256"}
    file = put(tmp_path, result, "a")
    small = essentials(read(file))
    text = json.dumps(small, ensure_ascii=False)
    assert str(ROOT) not in text
    assert "/data" not in text
    assert small["base"] == "./models/mine"
    assert small["config"]["task"] == {"train": "…/train.jsonl", "n_test": 16}
    assert "out" not in small["config"]
    assert small["scores"][:2] == [0.5, 0]
    assert isinstance(small["scores"][1], int)
    before, after = complete(file), complete(put(tmp_path, small, "b"))
    assert after.scores == before.scores
    assert after.quality == before.quality
    assert before.config["out"] == "/tmp/made-up/runs"  # the full one is as it was


def test_essentials_of_a_failed_run(tmp_path: Path) -> None:
    error = f"{ROOT}/made-up.py: 3 / 4 of /data/a/y.bin and '/opt/made-up/x.bin' read, see https://made.up/a/b"
    result = made_up(status="failed", error=error)
    del result["scores"]
    small = essentials(read(put(tmp_path, result)))
    said = "./made-up.py: 3 / 4 of …/y.bin and '…/x.bin' read, see https://made.up/a/b"
    assert read(put(tmp_path, small, "small")).failure == said
