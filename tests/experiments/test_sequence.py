"""Tasks in sequence: the matrix, transfer and forgetting, one delta throughout, going on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.made_up import made_up_failure
from experiments import sequence as module
from experiments.run.execute import run
from experiments.sequence import main, quoted, sequence, table, transfer
from experiments.store.files import read
from experiments.store.result import Result
from experiments.sweep.arm import Arm
from tests.support.runs import own_cache_and_torch_settings  # noqa: F401 - a fixture


def task_file(path: Path, answer: str) -> str:
    """A task that is a file, as an entry of `tasks`."""
    records = [{"prompt": f"{i} {answer}?", "completion": answer} for i in range(16)]
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return f"jsonl task.train={path} task.n_val=2 task.n_test=4"


@pytest.fixture
def tasks(tmp_path: Path) -> list[str]:
    return [task_file(tmp_path / f"{answer}.jsonl", answer) for answer in ("a", "b", "c")]


def given(tmp_path: Path, *more: str) -> list[str]:
    return [
        *("model=tiny", "optim=quick", "optim.steps=3", "eval.max_new_tokens=2", "forgetting.n_text=2"),
        *("forgetting.n_kl=1", "forgetting.n_examples=3", "device=cpu", f"out={tmp_path / 'runs'}", *more),
    ]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[Arm]:
    """Runs in this process instead of one each, which takes seconds to start; the arms that were carried out."""
    done: list[Arm] = []

    def carry_out(arms: list[Arm], slots: int) -> list[Result]:
        assert slots == 1
        for arm in arms:
            done.append(arm)
            run(arm.config)
        return [read(arm.result) for arm in arms]

    monkeypatch.setattr(module, "carry_out", carry_out)
    return done


def test_transfer_and_forgetting_by_hand():
    """Three stages: the first task falls from 0.8 by way of 0.9 to 0.5, the second from 0.6 to 0.7."""
    found = transfer([[0.8, 0.3, 0.1], [0.9, 0.6, 0.2], [0.5, 0.7, 1.0]], base=[0.0, 0.1, 0.1])
    assert found["backward_transfer"] == pytest.approx(((0.5 - 0.8) + (0.7 - 0.6)) / 2)
    assert found["forward_transfer"] == pytest.approx(((0.3 - 0.1) + (0.2 - 0.1)) / 2)
    assert found["forgetting"] == pytest.approx([0.9 - 0.5, 0.6 - 0.7])
    assert found["average"] == pytest.approx((0.5 + 0.7 + 1.0) / 3)


@pytest.mark.parametrize("method", ["lora", "full", "prompt"])
def test_one_delta_is_trained_throughout(tmp_path, tasks, here, method):
    result = sequence(tasks[:2], given(tmp_path, f"method={method}"))
    assert (len(result["matrix"]), len(result["matrix"][0]), len(result["base"])) == (2, 2, 2)
    (folder,) = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "sequence.json").read_text()) == result
    first, second = (arm.directory for arm in here)
    name = "model.safetensors" if method == "full" else "delta.safetensors"
    assert here[1].config.start_from == str(first / name)
    start, end = load_file(first / name), load_file(second / name)
    assert start.keys() == end.keys()
    losses = [json.loads(line)["loss"] for line in (second / "metrics.jsonl").read_text().splitlines()]
    fresh = Arm(tuple(a for a in here[1].overrides if not a.startswith("start_from=")))
    run(fresh.config)
    alone = [json.loads(line)["loss"] for line in (fresh.directory / "metrics.jsonl").read_text().splitlines()]
    assert losses[0] != alone[0]  # it did not begin anew
    # A step of Adam is about the learning rate at most, so three of them lie near the start.
    change = max((start[k].float() - end[k].float()).abs().max().item() for k in start)
    assert 0 < change < 4 * here[1].config.optim.lr


def test_it_goes_on_where_it_stopped_and_then_has_nothing_to_do(tmp_path, tasks, here, monkeypatch):
    tasks = tasks[:2]
    whole = sequence(tasks, given(tmp_path / "whole"))
    carry_out = module.carry_out

    def second_dies(arms: list[Arm], slots: int) -> list[Result]:
        if arms[0].config.start_from:
            raise KeyboardInterrupt
        return carry_out(arms, slots)

    with monkeypatch.context() as patch:
        patch.setattr(module, "carry_out", second_dies)
        with pytest.raises(KeyboardInterrupt):
            sequence(tasks, given(tmp_path / "cut"))
    with monkeypatch.context() as patch:
        trained = []
        from experiments.run import stages

        train = stages.train
        patch.setattr(stages, "train", lambda *a, **k: trained.append(1) or train(*a, **k))
        resumed = sequence(tasks, given(tmp_path / "cut"))
        assert len(trained) == 1
        assert sequence(tasks, given(tmp_path / "cut")) == resumed
        assert len(trained) == 1
    assert resumed == whole


def test_a_stage_that_fails_is_named(tmp_path, tasks, monkeypatch):
    failed = made_up_failure("lora", "it broke")
    monkeypatch.setattr(module, "carry_out", lambda arms, slots: [failed])
    with pytest.raises(RuntimeError, match=r"stage 1 of 2, jsonl .*: it broke; run the same command again"):
        sequence(tasks[:2], given(tmp_path))


def test_what_makes_no_sense_is_refused(tmp_path, tasks):
    with pytest.raises(ValueError, match="two tasks or more"):
        sequence(tasks[:1], given(tmp_path))
    with pytest.raises(ValueError, match="each once"):
        sequence([tasks[0], tasks[0]], given(tmp_path))
    with pytest.raises(ValueError, match="method=none trains nothing"):
        sequence(tasks, given(tmp_path, "method=none"))
    with pytest.raises(SystemExit, match="give the tasks once"):
        main(["method=lora"])
    with pytest.raises(SystemExit, match="a list of names"):
        main(["tasks=sql"])


def test_the_command_prints_the_matrix(tmp_path, tasks, here, capsys):
    main([*given(tmp_path), f"tasks=[{quoted(tasks[0])},{quoted(tasks[1])}]"])
    said = capsys.readouterr().out
    assert "after training on" in said
    assert "backward transfer +0.000" in said


def test_the_table_shows_every_stage():
    from io import StringIO

    from rich.console import Console

    matrix, base = [[0.5, 0.25], [0.125, 1.0]], [0.0, 0.0625]
    result = {
        "method": "lora",
        "model": "tiny",
        "seed": 3,
        "tasks": ["sql", "style task.n=1"],
        "metrics": ["m", "k"],
        "base": base,
        "matrix": matrix,
        "text_perplexity": [1.0, 2.0, 3.0],
        **transfer(matrix, base),
    }
    console = Console(file=StringIO(), width=200)
    console.print(table(result))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    for text in ("nothing", "0.062", "0.125", "+0.375", "3.00", "style", "lora on tiny, seed 3"):
        assert text in said


# ---------------------------------------------------------------- going on from a file


def test_a_start_of_another_method_is_refused(tmp_path, tasks, here):
    sequence(tasks[:2], given(tmp_path, "method=lora"))
    file = here[0].directory / "delta.safetensors"
    with pytest.raises(ValueError, match=r"a delta of LoRA; this run's method is of IA3"):
        run(Arm((*given(tmp_path), "method=ia3", "task=jsonl", *tasks[0].split()[1:], f"start_from={file}")).config)
    with pytest.raises(ValueError, match="not the tensors of this"):
        run(Arm((*given(tmp_path), "method=full", "task=jsonl", *tasks[0].split()[1:], f"start_from={file}")).config)
    assert torch.is_grad_enabled()
