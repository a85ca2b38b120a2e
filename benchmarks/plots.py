"""Pictures of the results: ratios to the frozen layer with the limit, the roofline, and stacked step times.

    python -m benchmarks.plots [--results benchmarks/results] [--device cpu] [--peaks TFLOPS GB_S]

Every CSV in the folder that holds what a picture needs gets it, a PNG beside the CSV.
"""  # fmt: skip

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.command import DTYPES, RESULTS, device_slug
from benchmarks.roofline import Machine, measured
from benchmarks.table import FROZEN, OUR_LOOP, PEFT, read_csv

Rows = Sequence[dict[str, str]]
COLOURS = {
    "frozen": "0.5", "full": "0.75", "peft": "C3", "peft matched": "C1", "peft compiled": "C6", "eager": "C1",
    "ours": "C0", "ours plain": "C9", "ours triton": "C2", "ours addmm": "C8", "ours stacked": "C4",
}  # fmt: skip


def ratio_plot(rows: Rows, path: Path) -> Path | None:
    """Forward and backward over the frozen layer's, a point a provider over the shapes; the limit a line."""
    mine = [row for row in rows if row["op"] == "both" and row["ratio_frozen"] and row["provider"] != FROZEN]
    if not mine:
        return None
    cases = list(dict.fromkeys(named(row) for row in mine))
    figure, axes = sheet(max(6.0, 1 + 0.45 * len(cases)), 5.5)
    for provider in dict.fromkeys(row["provider"] for row in mine):
        points = [(cases.index(named(row)), float(row["ratio_frozen"])) for row in mine if row["provider"] == provider]
        axes.plot(*zip(*points), "o", color=COLOURS.get(provider), label=provider, markersize=5, alpha=0.85)
    limits = {cases.index(named(row)): float(row["limit"]) for row in mine if row["limit"]}
    if limits:
        axes.plot(list(limits), list(limits.values()), "k_", markersize=14, label="limit by operations")
    axes.axhline(1, color="0.5", linewidth=1)
    axes.set_xticks(range(len(cases)), cases, rotation=60, ha="right", fontsize=7)
    axes.set(ylabel="time / frozen layer", title=f"forward and backward, {mine[0]['device']}")
    return saved(figure, axes, path)


def roofline_plot(rows: Rows, machine: Machine, path: Path) -> Path | None:
    """TFLOP/s over operations a byte that the job needs, under the machine's two roofs."""
    mine = [row for row in rows if row["tflops"] and row["gb_s"]]
    if not mine:
        return None
    figure, axes = sheet(7, 5)
    for provider in dict.fromkeys(row["provider"] for row in mine):
        points = [
            (1e3 * float(row["tflops"]) / float(row["gb_s"]), float(row["tflops"]))
            for row in mine
            if row["provider"] == provider
        ]
        axes.plot(*zip(*points), "o", color=COLOURS.get(provider), label=provider, markersize=4, alpha=0.8)
    most = max(1e3 * float(row["tflops"]) / float(row["gb_s"]) for row in mine)
    grid = [most * 2 / 1.3**i for i in range(30)]
    axes.plot(grid, [machine.roof(x) for x in grid], "k-", linewidth=1, label="roof as measured or given")
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="TFLOP/s", title=mine[0]["device"])
    return saved(figure, axes, path)


def step_plot(rows: Rows, path: Path) -> Path | None:
    """Milliseconds of a step: the frozen model's share below, in the same loop, what the method adds above it.

    Every provider in our loop, where it was timed there, and PEFT as it comes.
    """

    def bound_of(row: dict[str, str]) -> tuple[str, str]:
        return row["shape"], FROZEN + (OUR_LOOP if row["provider"].endswith(OUR_LOOP) else "")

    mine = [row for row in rows if row["op"].endswith("step") and row["best"]]
    bound = {(row["shape"], row["provider"]): float(row["best"]) for row in mine if row["provider"].startswith(FROZEN)}
    timed = {(row["shape"], row["provider"]) for row in mine}
    mine = [
        row for row in mine
        if bound_of(row) in bound and not row["provider"].startswith(FROZEN)
        and (row["provider"] == PEFT or (row["shape"], row["provider"] + OUR_LOOP) not in timed)
    ]  # fmt: skip
    if not mine:
        return None
    labels = [f"{row['shape'].split()[-1]}: {row['provider']}" for row in mine]
    figure, axes = sheet(8, 1.5 + 0.22 * len(mine))
    base = [min(bound[bound_of(row)], float(row["best"])) for row in mine]
    above = [max(0.0, float(row["best"]) - bound[bound_of(row)]) for row in mine]
    axes.barh(labels, base, color="0.7", label="frozen forward and backward")
    axes.barh(labels, above, left=base, color="C0", label="above it")
    axes.margins(y=0.01)
    axes.invert_yaxis()
    model = mine[0]["shape"].rpartition(" ")[0]
    axes.set(xlabel="ms a step", title=f"{model}, {mine[0]['threads']} threads, {mine[0]['device']}")
    return saved(figure, axes, path)


def named(row: dict[str, str]) -> str:
    parts = [row["shape"], f"r{row['rank']}" if row["rank"] else "", f"p{row['dropout']}" if row["dropout"] else ""]
    parts += [row["dtype"], "no dX" if row["dx"] == "False" else ""]
    parts += [f"{row['threads']} threads" if row["clock"] != "cuda" else ""]
    return " ".join(part for part in parts if part)


def sheet(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def saved(figure: Figure, axes: Axes, path: Path) -> Path:
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center", ncols=4)
    figure.savefig(path)
    return path


def main(argv: list[str] | None = None) -> int:
    made = argparse.ArgumentParser("python -m benchmarks.plots", description=__doc__)
    made.add_argument("--results", type=Path, default=RESULTS)
    made.add_argument(
        "--device", default="cpu", help="whose CSVs, and whose peaks; with --peaks also a name such as nvidia-h200"
    )
    made.add_argument("--dtype", choices=DTYPES, default="bf16")
    made.add_argument("--peaks", type=float, nargs=2, metavar=("TFLOPS", "GB_S"), help="instead of measuring them")
    options = made.parse_args(argv)
    given = options.peaks and options.device not in ("cpu", "cuda")
    slug = options.device if given else device_slug(torch.device(options.device))  # each under its own roofs
    files = sorted(options.results.glob(f"*-{slug}.csv"))
    if not files:
        print(f"benchmarks.plots: no *-{slug}.csv in {options.results}; run a benchmark first", file=sys.stderr)
        return 1
    machine = Machine(*options.peaks) if options.peaks else None
    for file in files:
        rows = read_csv(file)
        drawn = [ratio_plot(rows, file.with_suffix(".ratio.png")), step_plot(rows, file.with_suffix(".step.png"))]
        of_dtype = [row for row in rows if row["gb_s"] and row["dtype"] == options.dtype]
        if of_dtype:
            machine = machine or measured(torch.device(options.device), DTYPES[options.dtype])
            drawn.append(roofline_plot(of_dtype, machine, file.with_suffix(".roofline.png")))
        for path in drawn:
            if path is not None:
                print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
