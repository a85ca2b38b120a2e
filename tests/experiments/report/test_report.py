"""What the report gathers from made-up runs, and what its command says."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.made_up import UNTRAINED, made_up, put
from benchmarks.made_up_study import failed, study
from experiments.report import __main__ as command
from experiments.report import compact_tables, gather, write
from experiments.report.content import flat
from experiments.report.page import inert
from experiments.report.samples import BUDGET, LONGEST
from experiments.store.files import ReportError, read
from experiments.store.small import essentials
from experiments.store.tables import ending


def by(content: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    return [run for run in content["runs"] if all(run[name] == value for name, value in wanted.items())]


def test_every_result_is_there_with_its_numbers(tmp_path: Path) -> None:
    study(tmp_path, tasks=("ha_json",), seeds=2, n_test=20, steps=30)
    failed(tmp_path)
    content = gather([tmp_path])
    files = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.rglob("result.json")}
    assert {run["name"] for run in content["runs"]} == set(files)
    for run in content["runs"]:
        result = files[run["name"]]
        assert all(run.get(name) == result.get(name) for name in ("quality", "seconds", "memory", "error", "status"))
        assert content["environments"][run["environment"]] == result["environment"]
        assert content["configs"][run["config"]]["method.name"] == result["method"]
    assert content["warnings"] == []


def test_standard_error_is_that_of_a_share(tmp_path: Path) -> None:
    put(tmp_path, made_up())  # 4 right of 16: sqrt(p (1 - p) n / (n - 1)) / sqrt(n)
    (run,) = gather([tmp_path])["runs"]
    assert run["standard_error"] == pytest.approx((0.25 * 0.75 / 15) ** 0.5)


def test_the_rate_shown_has_the_most_seeds_then_the_lowest_validation_loss(tmp_path: Path) -> None:
    def put_run(method: str, lr: float, seed: int, loss: float) -> None:
        result = made_up(method, lr=lr, seed=seed, validation={"exact_match": 0.5, "loss": loss})
        put(tmp_path, result, f"{method}-{lr}-{seed}")

    for lr, loss in ((0.1, 0.9), (0.2, 0.5), (0.3, 0.7)):
        put_run("one", lr, 0, loss)
        put_run("more", lr, 0, loss)
    put_run("more", 0.3, 1, 0.8)
    content = gather([tmp_path])
    assert {(run["method"], run["lr"]) for run in by(content, chosen=True)} == {("one", 0.2), ("more", 0.3)}


@pytest.mark.parametrize("with_keys", [True, False])
def test_the_comparison_decides_which_runs_are_shown(with_keys: bool, tmp_path: Path) -> None:
    """Even where a run of the search has the same rate, and other rates have a lower loss."""
    tested = made_up(lr=0.3, seed=1, quality={"exact_match": 0.5}, key="tested", scores=[1.0, 0.0] * 8)
    searched = made_up(lr=0.3, seed=0, quality={"exact_match": 0.125}, key="searched")
    better = made_up(lr=0.1, seed=0, validation={"loss": 0.1}, key="better")
    for result in (tested, searched, better):
        put(tmp_path / "runs", result, result["key"])
    entry = {"method": "fable", "lr": 0.3, "seed_values": [0.5]} | ({"keys": ["tested"]} if with_keys else {})
    compared = {"format": 2, "title": "Compared", "how": "so", "tasks": {"made-up-task": {"methods": [entry]}}}
    (tmp_path / "runs" / "comparison.json").write_text(json.dumps(compared))
    content = gather([tmp_path / "runs"])  # found beside the runs
    assert [run["key"] for run in by(content, chosen=True)] == ["tested"]
    assert (content["title"], content["how"]) == ("Compared", "so")


def test_what_else_differs_names_a_variant(tmp_path: Path) -> None:
    for replay in (0.0, 0.1):
        for seed in (0, 1):
            config = {"data": {"replay": replay}, "seed": seed, "optim": {"lr": 0.01 + seed}, "out": str(seed)}
            put(tmp_path, made_up(seed=seed, config=config), f"{replay}-{seed}")
    put(tmp_path, made_up("other", config={"data": {"replay": 0.3}}))
    assert {run["variant"] for run in gather([tmp_path])["runs"]} == {"replay=0.0", "replay=0.1", ""}


def test_flat_names_every_leaf() -> None:
    config = {"a": {"b": [1, 2], "c": {}}, "d": [{"e": None}, {"e": 3}], "f": []}
    assert flat(config) == {"a.b": [1, 2], "a.c": {}, "d.0.e": None, "d.1.e": 3, "f": []}


def test_a_curve_is_the_means_of_neighbouring_steps(tmp_path: Path) -> None:
    folder = put(tmp_path, made_up()).parent
    losses = [float(i % 7) for i in range(1, 1001)]
    lines = [json.dumps({"step": i, "loss": loss}) for i, loss in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (run,) = gather([tmp_path])["runs"]
    curve = run["curve"]
    every = curve["every"]
    assert len(curve["loss"]) <= 150 and curve["step"][-1] == 1000
    means = [sum(losses[i : i + every]) / len(losses[i : i + every]) for i in range(0, 1000, every)]
    assert curve["loss"] == pytest.approx(means, rel=1e-3)


def test_a_loss_that_is_no_number_is_a_gap_and_a_broken_line_a_warning(tmp_path: Path) -> None:
    folder = put(tmp_path, made_up(status="failed", error="loss is nan", failure_kind="nan")).parent
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": NaN}\n{"step": 3, "lo')
    content = gather([tmp_path])
    (run,) = content["runs"]
    assert run["curve"]["loss"] == [2.0, None]
    (warning,) = content["warnings"]
    assert warning.startswith(f"{folder / 'metrics.jsonl'}:3: ")


def test_a_result_that_cannot_be_read_is_a_warning_and_the_others_are_shown(tmp_path: Path) -> None:
    put(tmp_path, made_up())
    bad = put(tmp_path, '{"format": 1}', "old")
    content = gather([tmp_path])
    assert len(content["runs"]) == 1
    assert str(bad) in content["warnings"][0]
    with pytest.raises(ReportError, match=re.escape(str(bad))):
        gather([bad.parent])


def test_a_search_is_a_variant_of_its_own_and_not_shown_as_a_test(tmp_path: Path) -> None:
    search = made_up(lr=0.3, seed=0, key="searched", quality={"exact_match": 0.875})
    search["config"] |= {"eval": {"part": "val"}, "optim": {"steps": 5}}
    put(tmp_path, search, "search")
    put(tmp_path, made_up(lr=0.3, seed=1), "test")
    runs = gather([tmp_path])["runs"]
    assert {(run["split"], run["variant"], run["chosen"]) for run in runs} == {
        ("validation", "search", False), ("test", "", True),
    }  # fmt: skip


def test_a_run_and_its_small_copy_are_one(tmp_path: Path) -> None:
    run = made_up(config={**made_up()["config"], "out": str(tmp_path), "log_every": 3})
    place = put(tmp_path, run, "z").with_name("metrics.jsonl")
    place.write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path / "a.result.json").write_text(json.dumps(essentials(read(place.with_name("result.json")))))
    put(tmp_path, made_up(seed=8), "other")
    runs = gather([tmp_path])["runs"]
    assert sorted((r["seed"], r["curve"] is None) for r in runs) == [(7, False), (8, True)]


def test_comparisons_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    put(tmp_path, made_up())
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "comparison.json").write_text('{"format": 2, "tasks": {"t": {}}, "title": "one"}')
    with pytest.raises(ReportError, match=r"several comparisons of t: .*a.comparison\.json, .*--comparison"):
        gather([tmp_path])
    given = tmp_path / "a" / "comparison.json"
    alone = {"format": 2, "tasks": {"t": {}}, "title": "one", "how": "", "across": []}
    assert gather([tmp_path], given)["comparison"] == alone
    together = '{"format": 2, "tasks": {"u": {}}, "title": "two", "how": "so", "across": {"tasks": ["u"]}}'
    (tmp_path / "b" / "comparison.json").write_text(together)
    both = gather([tmp_path])["comparison"]
    assert (both["title"], both["tasks"]) == ("one · two", {"t": {}, "u": {}})
    assert both["across"] == [{"tasks": ["u"]}]
    given.write_text('{"format": 3}')
    with pytest.raises(ReportError, match=r"a.comparison\.json: key 'format'"):
        gather([tmp_path], given)


def test_a_comparison_by_a_retired_test_is_left_out_and_named(tmp_path: Path) -> None:
    put(tmp_path, made_up())
    (tmp_path / "comparison.json").write_text('{"format": 1, "tasks": {"t": {}}, "title": "one"}')
    content = gather([tmp_path])
    assert content["comparison"] is None
    (warning,) = content["warnings"]
    assert (
        "its letters and intervals are about examples alone" in warning and "run experiments.compare again" in warning
    )
    with pytest.raises(ReportError, match="key 'format' is 1"):
        gather([tmp_path], tmp_path / "comparison.json")


def test_samples_stand_side_by_side(tmp_path: Path) -> None:
    study(tmp_path, tasks=("ha_json",), seeds=2, n_test=40, steps=5, methods=("none", "lora"))
    content = gather([tmp_path])
    (sample,) = content["samples"]
    assert sample["of"] == 40 and len(sample["prompts"]) == 12
    shown = {run["id"]: run for run in content["runs"]}
    for prompt in sample["prompts"]:
        assert {shown[answer["run"]]["method"] for answer in prompt["answers"]} == {"none", "lora"}
        for answer in prompt["answers"]:
            run = shown[answer["run"]]
            assert run["seed"] == 0 and run["chosen"]
            lines = (tmp_path / run["name"] / "predictions.jsonl").read_text().splitlines()
            said = next(entry for entry in map(json.loads, lines) if entry["prompt"] == prompt["prompt"])
            assert (answer["text"], answer["correct"]) == (said["prediction"], said["correct"])


def test_samples_stay_small_and_broken_ones_are_named(tmp_path: Path) -> None:
    for number in range(40):
        folder = put(tmp_path, made_up(f"m{number}", task=f"t{number % 4}")).parent
        entries = [{"prompt": f"{i} " + "p" * 5000, "gold": "g" * 5000, "prediction": "x" * 5000} for i in range(30)]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with (folder / "predictions.jsonl").open("a") as file:
        file.write("{}\n")
    content = gather([tmp_path])
    assert content["warnings"] == [
        f"{folder / 'predictions.jsonl'}:31: not a prediction; it cannot be shown as a sample"
    ]
    assert 0 < len(json.dumps(content["samples"])) <= BUDGET
    assert all(len(sample["prompts"][0]["prompt"]) <= LONGEST + 3 for sample in content["samples"])


def test_nothing_in_the_content_can_end_its_element() -> None:
    nasty = {"a": "</script><script>alert(1)</script>", "b": ["<!--", "&amp;"]}
    text = inert(nasty)
    assert not set("<>&") & set(text)
    assert json.loads(text) == nasty


def test_a_surrogate_alone_can_be_written(tmp_path: Path) -> None:
    put(tmp_path / "runs", made_up(status="failed", error="half \ud83d of a sign"))
    size = write(gather([tmp_path / "runs"]), tmp_path / "report.html")
    assert "half ? of a sign" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert size == (tmp_path / "report.html").stat().st_size


def test_two_hundred_runs_make_a_small_page(tmp_path: Path) -> None:
    study(tmp_path / "runs", tasks=("ha_json", "sql", "style", "domain"), seeds=8, n_test=100, steps=500)
    found = sorted((tmp_path / "runs").iterdir())
    assert len(found) >= 200
    size = write(gather(found[:200]), tmp_path / "report.html")
    assert size <= 8 * 2**20


def test_the_command_prints_tables_and_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, value in enumerate((0.2, 0.4)):
        put(tmp_path / "runs", made_up(seed=seed, quality={"exact_match": value}), str(seed))
    put(tmp_path / "runs", made_up("hush", quality={"exact_match": 0.125}, **UNTRAINED))
    put(tmp_path / "runs", made_up("myth", status="failed", error="made-up failure"))
    put(tmp_path / "runs", "{", "torn")
    page = tmp_path / "deep" / "report.html"
    assert command.main([str(tmp_path / "runs"), "--out", str(page)]) == 0
    said = capsys.readouterr().out
    lines = {line.split("│")[1].strip(): line for line in said.splitlines() if line.startswith("│")}
    assert [cell.strip() for cell in lines["fable"].split("│")[1:-1]] == [
        "fable", "0.300", "0.141", "2", "0.01", "1,000", "4.0 KiB", "290.0 MiB", "0.75 s",
        "perplexity × 1.25",
    ]  # fmt: skip
    assert "failed" in lines["myth"] and list(lines)[-1] == "myth"
    assert "warning: " in said and "torn" in said
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert ending(lambda: command.main([str(tmp_path / "nowhere")])) == 2
    assert "no such folder" in capsys.readouterr().err


def test_tables_have_the_best_first(tmp_path: Path) -> None:
    values = random.Random(0).sample(range(100), 8)
    for value in values:
        put(tmp_path, made_up(f"m{value}", quality={"exact_match": value / 100}))
    (table,) = compact_tables(gather([tmp_path])["runs"])
    assert list(table.columns[0].cells) == [f"m{value}" for value in sorted(values, reverse=True)]
