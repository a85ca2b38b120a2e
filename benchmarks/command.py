"""What every benchmark's command line shares: options, the run over cases, the CSV and the table."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.table import Row, add_ratios, show, write_csv
from benchmarks.timing import Timed, Times, clock_of, measure
from experiments.support.provenance import environment

RESULTS = Path(__file__).with_name("results")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Case:
    """Providers that are timed in turn and compared with each other; a string says why one is absent."""

    op: str
    shape: str
    providers: Mapping[str, Timed | str]
    rank: int | None = None
    dropout: float | None = None
    dtype: str = ""
    dx: bool | None = None
    limit: float | None = None
    limited: tuple[str, ...] = ("ours",)  # providers (by their first word) that the limit is a limit of
    median: bool = False  # ratios of medians on the wall clock too
    clock: str | None = None  # None: what the device and its threads ask for
    notes: dict[str, str] = field(default_factory=dict)


def parser(name: str, description: str, repeats: int = 20, threads: Sequence[int] | None = None) -> Any:
    """The shared options; a benchmark adds its own."""
    made = argparse.ArgumentParser(f"python -m benchmarks.{name}", description=description)
    made.add_argument("--quick", action="store_true", help="a few small cases, three repeats: does it run at all")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--repeats", type=int, default=repeats, help="timed calls a provider (default: %(default)s)")
    made.add_argument("--warmup", type=int, default=2)
    made.add_argument("--threads", type=int, nargs="+", default=threads, help="on a CPU; one: process time")
    made.add_argument("--graphs", action="store_true", help="on a GPU: time CUDA graphs, without Python's share")
    made.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="torch.compile(peft) too (on a GPU the default)"
    )
    made.add_argument("--seed", type=int, default=0)
    made.add_argument(
        "--out", type=Path, help="the CSV (benchmarks/results/<name>-<device>.csv; --quick: in runs/benchmarks)"
    )
    return made


def settle(options: Any) -> Any:
    """Turn the device's name into a device, and fill what hangs on it."""
    options.device = torch.device(options.device)
    if options.device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch finds no CUDA device here; use --device cpu")
    if options.compile is None:
        options.compile = options.device.type == "cuda"
    if options.quick:
        options.repeats = min(options.repeats, 3)
        options.warmup = 1
    options.threads = options.threads or ([1] if options.device.type == "cuda" else [1, torch.get_num_threads()])
    options.threads = list(dict.fromkeys(options.threads))
    return options


def run(name: str, cases: Callable[[Any], Iterable[Case]], options: Any) -> list[Row]:
    """All rows of a benchmark, with their ratios; the CSV written, the table printed."""
    rows: list[Row] = []
    about = provenance(options)
    folder = Path("runs", "benchmarks") if options.quick else RESULTS  # a first look does not replace a measurement
    path = options.out or folder / f"{name.removeprefix('bench_')}-{device_slug(options.device)}.csv"
    before = torch.get_num_threads()
    try:
        for threads in options.threads:
            torch.set_num_threads(threads)
            for case in cases(options):
                print(f"{name}: {case.op} {case.shape} {case.dtype}, {threads} threads", file=sys.stderr, flush=True)
                rows += case_rows(name, case, options, about | {"threads": threads})
                del case  # its processes go with it, before the next case starts its own
                add_ratios(rows)
                write_csv(rows, path)  # a run that is cut off keeps the cases it has
    finally:
        torch.set_num_threads(before)
    show(rows, f"{name}, {about['device']}, torch {torch.__version__}, seed {options.seed}")
    print(path)
    return rows


def provenance(options: Any) -> dict[str, Any]:
    """What every row of a run says of where it comes from."""
    about = environment(options.device)
    kept = {key: about[key] for key in ("commit", "dirty", "torch", "transformers")}
    device = about["cpu"] if options.device.type == "cpu" else about["device"]
    return kept | {"device": device, "peft": version("peft"), "repeats": options.repeats, "seed": options.seed}


def case_rows(name: str, case: Case, options: Any, about: dict[str, Any]) -> list[Row]:
    shared = about | {
        "benchmark": name.removeprefix("bench_"),
        "clock": case.clock or clock_of(options.device),
        **{key: getattr(case, key) for key in ("op", "shape", "rank", "dropout", "dtype", "dx")},
    }
    there = {n: t for n, t in case.providers.items() if isinstance(t, Timed)}
    found = measure(there, options.device, options.repeats, options.warmup, options.graphs, case.clock)
    rows = []
    for provider, timed in case.providers.items():
        row = Row(provider=provider, note=case.notes.get(provider, ""), **shared)
        times = timed if isinstance(timed, str) else found[provider]
        if isinstance(times, str) or isinstance(timed, str):
            row.note = str(times)
        else:
            fill(row, timed, times, case.median)
            row.limit = case.limit if provider.split()[0] in case.limited else None
        rows.append(row)
    return rows


def fill(row: Row, timed: Timed, times: Times, median: bool) -> None:
    row.y50, row.y20, row.y80, row.y_min = times.y50, times.y20, times.y80, times.y_min
    row.best = best = times.best(median)
    row.tokens_s = None if timed.tokens is None else timed.tokens / best * 1e3
    row.tflops = None if timed.flops is None else timed.flops / best / 1e9
    row.gb_s = None if timed.moved_bytes is None else timed.moved_bytes / best / 1e6
    row.peak_bytes, row.saved_bytes, row.rel_error = timed.peak_bytes, timed.saved_bytes, timed.rel_error


def finish(rows: Sequence[Row]) -> int:
    """The exit status: 1 where a provider that is there failed."""
    return int(any(row.note.startswith("failed") for row in rows))


def device_slug(device: torch.device) -> str:
    return "cpu" if device.type == "cpu" else "-".join(torch.cuda.get_device_name(device).lower().split())


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
