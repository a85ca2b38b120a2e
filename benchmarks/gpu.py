"""Everything a GPU has to say, in one command of at most 25 minutes: correctness, dispatch table, benchmarks, plots.

    python -m benchmarks.gpu [--out DIR] [--limit-s 1500] [--again] [--only STEP …]

Each step is a process with a time limit; a step that fails is reported and the rest goes on. What is done is kept in
DIR/gpu.json under the commit, so the same command goes on where it was cut off. Exit status: 0 all done, 1 the kernels
are not correct, 2 no CUDA device, 3 another step failed or is left for the next call.
"""  # fmt: skip

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.command import RESULTS, device_slug
from experiments.support.files import write_json
from experiments.support.provenance import ROOT, environment

CORRECTNESS = "correctness"
NEEDED = ("deltatune.kernels", "triton", "transformers", "peft", "pytest", "hypothesis", "rich", "psutil", "matplotlib")


def there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that holds the module is missing
        return False


class Step(NamedTuple):
    """A command and the seconds it may take."""

    name: str
    command: list[str]
    limit_s: int


def steps(out: Path, slug: str) -> list[Step]:
    def bench(name: str, limit_s: int, *arguments: str, suffix: str = "") -> Step:
        path = out / f"{name}{suffix}-{slug}.csv"
        command = [sys.executable, "-m", f"benchmarks.bench_{name}", "--device", "cuda", "--out", str(path)]
        return Step(name + suffix, [*command, *arguments], limit_s)

    tests = sorted(str(path) for path in (ROOT / "tests").glob("test_kernels*.py"))
    ahead = [path for path in tests if path.endswith("_aot.py")]  # what the compiler makes of other cards' tiles
    tests = [path for path in tests if path not in ahead]
    # Most of the suite's time on a GPU is compilation, which takes one core a worker.
    workers = ["-n", "8", "--dist", "worksteal"] if find_spec("xdist") is not None else []
    bf16, rank, layer = ("--dtypes", "bf16"), ("--ranks", "16"), ("--rows", "2048", "8192", "--dx", "on")
    train = ("--model", "smollm2-random", "--batch", "8", "--tokens", "512")  # ten processes share the card's memory
    eager = ("--ops", "both", "--no-compile")
    check = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers]
    return [
        Step(CORRECTNESS, [*check, *tests], 240),
        Step("tune", [sys.executable, "-m", "benchmarks.tune"], 240),
        bench("lora_linear", 180, *bf16, *layer, *rank, "--ops", "both"),
        bench("lora_group", 80, *bf16, *layer, *eager),
        bench("train_step", 180, *train, "--scenarios", "bf16", "bf16-dropout", "half", "--repeats", "7"),
        bench("lora_linear", 80, *bf16, *layer, *rank, *eager, "--graphs", suffix="-graphs"),
        bench("multi_lora", 60, *bf16, "--rows", "8192", "--batch", "64", "--adapters", "4", "32"),
        bench("ce", 45, *bf16),
        bench("dropout", 60, *bf16, "--rows", "8192", "--dropouts", "0.1"),
        bench("dora", 60, *bf16, "--rows", "8192", "--dx", "on", *eager),
        bench("adapter", 45, *bf16, "--rows", "8192", "--dx", "on", "--ops", "both"),
        bench("prefix", 45, *bf16, *train),
        Step("plots", [sys.executable, "-m", "benchmarks.plots", "--results", str(out), "--device", "cuda"], 60),
        Step("compilation", [*check, *ahead], 150),
    ]


def go(step: Step, limit_s: float, log: Path) -> dict[str, Any]:
    """Run one step, its output into `log`; {"status": "done" | "failed" | "late", "wall_s", "why"}."""
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        try:
            done = subprocess.run(step.command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=limit_s)
            status, why = ("done", "") if done.returncode == 0 else ("failed", f"exit status {done.returncode}")
        except subprocess.TimeoutExpired:
            status, why = "late", f"cut off after {limit_s:.0f} s"
    return {"status": status, "wall_s": round(time.monotonic() - began, 1), "why": why and f"{why}, see {log}"}


def run(todo: Sequence[Step], state_file: Path, limit_s: float, again: bool, commit: str | None) -> dict[str, Any]:
    """Run what is not done at this commit, the state written after every step."""
    state = json.loads(state_file.read_text()) if state_file.exists() and not again else {}
    if state.get("commit") != commit:
        state = {"commit": commit, "steps": {}}
    end = time.monotonic() + limit_s
    for step in todo:
        if state["steps"].get(step.name, {}).get("status") == "done":
            continue
        left = end - time.monotonic()
        if left < 20:
            state["steps"][step.name] = {"status": "left", "wall_s": 0, "why": "no time left; run the command again"}
            continue
        print(f"{step.name} …", file=sys.stderr, flush=True)
        state["steps"][step.name] = go(step, min(left, step.limit_s), state_file.with_name(f"gpu-{step.name}.log"))
        write_json(state_file, state)
    return state


def report(state: dict[str, Any], names: Sequence[str]) -> int:
    """Print what became of every step; the exit status."""
    table = Table("step", "status", "seconds", "why")
    found = {name: state["steps"][name] for name in names if name in state["steps"]}
    for name, step in found.items():
        table.add_row(name, step["status"], str(step["wall_s"]), step["why"])
    Console(width=160).print(table)
    if found.get(CORRECTNESS, {"status": "done"})["status"] != "done":
        return 1
    return 0 if all(step["status"] == "done" for step in found.values()) else 3


def main(argv: list[str] | None = None) -> int:
    made = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__)
    made.add_argument("--out", type=Path, default=RESULTS)
    made.add_argument("--limit-s", type=float, default=1500, help="of the whole command")
    made.add_argument("--again", action="store_true", help="forget what was done")
    made.add_argument("--only", nargs="+", help="these steps alone")
    options = made.parse_args(argv)
    if not torch.cuda.is_available():
        print("benchmarks.gpu: torch finds no CUDA device here; run it on a machine with a GPU", file=sys.stderr)
        return 2
    if missing := [name for name in NEEDED if not there(name)]:
        print(
            f"benchmarks.gpu: not importable here: {', '.join(missing)}; in the checkout: pip install --no-deps "
            "--no-build-isolation -e . (for deltatune.kernels), and pip install the others",
            file=sys.stderr,
        )
        return 2
    device = torch.device("cuda")
    options.out.mkdir(parents=True, exist_ok=True)
    todo = steps(options.out.resolve(), device_slug(device))
    if options.only:
        unknown = set(options.only) - {step.name for step in todo}
        if unknown:
            made.error(f"no step {', '.join(sorted(unknown))}; there are: {', '.join(step.name for step in todo)}")
        todo = [step for step in todo if step.name in options.only]
    commit = environment(device)["commit"]
    state = run(todo, options.out / "gpu.json", options.limit_s, options.again, commit)
    return report(state, [step.name for step in todo])


if __name__ == "__main__":
    sys.exit(main())
