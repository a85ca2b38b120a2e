"""Sweeps killed and raced at random moments: nothing is lost, doubled or torn, and nothing lives on.

The whole proofs are one command each, with doubles in place of runs and with real runs of the tiny model:

    python -m pytest tests/experiments/sweep -m slow -k "killed and doubles"      50 kills: 1 min on 2 cores
    python -m pytest tests/experiments/sweep -m slow -k "killed and real"         50 kills: 30 min on 2 busy cores
    python -m pytest tests/experiments/sweep -m slow -k raced                     50 races and 5 real ones: 5 min
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from experiments.sweep.arm import Arm
from tests.support.runs import metrics, own_cache_and_torch_settings, words  # noqa: F401 - a fixture
from tests.support.sweeper import doubles, gone, intact, start, start_doubles, starts, until

FLAGS = (
    *("model=tiny", "task=jsonl", "task.n_val=5", "task.n_test=6", "optim=quick", "optim.checkpoint_every=7"),
    *("eval.max_new_tokens=6", "forgetting.n_text=3", "forgetting.n_kl=2", "device=cpu", "threads=1"),
)
METHODS = ("method=lora", "method=bitfit", "method=prefix", "method=full", "method=lora seed=1", "method=bitfit seed=1")


@dataclass(frozen=True)
class Kind:
    """How a sweep is started in a folder, how many arms it has, steps each, and seconds from start to end."""

    start: Callable[[Path], subprocess.Popen[str]]
    n_arms: int
    steps: int
    sweep_s: float

    def run(self, folder: Path) -> None:
        """A sweep that nobody disturbs, to its end."""
        sweep = self.start(folder)
        text, _ = sweep.communicate(timeout=1200)
        assert sweep.returncode == 0, text
        assert intact(folder, self.steps) == self.n_arms, text


def double(n_arms: int, steps: int) -> Kind:
    how = ["well"] * n_arms
    return Kind(lambda folder: start_doubles(folder, how, 2, steps, 0.02), n_arms, steps, 1.0 + n_arms * steps * 0.015)


def real(data: Path, methods: Sequence[str], steps: int, sweep_s: float) -> Kind:
    shared = (*FLAGS, f"task.train={data}", f"optim.steps={steps}")
    return Kind(lambda at: start("runs", "2", *shared, f"out={at}", "--", *methods), len(methods), steps, sweep_s)


def kills(kind: Kind, folder: Path, n: int) -> list[Path]:
    """Kill sweeps n times, the parent, one of its runs, or all; a sweep that gets to its end is put aside.

    Returns the folders of the whole sweeps.
    """
    draw = random.Random()
    runs, whole = folder / "runs", []
    sweep: subprocess.Popen[str] | None = None
    done = killed = 0

    def put_aside() -> None:
        nonlocal done
        runs.rename(folder / f"whole-{len(whole)}")
        whole.append(folder / f"whole-{len(whole)}")
        done = 0

    while killed < n:
        sweep = sweep or kind.start(runs)
        late = time.monotonic() + draw.uniform(0, kind.sweep_s / 2)
        while time.monotonic() < late and sweep.poll() is None:
            time.sleep(0.005)
        try:
            children = psutil.Process(sweep.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        whom = draw.choice(["parent", "run", "all"])
        if sweep.poll() is None:
            if whom != "parent":
                for child in draw.sample(children, min(1 if whom == "run" else 9, len(children))):
                    child.kill()
            if whom != "run":
                sweep.kill()
            killed += 1 if whom != "run" or children else 0
        if whom == "run" and sweep.poll() is None:
            continue  # the sweep goes on without it
        text, _ = sweep.communicate(timeout=60)
        assert "Traceback" not in text, text
        sweep = None
        until(lambda left=children: all(gone(child.pid) for child in left), f"left behind: {whom} was killed")
        now = intact(runs, kind.steps) if runs.is_dir() else 0
        assert now >= done, "a complete run was lost"
        done = now
        if done == kind.n_arms:
            put_aside()
    if sweep is not None:
        sweep.communicate(timeout=1200)
    kind.run(runs)
    put_aside()
    return whole


def races(kind: Kind, folder: Path, n: int) -> None:
    """Two sweeps on one folder, started within a moment: both get all rows, and no run was started twice."""
    draw = random.Random()
    for i in range(n):
        sweeps = []
        for _ in range(2):
            sweeps.append(kind.start(folder / str(i)))
            time.sleep(draw.uniform(0, 0.5))
        texts = [sweep.communicate(timeout=1200)[0] for sweep in sweeps]
        assert [sweep.returncode for sweep in sweeps] == [0, 0], texts
        assert [text.count("done: ") for text in texts] == [kind.n_arms] * 2, texts
        # What one sweep started the other did not: together as many starts as there are runs.
        assert sum(text.count("started: ") for text in texts) == kind.n_arms, texts
        assert intact(folder / str(i), kind.steps) == kind.n_arms


def test_doubles_killed_a_few_times(tmp_path):
    kills(double(5, 12), tmp_path, 4)


def test_doubles_raced_a_few_times(tmp_path):
    races(double(4, 4), tmp_path, 2)
    assert all(len(starts(run)) == 1 for race in tmp_path.iterdir() for run in race.iterdir())


@pytest.mark.slow
def test_doubles_killed_fifty_times(tmp_path):
    kills(double(6, 30), tmp_path, 50)


@pytest.mark.slow
def test_doubles_raced_fifty_times(tmp_path):
    races(double(4, 4), tmp_path, 50)
    assert all(len(starts(run)) == 1 for race in tmp_path.iterdir() for run in race.iterdir())


@pytest.mark.slow
def test_real_runs_killed_fifty_times(tmp_path):
    """And what is left is, to the bit, what a sweep leaves that nobody disturbed."""
    data = words(tmp_path / "words.jsonl")
    began = time.monotonic()
    real(data, METHODS, 60, 0.0).run(tmp_path / "undisturbed")
    (tmp_path / "killed").mkdir()
    whole = kills(real(data, METHODS, 60, time.monotonic() - began), tmp_path / "killed", 50)
    for expected in (tmp_path / "undisturbed").iterdir():
        (weights,) = expected.glob("*.safetensors")
        for folder in whole:
            run = folder / expected.name
            assert metrics(run) == metrics(expected), run
            assert (run / weights.name).read_bytes() == weights.read_bytes(), run
            assert (run / "predictions.jsonl").read_bytes() == (expected / "predictions.jsonl").read_bytes(), run


@pytest.mark.slow
def test_real_runs_raced(tmp_path):
    races(real(words(tmp_path / "words.jsonl"), METHODS[:2], 4, 0.0), tmp_path, 5)


def test_the_real_kinds_arms_compose(tmp_path):
    """That the flags above fit the configuration is known without waiting for the slow tests."""
    names = {
        Arm((*FLAGS, f"task.train={words(tmp_path / 'words.jsonl')}", f"out={tmp_path}", *method.split())).directory
        for method in METHODS
    }
    assert len(names) == len(METHODS)
    assert len(doubles(tmp_path, ["well"] * 3)) == 3
