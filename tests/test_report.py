"""Tables, reports and plots from result files. Every number and most names here are made up."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments import arms, demo, report, study
from experiments.arms import ROOT, Arm
from experiments.plot import label_points, quality_plot
from experiments.rows import ReportError, Row, find, read, row


def made_up(method: str = "fable", **changes: Any) -> dict[str, Any]:
    """A complete result file of no real run."""
    return {
        "format": 1,
        "status": "complete",
        "error": None,
        "config": {
            "method": {"name": method},
            "optim": {"lr": 0.01},
            "eval": {"batch_size": 5},
            "model": {"path": str(ROOT / "nowhere")},
        },
        "key": "0123456789ab",
        "method": method,
        "model": "made-up-model",
        "task": "made-up-task",
        "seed": 7,
        "lr": 0.01,
        "steps": 11,
        "batch_size": 3,
        "quality": {"exact_match": 0.25, "valid_json": 0.875},
        "validation": {"exact_match": 0.5, "valid_json": 0.75, "loss": 1.5},
        "metric": "exact_match",
        "loss": {"train_last": 2.0, "validation": 1.5},
        "n_test": 16,
        "parameters": {"trainable": 1000, "total": 8000, "share": 0.125},
        "bytes": {"delta": 4096, "full_copy": 32768},
        "memory": {"peak_bytes": 300 * 2**20, "training_increase_bytes": 20 * 2**20},
        "seconds": {"load": 1.0, "data": 1.0, "inject": 1.0, "train": 42.0, "evaluate": 3.0, "total": 48.0},
        "tokens_per_s": 123.0,
        "step_s": 0.75,
        "environment": {
            "torch": "t.t", "transformers": "f.f", "deltatune": "d.d", "python": "p.p", "cpu": "made-up CPU",
            "threads": 5, "device": "cpu", "commit": "c0ffee", "dirty": True, "platform": "made-up OS",
        },
        "data": {"sha256": "ab" * 32, "sources": {}, "n_train": 9, "n_val": 8, "n_test": 16},
        "base": "made-up base (no weights)",
    } | changes  # fmt: skip


UNTRAINED = {
    "lr": None,
    "steps": 0,
    "parameters": {"trainable": 0, "total": 8000, "share": 0.0},
    "bytes": {"delta": 0, "full_copy": 32768},
}


def put(folder: Path, result: Any, name: str | None = None) -> Path:
    path = folder / (name or f"made-up-{result['method']}") / "result.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(result if isinstance(result, str) else json.dumps(result))
    return path


def test_a_result_becomes_a_row(tmp_path: Path) -> None:
    item = row(put(tmp_path, made_up()))
    assert (item.method, item.score, item.trainable, item.delta_bytes) == ("fable", 0.25, 1000, 4096)
    assert (item.peak_bytes, item.increase_bytes, item.train_s) == (300 * 2**20, 20 * 2**20, 42.0)
    assert item.failure is None
    assert not item.untrained


@pytest.mark.parametrize(
    "key",
    [
        "method",
        "lr",
        "quality",
        "metric",
        "step_s",
        "base",
        "parameters.share",
        "bytes.delta",
        "memory.peak_bytes",
    ],
)
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    result = made_up()
    outer, _, inner = key.partition(".")
    del (result[outer] if inner else result)[inner or outer]
    with pytest.raises(ReportError, match=f"{re.escape(str(tmp_path))}.*key '{inner or outer}' is missing"):
        row(put(tmp_path, result, "x"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not a readable result file"),
        ('{"format": 1, "status"', "not a readable result file"),
        ("[]", "'format' is not 1"),
        (json.dumps(made_up(format=2)), "'format' is not 1"),
        (json.dumps(made_up(status="running")), "'status' is 'running'"),
    ],
)
def test_a_bad_file_is_named(content: str, said: str, tmp_path: Path) -> None:
    path = put(tmp_path, content, "x")
    with pytest.raises(ReportError, match=re.escape(str(path))) as caught:
        read(path)
    assert said in str(caught.value)


def test_find_says_what_it_did_not_find(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no such folder"):
        find([tmp_path / "nowhere"])
    with pytest.raises(ReportError, match=r"no result\.json under"):
        find([tmp_path])


def test_the_markdown_report(tmp_path: Path) -> None:
    results = [
        made_up("hush", **UNTRAINED),
        made_up("fable"),
        made_up("myth", status="failed", error="step 4: the loss\nis nan"),
    ]
    rows = [row(put(tmp_path, result)) for result in results]
    rows[1] = rows[1].noted("a note on fable")
    report.write_markdown(tmp_path / "report.md", "Made up", "Made by hand.", rows, tmp_path / "p.png", "## More")
    text = (tmp_path / "report.md").read_text()
    table = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert [cell.strip() for cell in table["fable *"].strip("|").split("|")][1:] == [
        "0.250", "0.875", "1,000", "12.500%", "4.0 KiB", "12.50%", "300.0 MiB", "20.0 MiB", "0.75 s", "42 s",
        "0.01",
    ]  # fmt: skip
    assert table["hush"].count("–") == 6
    assert "| failed |" in table["myth"]
    assert len({line.count("|") for line in table.values()}) == 1
    for said in (
        "- * fable: a note on fable",
        "- myth failed: step 4: the loss is nan",
        "made-up base (no weights)",
        "steps: 11 of batch 3; seed 7",
        "16 test examples",
        "c0ffee with local changes",
        "made-up CPU, 5 threads",
        "standard error is up to 0.125",
        "](p.png)",
        "## More",
    ):
        assert said in text


def test_the_command_shows_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "runs", made_up("fable"))
    put(tmp_path / "runs", made_up("myth", status="failed", error="made-up failure"))
    assert report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert "myth failed: made-up failure" in capsys.readouterr().out
    assert (tmp_path / "out" / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert report.ending(lambda: report.main([str(tmp_path / "nowhere")])) == 2
    assert "no such folder" in capsys.readouterr().err


def points(n: int) -> list[tuple[float, float, str]]:
    return [(10.0 ** (3 + (i * 7 % n) / n), 0.5 + 0.02 * (i * 5 % n), f"made-up {i}") for i in range(n)]


@pytest.mark.parametrize("n", [1, 5, 10])
def test_labels_cover_nothing(n: int) -> None:
    figure = Figure(figsize=(8, 5))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xscale="log", xlim=(1e2, 1e6), ylim=(0, 1))
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in label_points(axes, points(n))]
    dots = [axes.transData.transform((x, y)) for x, y, _ in points(n)]
    assert len(boxes) == n
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert not any(box.contains(*dot) for dot in dots)


def test_a_plot_of_failures_alone_is_still_a_picture(tmp_path: Path) -> None:
    failed = Row("myth", "m", "t", 0, 0.1, 5, 3, failure="made-up failure")
    assert quality_plot([failed], tmp_path / "p.png", "made up").read_bytes().startswith(b"\x89PNG")


# --- arms, the demo's samples --------------------------------------------------------------------


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs and results go to a temporary folder; the configuration stays the checkout's."""
    monkeypatch.setattr(study, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    return tmp_path


def arm(out: Path, *overrides: str) -> Arm:
    return Arm(("model=tiny", "task=ha_json", *overrides, f"out={out}"))


def test_an_arm_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = arm(tmp_path, "method=lora")
    calls: list[list[str]] = []

    def call(command: list[str], cwd: Path) -> int:
        calls.append(command)
        one.result.parent.mkdir(parents=True)
        one.result.write_text(json.dumps(made_up("lora")))
        return 0

    monkeypatch.setattr(arms.subprocess, "call", call)
    assert one.run() == one.run()
    assert one.complete
    assert len(calls) == 1
    assert calls[0][1:4] == ["-m", "experiments.run", "model=tiny"]


@pytest.mark.parametrize(("code", "said"), [(1, "exit code 1"), (-9, "killed by signal 9"), (0, "no result at")])
def test_an_arm_that_dies_is_a_failed_row(
    code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = arm(tmp_path, "method=lora", "optim.steps=9")
    stale = made_up("lora", status="failed", error="an older attempt")
    one.result.parent.mkdir(parents=True)
    one.result.write_text(json.dumps(stale))
    monkeypatch.setattr(arms.subprocess, "call", lambda command, cwd: code)
    item = one.run()
    assert item.failure is not None
    assert said in item.failure
    assert (item.method, item.steps, item.lr) == ("lora", 9, 1e-3)


def test_samples_stand_side_by_side(tmp_path: Path) -> None:
    chosen = [arm(tmp_path, "method=lora"), arm(tmp_path, "method=bitfit")]
    for one, right in zip(chosen, (True, False)):
        one.result.parent.mkdir(parents=True)
        lines = [
            {"prompt": f"made-up {i}", "gold": f"g{i}", "prediction": f"a `b`\n{i}", "correct": right}
            for i in range(12)
        ]
        (one.result.parent / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        one.result.write_text(json.dumps(made_up(one.config.method.name)))
    text = demo.samples(chosen, [row(one.result) for one in chosen])
    assert text.count(", gold `g") == demo.N_SAMPLES
    assert "`made-up 2`, gold `g2`\n\n- lora, right: `a 'b' 2`\n- bitfit, wrong: `a 'b' 2`" in text


# --- the study -----------------------------------------------------------------------------------


def test_every_default_rate_comes_first() -> None:
    cells = study.grid(study.METHODS, ("model=tiny", "task=ha_json"))
    assert [cell.method for cell in cells[: len(study.METHODS)]] == list(study.METHODS)
    assert all(cell.factor == 1 for cell in cells[: len(study.METHODS)])
    assert len(cells) == len({cell.file for cell in cells}) == 1 + 3 * (len(study.METHODS) - 1)
    rates = sorted(cell.arm.config.optim.lr for cell in cells if cell.method == "lora")
    assert rates == [3.3e-4, 1e-3, 3e-3]


def rated(lr: float, exact_match: float, loss: float, test: float = 0.0) -> Row:
    validation = {"exact_match": exact_match, "loss": loss}
    return Row(
        "fable", "m", "t", 0, lr, 5, 3,
        metric="exact_match", validation=validation, quality={"exact_match": test}, trainable=10,
    )  # fmt: skip


def test_the_rate_is_chosen_on_validation() -> None:
    middle = study.chosen([rated(0.2, 0.5, 1.0, test=0.1), rated(0.1, 0.4, 0.5, test=0.9), rated(0.3, 0.4, 0.5)])
    assert (middle.lr, middle.note) == (0.2, "")
    tie = study.chosen([rated(0.2, 0.5, 1.0), rated(0.1, 0.5, 1.5), rated(0.3, 0.5, 1.1)])
    assert tie.lr == 0.2


def test_an_open_grid_is_flagged() -> None:
    edge = study.chosen([rated(0.2, 0.4, 1.0), rated(0.1, 0.4, 1.0), rated(0.3, 0.5, 1.0)])
    assert edge.lr == 0.3
    assert "lr 0.3 is at the edge of its grid (0.1 to 0.3)" in edge.note
    assert study.chosen([rated(0.2, 0.4, 1.0)]).note == "only 1 of 3 learning rates tried so far"
    failed = Row("fable", "m", "t", 0, 0.3, 5, 3, failure="made-up failure")
    some = study.chosen([rated(0.2, 0.4, 1.0), rated(0.1, 0.3, 1.0), failed])
    assert (some.lr, some.note) == (0.2, "lr 0.3 failed: made-up failure")
    assert study.chosen([failed]) is failed


def test_essentials_hold_no_path_of_this_machine() -> None:
    result = made_up(status="failed", error=f"{ROOT}/made-up.py and {Path.home()}/made-up.bin")
    small = study.essentials(result)
    assert small["error"] == "./made-up.py and ~/made-up.bin"
    assert set(small["config"]) == {"method", "optim", "eval"}
    assert str(ROOT) not in json.dumps(small)
    assert small["quality"] == result["quality"]


def test_a_study_goes_on_where_it_was(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One method, its processes replaced: three runs, three small files, the tables; then nothing to do."""
    quality = {1e-3: 0.5, 3.3e-4: 0.4, 3e-3: 0.6}
    called: list[str] = []

    def call(command: list[str], cwd: Path) -> int:
        one = Arm(tuple(command[3:]))
        lr = one.config.optim.lr
        called.append(f"{one.config.method.name} {lr:g}")
        one.result.parent.mkdir(parents=True)
        numbers = {"exact_match": quality[lr], "loss": 1.0}
        key = one.result.parent.name.rsplit("-", 1)[1]
        one.result.write_text(json.dumps(made_up("lora", lr=lr, validation=numbers, quality=numbers, key=key)))
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    command = ["--only", "lora", "--model", "tiny", "--out", str(in_tmp / "runs"), "--results", "small"]
    assert study.main(command) == 0
    assert sorted(called) == ["lora 0.00033", "lora 0.001", "lora 0.003"]  # two at a time, in either order
    files = {path.name for path in (in_tmp / "small").iterdir()}
    assert files == {"lora-lr0.001.json", "lora-lr0.00033.json", "lora-lr0.003.json", "table.md", "plot.png"}
    text = (in_tmp / "small" / "table.md").read_text()
    assert "| lora | 0.003 | 0.600 | 1.000 | 0.600 | yes |" in text
    assert "lr 0.003 is at the edge" in text
    assert study.main(command) == 0
    elsewhere = ["--only", "lora", "--model", "tiny", "--out", str(in_tmp / "empty"), "--results", "small"]
    assert study.main(elsewhere) == 0  # as in another checkout, where only the small files are
    assert len(called) == 3


def test_a_failed_run_of_a_study_fails_it(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "call", lambda command, cwd: 1)
    command = ["--only", "none", "--model", "tiny", "--out", str(in_tmp / "runs"), "--results", "small"]
    assert study.main(command) == 1
    assert not (in_tmp / "small" / "table.md").exists()
