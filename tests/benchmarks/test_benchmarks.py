"""The benchmarks at toy sizes: what they compute, compare and write. Nothing here depends on a time."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, memory, plots, providers, roofline, steps, tune
from benchmarks.apart import Apart, Told
from benchmarks.command import DTYPES
from benchmarks.table import COLUMNS, Row, add_ratios, read_csv, write_csv
from benchmarks.timing import Timed, measure
from experiments.data.batch import Batch
from tests.support.tolerance import bound

# PEFT still asks transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

CPU = torch.device("cpu")
ASKED = (
    "benchmark provider op shape rank dropout dtype y50 y20 y80 tflops gb_s ratio_frozen ratio_peft ratio_limit "
    "peak_bytes saved_bytes rel_error commit dirty device threads torch seed"
)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("DELTATUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def run(name: str, out: Path, *arguments: str) -> list[dict[str, str]]:
    """The rows that a benchmark writes with these arguments, on one thread, once a provider."""
    common = ["--device", "cpu", "--threads", "1", "--repeats", "1", "--warmup", "1", "--out", str(out)]
    assert importlib.import_module(f"benchmarks.{name}").main([*common, *arguments]) == 0
    return read_csv(out)


LAYER = ("--models", "toy", "--rows", "8", "--dtypes", "bf16")
TINY = ("--model", "tiny", "--batch", "2", "--tokens", "8")
RUNS = {
    "bench_lora_linear": (*LAYER, "--ranks", "4", "--dropouts", "0", "0.1", "--quick"),
    "bench_lora_group": (*LAYER, "--ranks", "4", "--dropouts", "0", "--ops", "both", "--quick"),
    "bench_multi_lora": (*LAYER, "--batch", "4", "--adapters", "2", "--quick"),
    "bench_dropout": (*LAYER, "--ranks", "4", "--dropouts", "0.1", "--quick"),
    "bench_dora": (*LAYER, "--ranks", "4", "--quick"),
    "bench_adapter": (*LAYER, "--widths", "4", "--quick"),
    "bench_ce": ("--models", "toy", "--rows", "8", "--dtypes", "fp32"),
    "bench_prefix": (*TINY, "--attentions", "tiny", "--dtypes", "fp32"),
    "bench_train_step": (*TINY, "--scenarios", "half", "ia3"),
    "bench_verbs": ("--model", "tiny"),
    "bench_report": ("--runs", "4", "--quick"),
}
ALONE = ("bench_adapter", "bench_report")  # PEFT has nothing to compare them with


@pytest.mark.parametrize("name", RUNS)
def test_every_benchmark_runs_and_compares_rows_of_one_case(name: str, tmp_path: Path) -> None:
    rows = run(name, tmp_path / "rows.csv", *RUNS[name])
    assert set(ASKED.split()) <= set(rows[0]) and list(rows[0]) == COLUMNS
    case = ("op", "shape", "rank", "dropout", "dtype", "dx", "threads")
    times = {(*(row[c] for c in case), row["provider"]): row["best"] for row in rows}
    for row in rows:
        assert bool(row["best"]) != row["note"].startswith(("absent", "failed")), row
        assert row["commit"] and row["device"] and row["seed"] == "0" and row["torch"] == torch.__version__
        for column, other in (("ratio_frozen", "frozen"), ("ratio_peft", "peft"), ("ratio_matched", "peft matched")):
            against = times.get((*(row[c] for c in case), other))
            if row["best"] and against:
                assert float(row[column]) == pytest.approx(float(row["best"]) / float(against), rel=1e-4)
            else:
                assert row[column] == ""
        if row["rel_error"]:
            # the toy layers' sums are no longer than 512; in bf16 no chain is rounded more than five times
            dtype, sums = DTYPES[row["dtype"]], (512, 512, 512)
            assert float(row["rel_error"]) <= bound(dtype, *sums, roundings=5 if dtype.itemsize == 2 else 0), row
    assert {"ours"} <= {row["provider"].split()[0] for row in rows}
    assert name in ALONE or any(row["provider"] == "peft" and row["best"] for row in rows)


def test_what_is_absent_is_a_row_that_says_so(monkeypatch, tmp_path: Path) -> None:
    def without_peft(name: str) -> None:
        assert name in ("peft", "adapters")

    monkeypatch.setattr(providers, "find_spec", without_peft)
    monkeypatch.setattr(steps, "find_spec", without_peft)
    arguments = (*LAYER, "--ranks", "4", "--dropouts", "0", "--ops", "both", "--quick")
    rows = {row["provider"]: row for row in run("bench_lora_linear", tmp_path / "rows.csv", *arguments)}
    for provider in ("peft", "peft matched", "peft compiled", "ours triton", "ours addmm"):
        assert rows[provider]["note"].startswith("absent") and rows[provider]["y50"] == ""
    assert "not installed" in rows["peft"]["note"] and rows["ours"]["y50"] and rows["ours"]["ratio_peft"] == ""
    step = steps.build("peft", steps.SCENARIOS["fp32"], torch.nn.Linear(2, 2), Batch({}, torch.empty(0)))
    assert isinstance(step, str) and "not installed" in step


def test_rows_of_other_cases_take_no_part_in_a_ratio() -> None:
    def row(provider: str, best: float | None, rank: int, limit: float | None = None) -> Row:
        return Row("b", provider, "both", "s", rank, best=best, limit=limit, threads=1)

    rows = [
        row("frozen", 2.0, 8),
        row("peft", 4.0, 8),
        row("ours", 3.0, 8, 1.25),
        row("ours", 3.0, 16),
        row("x", None, 8),
    ]
    add_ratios(rows)
    assert [(r.ratio_frozen, r.ratio_peft, r.ratio_limit) for r in rows] == [
        (1.0, 0.5, None),
        (2.0, 1.0, None),
        (1.5, 0.75, 1.2),
        (None, None, None),
        (None, None, None),
    ]


def test_the_roofline_by_hand() -> None:
    assert roofline.lora_limit(4096, 4096, 16) == 1.01171875
    assert roofline.lora_limit(576, 192, 8) == pytest.approx(1.08333333)
    sizes = (2, 3, 5)  # M, K, N; 2MKN = 60
    assert [roofline.frozen_flops(op, *sizes) for op in ("fwd", "bwd", "both")] == [60, 60, 120]
    assert [roofline.full_flops(op, *sizes, dx=False) for op in ("fwd", "bwd", "both")] == [60, 60, 120]
    assert [roofline.lora_flops(op, *sizes, 1) for op in ("fwd", "bwd", "both")] == [92, 124, 216]
    assert roofline.lora_flops("both", *sizes, 1, dx=False) == 60 + 32 + 52
    assert roofline.limit("both", 3, 5, 1) == pytest.approx(roofline.lora_limit(3, 5, 1)) == pytest.approx(1.8)
    assert roofline.limit("both", 3, 5, 1, dx=False) == 144 / 60
    assert roofline.limit("bwd", 3, 5, 1, dx=False) is None
    assert [roofline.adapter_limit(op, 3, 5, 1) for op in ("fwd", "bwd", "both")] == pytest.approx([5 / 3, 7 / 3, 2])
    assert roofline.adapter_limit("both", 3, 5, 1, dx=False) == pytest.approx(8 / 3)
    assert roofline.adapter_limit("bwd", 3, 5, 1, dx=False) is None
    moved = {path: roofline.moved(path, *sizes) for path in ("frozen", "peft", "addmm", "split", "floor")}
    assert moved == {"frozen": 62, "peft": 198, "addmm": 142, "split": 84, "floor": 68}
    assert roofline.moved("peft", *sizes, dropout=True) == 228
    with pytest.raises(ValueError, match="no model of the path 'x'"):
        roofline.moved("x", *sizes)
    machine = roofline.Machine(tflops=2.0, gb_s=100.0)
    assert (machine.roof(5.0), machine.roof(1000.0)) == (0.5, 2.0)
    assert machine.ms(flops=4e9, moved_bytes=1e8) == 2.0 and machine.ms(flops=4e9, moved_bytes=1e9) == 10.0
    assert min(roofline.measured(CPU, torch.float32, size=32, repeats=1)) > 0


def test_providers_take_turns_and_a_failing_one_says_why() -> None:
    order: list[str] = []

    def fail() -> None:
        raise RuntimeError("no such kernel")

    calls = {"a": Timed(lambda: order.append("a"), before=lambda: order.append("-")), "x": Timed(fail)}
    found = measure(calls | {"b": Timed(lambda: order.append("b"))}, CPU, repeats=3, warmup=1)
    assert "".join(order) == "-ab" + "-ab" * 3
    assert found["x"] == "failed: RuntimeError: no such kernel" and not isinstance(found["a"], str)
    assert found["a"].y_min <= found["a"].y20 <= found["a"].y50 <= found["a"].y80


def test_bytes_of_a_call_and_of_its_graph() -> None:
    peak = memory.call_peak_bytes(lambda: torch.zeros(1 << 18).sum(), CPU)
    assert 1 << 20 <= peak < (1 << 20) + (1 << 16)
    x, w = torch.ones(64, 64, requires_grad=True), torch.ones(64, 64)
    assert memory.saved_for_backward(lambda: (x * x) @ w, [w]) == x.untyped_storage().nbytes()


def grown(n: int) -> Callable[[], Callable[[], object]]:
    return lambda: lambda: torch.zeros(n, dtype=torch.uint8).sum()


def broken(message: str) -> None:
    raise ValueError(message)


def absent() -> Callable[[], str]:
    return lambda: "absent: no such package"


def test_a_call_in_a_process_of_its_own_tells_its_time_and_memory() -> None:
    big, small = Apart(partial(grown, 200 << 20), CPU), Apart(partial(grown, 1 << 10), CPU)
    assert big.rise_bytes >= 200 << 20 > 100 << 20 > small.rise_bytes
    assert big.once("wall") > small.once("wall") > 0
    with pytest.raises(Told, match=r"^failed: ValueError: so it is$"):
        Apart(partial(broken, "so it is"), CPU)
    with pytest.raises(Told, match=r"^absent: no such package$"):
        Apart(absent, CPU)


def test_without_a_gpu_its_commands_end_with_2(monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for command in (gpu, tune):
        assert command.main([]) == 2
        assert "no CUDA device" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "NEEDED", ("torch", "no_such.part", "no_such_package"))
    assert gpu.main([]) == 2
    assert "not importable here: no_such.part, no_such_package; in the checkout: pip" in capsys.readouterr().err


def test_the_gpu_command_reports_a_failing_step_and_goes_on(tmp_path: Path, capsys) -> None:
    def step(name: str, code: str, limit_s: int = 60) -> gpu.Step:
        return gpu.Step(name, [sys.executable, "-S", "-c", code], limit_s)

    slow, mark = "import time; time.sleep(60)", f"open({str(tmp_path / 'ran')!r}, 'a').write('x')"
    todo = [step("correctness", "raise SystemExit(1)"), step("bench", mark), step("slow", slow, 1)]
    state = gpu.run(todo, tmp_path / "gpu.json", 300, False, "c0")
    assert {name: found["status"] for name, found in state["steps"].items()} == {
        "correctness": "failed",
        "bench": "done",
        "slow": "late",
    }
    assert gpu.report(state, [s.name for s in todo]) == 1
    todo[0], todo[2] = step("correctness", ""), step("slow", "")
    state = gpu.run(todo, tmp_path / "gpu.json", 300, False, "c0")
    assert gpu.report(state, [s.name for s in todo]) == 0
    assert (tmp_path / "ran").read_text() == "x"  # what was done is not done again
    state = gpu.run(todo, tmp_path / "gpu.json", 10, False, "c1")  # another commit, and no time
    assert gpu.report(state, [s.name for s in todo]) == 1 and "no time left" in capsys.readouterr().out
    names = [s.name for s in gpu.steps(tmp_path, "card")]
    assert (
        names[:2] == ["correctness", "tune"]
        and names[-2:] == ["plots", "compilation"]
        and len(set(names)) == len(names)
    )


def test_every_step_on_a_gpu_is_a_command_that_parses(tmp_path: Path, monkeypatch) -> None:
    for step in gpu.steps(tmp_path, "card"):
        module, arguments = step.command[2], step.command[3:]
        if "bench_" not in module:
            continue
        found = importlib.import_module(module)
        monkeypatch.setattr(found, "run", lambda name, cases, options: [])
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert found.main(arguments) == 0


def test_pictures_of_what_the_csv_holds(tmp_path: Path) -> None:
    rows = [
        Row("lora_linear", name, "both", "s", 8, 0.0, "bf16", best=ms, limit=1.1, tflops=1.0, gb_s=2.0, threads=1)
        for name, ms in (("frozen", 1.0), ("peft", 1.5), ("ours", 1.2))
    ]
    rows += [
        Row("train_step", name, "lora step", "m 8x64 bf16", best=ms) for name, ms in (("frozen", 3.0), ("ours", 4.0))
    ]
    add_ratios(rows)
    write_csv(rows, tmp_path / "both-cpu.csv")
    assert plots.main(["--results", str(tmp_path), "--peaks", "2", "100"]) == 0
    assert {path.name for path in tmp_path.glob("*.png")} == {
        f"both-cpu.{kind}.png" for kind in ("ratio", "step", "roofline")
    }
    assert plots.main(["--results", str(tmp_path / "empty")]) == 1
