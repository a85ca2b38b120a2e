"""The pool with doubles in place of runs: what it starts, what it records, and that nothing outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from io import StringIO
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from benchmarks.made_up import made_up_result
from experiments.store.result import Result
from experiments.support.files import locked
from experiments.sweep import job as job_module
from experiments.sweep import pool
from experiments.sweep.arm import Arm
from experiments.sweep.job import LOG, Job
from experiments.sweep.live_view import duration, labels, left_s
from experiments.sweep.pool import carry_out
from tests.support.sweeper import WAIT_S, doubles, gone, intact, start_doubles, starts, until


def said(arms: list[Arm], slots: int = 2, **how: bool) -> tuple[list[Result], str]:
    """The rows, and what was printed."""
    console = Console(file=StringIO(), width=200, **how)  # type: ignore[arg-type]
    rows = carry_out(arms, slots, console=console)
    assert isinstance(console.file, StringIO)
    return rows, console.file.getvalue()


# ---------------------------------------------------------------- what is run


def test_each_run_once_in_order_and_never_again(tmp_path):
    arms = doubles(tmp_path, ["well"] * 5)
    rows, text = said([*arms, arms[0]])
    assert [row.method for row in rows] == [arm.directory.name for arm in [*arms, arms[0]]]
    assert all(row.failure is None for row in rows)
    assert all(len(starts(arm.directory)) == 1 for arm in arms)
    assert (text.count("started: "), text.count("done: ")) == (5, 5)
    assert intact(tmp_path, 4) == 5
    again, text = said(arms)
    assert again == rows[:5]
    assert all(len(starts(arm.directory)) == 1 for arm in arms)
    assert text.count("(done already)") == 5


@pytest.mark.parametrize("slots", [1, 3])
def test_no_more_at_a_time_than_there_are_slots(tmp_path, monkeypatch, slots):
    arms = doubles(tmp_path, ["well"] * 5, steps=3, step_s=0.03)
    most = 0
    sleep = time.sleep
    earlier = set(psutil.Process().children())  # other tests of this process may have left helpers of multiprocessing

    def count(seconds: float) -> None:
        nonlocal most
        most = max(most, sum(child.is_running() for child in set(psutil.Process().children()) - earlier))
        sleep(seconds)

    monkeypatch.setattr(pool.time, "sleep", count)
    said(arms, slots)
    assert most == slots


def test_what_goes_wrong_is_recorded_and_the_others_go_on(tmp_path):
    arms = doubles(tmp_path, ["dies", "exits", "raises", "well"])
    rows, text = said(arms, 1)
    failures = [row.failure for row in rows]
    assert failures[0] is not None
    assert failures[0].startswith("killed by signal 9 (Killed)")
    assert failures[1] is not None
    assert failures[1].startswith("ended with exit code 1 before it wrote a result: the double gave up")
    assert failures[2:] == ["made up", None]
    results = [json.loads(arm.result.read_text()) for arm in arms]
    assert [result["failure_kind"] for result in results[:3]] == ["killed", "error", "nan"]
    assert {result["status"] for result in results[:3]} == {"failed"}
    assert (rows[0].steps, rows[0].lr, rows[0].method) == (4, 1e-3, "0-dies")
    assert "failed: 2/4" in text
    assert "    the double gave up" in text
    said(arms, 2)
    assert [len(starts(arm.directory)) for arm in arms] == [2, 2, 2, 1]  # the failed ones were tried again


def test_killed_when_memory_ran_out(tmp_path, monkeypatch):
    counts = iter([3, 4])
    monkeypatch.setattr(job_module, "oom_kills", lambda: next(counts))
    (row,), _ = said(doubles(tmp_path, ["dies"]))
    assert row.failure is not None
    assert "ran out of memory" in row.failure
    assert json.loads((tmp_path / "0-dies" / "result.json").read_text())["failure_kind"] == "oom"


def test_a_command_that_cannot_start_is_a_failure(tmp_path):
    (arm,) = doubles(tmp_path, ["well"], steps=2)
    odd = type(arm)((arm.overrides[0], "2", "soon", "well"))
    (row,), _ = said([odd])
    assert row.failure is not None
    assert "ValueError: could not convert string to float: 'soon'" in row.failure


def test_values_that_make_no_sense_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match="slots=0: must be at least 1"):
        carry_out([], 0)
    good = doubles(tmp_path, ["well"])
    bad = Arm(("model=tiny", "task=jsonl", "task.train=none.jsonl", "optim.steps=0", f"out={tmp_path}"))
    with pytest.raises(ValueError, match=r"optim\.steps=0: must be at least 1"):
        said([*good, bad])
    assert starts(good[0].directory) == []
    assert said([])[0] == []


# ---------------------------------------------------------------- resources


def test_the_slots_share_the_cores_and_the_gpus(tmp_path, monkeypatch):
    (arm,) = doubles(tmp_path, ["well"])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(pool, "cores", lambda: 7)
    assert [pool.environment(arm, 0, slots)["OMP_NUM_THREADS"] for slots in (1, 2, 9)] == ["7", "3", "1"]
    said([arm], 2)
    assert (arm.directory / "starts").read_text().split()[1] == "3"
    arm.config.threads = 5
    assert "OMP_NUM_THREADS" not in pool.environment(arm, 0, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")  # said by the user
    arm.config.threads = None
    assert pool.environment(arm, 0, 2)["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [pool.environment(arm, slot, 3)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["3", "5", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert pool.environment(arm, 1, 2)["CUDA_VISIBLE_DEVICES"] == "3"


# ---------------------------------------------------------------- stopped


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_every_process_and_a_rerun_goes_on(tmp_path, number, code):
    sweep = start_doubles(tmp_path, ["shell", "well"], steps=40, step_s=0.05)
    folders = [tmp_path / "0-shell", tmp_path / "1-well"]
    until(lambda: all((folder / "kept.json").is_file() for folder in folders), "the runs do not start")
    pids = [starts(folder)[0] for folder in folders] + [int((folders[0] / "child").read_text())]
    sweep.send_signal(number)
    text, _ = sweep.communicate(timeout=WAIT_S)
    assert sweep.returncode in (code, -number), text
    assert "KeyboardInterrupt" in text or number != signal.SIGINT
    assert all(map(gone, pids))
    assert not any((folder / "result.json").exists() for folder in folders)  # cut off is not failed
    arms = doubles(tmp_path, ["shell", "well"], steps=40, step_s=0.0)
    rows, _ = said(arms)
    assert [row.failure for row in rows] == [None, None]
    assert intact(tmp_path, 40) == 2
    assert gone(int((folders[0] / "child").read_text()))  # what a complete run leaves behind is ended too


def test_nothing_outlives_a_sweep_that_is_killed(tmp_path):
    sweep = start_doubles(tmp_path, ["well"] * 2, steps=400, step_s=0.05)
    folders = [tmp_path / "0-well", tmp_path / "1-well"]
    until(lambda: all(starts(folder) for folder in folders), "the runs do not start")
    sweep.kill()
    sweep.communicate(timeout=WAIT_S)
    until(lambda: all(gone(starts(folder)[0]) for folder in folders), "a run lives on without its sweep")


def test_signals_that_are_ignored_stay_ignored_and_handlers_come_back():
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pool.signals() as raise_if_signalled:
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                raise_if_signalled()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---------------------------------------------------------------- two at once


def test_a_sweep_waits_for_a_run_that_another_holds_and_takes_its_result(tmp_path):
    hows = ["raises", "well", "well"]
    first = start_doubles(tmp_path, hows, slots=1, steps=20, step_s=0.05)
    until(lambda: starts(tmp_path / "0-raises"), "the first sweep does not start")
    rows, text = said(doubles(tmp_path, hows, steps=20, step_s=0.05), 1)
    first.communicate(timeout=WAIT_S)
    assert [row.failure for row in rows] == ["made up", None, None]
    assert [len(starts(tmp_path / f"{i}-{how}")) for i, how in enumerate(hows)] == [1, 1, 1]
    assert "waiting: " in text
    assert first.returncode == 1  # one failed


def test_a_run_that_was_started_by_hand_is_waited_for(tmp_path):
    (arm,) = doubles(tmp_path, ["well"], steps=10, step_s=0.05)
    arm.directory.mkdir()
    by_hand = subprocess.Popen(arm.command, cwd=pool.ROOT)
    until(lambda: starts(arm.directory), "the run does not start")
    (row,), text = said([arm])
    assert by_hand.wait() == 0
    assert row.failure is None
    assert starts(arm.directory) == [by_hand.pid]
    assert "waiting: " in text


def test_a_run_that_another_took_while_it_started_is_waited_for(tmp_path, monkeypatch):
    """By hand again, but in the moment between the pool's look at the lock and the run's own."""
    (arm,) = doubles(tmp_path, ["well"])
    arm.directory.mkdir()
    lock = locked(arm.directory / "lock")
    assert lock is not None
    free, looks = job_module.unlocked, 0

    def look(path: Path) -> bool:
        nonlocal looks
        looks += 1
        if looks == 3:
            lock.close()
        return looks == 1 or free(path)

    monkeypatch.setattr(job_module, "unlocked", look)
    (row,), text = said([arm])
    assert row.failure is None
    assert b"another process is at work" in (arm.directory / LOG).read_bytes()
    assert "waiting: " in text
    assert len(starts(arm.directory)) == 1


# ---------------------------------------------------------------- what is shown


def test_on_a_terminal_there_is_a_live_table(tmp_path):
    arms = doubles(tmp_path, ["well", "exits"], steps=9, step_s=0.05)
    _, text = said(arms, force_terminal=True)
    assert "/9, loss 1.000" in text
    assert "2 running" in text
    assert "1 done, 1 failed" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again


def test_labels_are_what_the_arms_differ_in(tmp_path):
    shared = ("model=tiny", "task=ha_json", f"out={tmp_path}")
    jobs = [Job(Arm((*shared, "method=lora", f"seed={seed}"))) for seed in (0, 1)]
    assert labels(jobs) == ["seed=0", "seed=1"]
    assert labels(jobs[:1])[0].startswith("tiny-ha_json-lora-s0-")


def test_the_time_left_follows_from_what_was_seen(tmp_path):
    jobs = [Job(arm) for arm in doubles(tmp_path, ["well"] * 6)]
    assert left_s(jobs, 2) is None
    row = made_up_result()
    for job, took in zip(jobs, (10.0, 30.0)):
        job.row, job.ran_s = row, took
    assert left_s(jobs, 2) == 40.0  # four runs of 20 s, two at a time
    assert left_s(jobs, 8) == 20.0
    assert [duration(s) for s in (7.2, 120, 7200)] == ["7 s", "2 min", "2.0 h"]
