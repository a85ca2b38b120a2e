"""The measurements of benchmarks/results, a table for each file; no number stands here that is not in one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import RESULTS
from benchmarks.table import FROZEN, PEFT, read_csv
from docs.generators.text import ROOT, module_doc, page, prose, table

Rows = Sequence[dict[str, str]]
SCENARIO = ("dropout", "dtype", "dx", "threads")  # the first of each is shown of a layer's benchmark

PROVIDERS = (
    ("`frozen`", "the layer or model without a method, forward and backward: what no method can undercut by much"),
    ("`full`", "the layer's own weight trained"),
    ("`eager`", "the method in torch modules, as one would write it"),
    ("`peft`", "PEFT as its users get it, with adapters in fp32"),
    ("`peft matched`", "PEFT with its adapters in the base's data type"),
    ("`peft compiled`", "PEFT under `torch.compile`"),
    ("`ours`", "the backend that this library chooses by itself"),
    ("`ours plain`", "the same without its kernels"),
    ("`ours triton`, `ours addmm`", "the same by that backend, chosen or not"),
    ("… `our loop`", "in the training loop of an experiment"),
)


def page_of_performance() -> str:
    """A part for each benchmark, a table in it for each device that it was measured on."""
    files: dict[str, list[Path]] = {}
    for path in sorted(RESULTS.glob("*.csv")):
        files.setdefault(read_csv(path)[0]["benchmark"], []).append(path)
    parts = []
    for name, paths in files.items():
        parts += [f"## {name}", about(name), *(part for path in paths for part in measured(path))]
    return page(
        "# Performance",
        "Each number is a time over another provider's time in the same process and on the same machine: below one is "
        "faster. `fwd`, `bwd` and `both` are the forward pass, the backward pass and one after the other.",
        "Times of different machines or tables are not to be compared. Every table shows one scenario of its file; "
        "the other data types, thread counts and shares of dropout are in the CSV, with the spread, the memory and "
        "the error of each row.",
        "## Who is timed",
        table(["provider", "what it is"], PROVIDERS),
        *parts,
    )


def about(name: str) -> str:
    """What the benchmark says of itself, without its command line."""
    blocks = module_doc(ROOT / "benchmarks" / f"bench_{name}.py").split("\n\n")
    return prose("\n\n".join(block for block in blocks if not block.startswith("    python")))


def measured(path: Path) -> list[str]:
    """A file's heading, its table, and where its numbers come from."""
    rows = main_scenario(read_csv(path))
    base = PEFT if any(row["ratio_peft"] for row in rows) else FROZEN
    first = rows[0]
    graphs = "-graphs-" in path.name
    scenario = ", ".join(
        text
        for text in (
            first["dtype"] if same(rows, "dtype") else "",
            f"rank {first['rank']}" if first["rank"] and same(rows, "rank") else "",
            f"dropout {first['dropout']}" if first["dropout"] and same(rows, "dropout") else "",
            f"{first['threads']} thread{'s' * (first['threads'] != '1')}",
        )
        if text
    )
    return [
        f"### {first['benchmark']} on {first['device']}{', CUDA graphs' * graphs}",
        f"Time over {'PEFT' if base == PEFT else 'the frozen layer'}'s; {scenario}.",
        ratio_table(rows, base),
        origin(path, rows, graphs),
    ]


def main_scenario(rows: Rows) -> Rows:
    """The rows of one scenario: forward and backward together, and of every condition the file's first."""
    if any(row["op"] == "both" for row in rows):
        rows = [row for row in rows if row["op"] == "both"]
    if rows[0]["op"].endswith("step"):  # whose conditions are in the shape, a line each
        return rows
    for name in SCENARIO:
        rows = [row for row in rows if row[name] == rows[0][name]]
    return rows


def ratio_table(rows: Rows, base: str) -> str:
    """A line a shape, a column a provider; the base's own time in milliseconds first."""
    column = "ratio_peft" if base == PEFT else "ratio_frozen"
    providers = [name for name in dict.fromkeys(row["provider"] for row in rows if row[column]) if name != base]
    lines = []
    for op, shape in dict.fromkeys((row["op"], row["shape"]) for row in rows):
        here = {row["provider"]: row for row in rows if (row["op"], row["shape"]) == (op, shape)}
        own = here.get(base, {}).get("best", "")
        lines.append([op, shape, number(own), *(number(here.get(name, {}).get(column, "")) for name in providers)])
    return table(["", "shape", f"{base}, ms", *providers], lines)


def origin(path: Path, rows: Rows, graphs: bool) -> str:
    """The command that writes the file, and the commit and versions that wrote it, a table of one line."""
    first = rows[0]
    commits = ", ".join(dict.fromkeys(f"`{row['commit'][:12]}`" for row in rows))
    versions = {name: first[name] or "–" for name in ("torch", "transformers", "peft", "seed", "repeats")}
    columns = {
        "file": f"`{path.relative_to(ROOT).as_posix()}`",
        "made by": f"`python -m benchmarks.bench_{first['benchmark']}{' --graphs' * graphs}`",
        "commit": commits + " and changes on top" * any(row["dirty"] == "True" for row in rows),
        **versions,
    }
    return table(list(columns), [list(columns.values())])


def same(rows: Rows, name: str) -> bool:
    return len({row[name] for row in rows}) == 1


def number(text: str) -> str:
    return f"{float(text):.3g}" if text else "–"
