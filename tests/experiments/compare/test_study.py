"""The command: what runs, in which order, what is kept, and what is read when; the runs' results are made up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments import ROOT
from experiments.compare import __main__ as command
from experiments.compare import runs as comparison_runs
from experiments.compare.config import CompareConfig, check
from experiments.compare.decision_log import DecisionLog
from experiments.compare.study import Study
from experiments.store.files import read
from experiments.store.result import Result
from experiments.support.files import locked
from experiments.sweep.arm import Arm
from tests.support.pool import HEAD_RATE, Pool, small_config
from tests.support.runs import own_cache_and_torch_settings, words  # noqa: F401

N_SEARCH = 3 * (3 + 2 * 2)  # three methods' three trials at one seed, the two best at two more
N_TESTED = 1 + 2 * 4  # none once, few_shot and three methods with two seeds


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    made = Pool()
    monkeypatch.setattr(comparison_runs, "carry_out", made)
    return made


def run(made: CompareConfig) -> tuple[int, dict[str, Any]]:
    code = Study(made, Console(quiet=True)).run()
    return code, json.loads((Path(made.results) / "comparison.json").read_text())


def events(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "small" / "ledger.jsonl").read_text().splitlines()]


def test_every_method_has_as_many_trials_and_then_its_seeds(tmp_path: Path, pool: Pool) -> None:
    pool.ledger = tmp_path / "small" / "ledger.jsonl"
    code, comparison = run(small_config(tmp_path))
    assert code == 0
    assert pool.ran[:3] == ["lora 0.003 101 90", "bitfit 0.02 101 90", "full 0.0002 101 90"]
    assert sorted(pool.ran[3:9]) == sorted(
        [
            *("lora 0.001 101 90", "lora 0.009 101 90", "bitfit 0.0067 101 90", "bitfit 0.06 101 90"),
            *("full 6.7e-05 101 90", "full 0.0006 101 90"),
        ]
    )
    finals = pool.ran[9:N_SEARCH]
    assert {line.split()[2] for line in finals} == {"102", "103"}
    assert len({line.split()[1] for line in finals}) == 6, "two settings of each method have every seed"
    assert pool.ran[N_SEARCH:] == [
        *("none 0.001 1 90", "few_shot 0.001 1 90", "lora 0.003 1 90", "bitfit 0.02 1 90", "full 0.0002 1 90"),
        *("few_shot 0.001 2 90", "lora 0.003 2 90", "bitfit 0.02 2 90", "full 0.0002 2 90"),
    ]
    task = comparison["tasks"]["ha_json"]
    assert [item["method"] for item in task["methods"]] == ["full", "lora", "bitfit", "few_shot", "none"]
    assert [item["n_seeds"] for item in task["methods"]] == [2, 2, 2, 2, 1]
    assert not any(item["lr_at_edge"] for item in task["methods"])
    assert task["missing"] == []
    assert {method: cost["trials"] for method, cost in task["search_cost"].items()} == dict.fromkeys(
        ("lora", "bitfit", "full"), 3
    )
    assert task["search_cost"]["lora"]["runs"] == 7
    assert task["search_cost"]["lora"]["train_s"] == 7 * 42.0
    assert len(task["expected_validation"]["lora"]["score"]) == 3
    table = (tmp_path / "small" / "table.md").read_text()
    assert "| full |" in table and "Nothing departed from it." in table
    assert (tmp_path / "small" / "plot.png").read_bytes().startswith(b"\x89PNG")
    # Every choice was in the ledger before the first run that is tested began.
    before = [json.loads(line)["event"] for line in pool.ledger_before_tests]
    assert before == ["started", *["search"] * 3, *["trial"] * N_SEARCH, *["choice"] * 3]
    after = [line["event"] for line in events(tmp_path)[len(before) :]]
    assert after[:N_TESTED] == ["tested"] * N_TESTED
    assert set(after[N_TESTED:]) == {"pair", "ties"}
    for line in events(tmp_path):
        if line["event"] == "trial":
            assert set(line["validation"]) == {"exact_match", "loss"}
            assert "score" not in line
        if line["event"] in ("trial", "tested"):
            assert read(tmp_path / "small" / line["file"]).key == line["key"]


def test_it_goes_on_where_it_was_in_another_checkout_too(tmp_path: Path, pool: Pool) -> None:
    _, first = run(small_config(tmp_path))
    n = len(pool.ran)
    assert run(small_config(tmp_path)) == (0, first)
    elsewhere = {"out": str(tmp_path / "elsewhere")}
    assert run(small_config(tmp_path, **elsewhere)) == (0, first)  # the small files alone
    assert len(pool.ran) == n
    run(small_config(tmp_path, **elsewhere, seeds=3))
    assert {name.split()[2] for name in pool.ran[n:]} == {"3"}
    n = len(pool.ran)
    run(small_config(tmp_path, **elsewhere, seeds=3, points=7))
    assert {name.split()[2] for name in pool.ran[n:]} == {"1", "2", "3"}, "another configuration: the search stands"
    (small, _) = (tmp_path / "small" / "ha_json" / "test").glob("lora-lr0.003-s1-*.result.json")  # nothing overwritten
    text = json.dumps(read(small).config)
    lines = [line["key"] for line in events(tmp_path) if line["event"] == "tested"]
    assert len(lines) == len(set(lines))
    assert str(tmp_path) not in text


def test_a_search_that_is_cut_off_goes_on_with_what_is_left(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Pool()
    monkeypatch.setattr(comparison_runs, "carry_out", whole)
    _, expected = run(small_config(tmp_path / "whole", cap=9))
    run_one = pool.run
    monkeypatch.setattr(comparison_runs, "carry_out", pool)
    for cut in (1, 8, 13, N_SEARCH + 4):

        def cut_off(arm: Arm, cut: int = cut) -> Result:
            if len(pool.ran) == cut:
                raise KeyboardInterrupt
            return run_one(arm)

        monkeypatch.setattr(pool, "run", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(small_config(tmp_path, cap=9))
    monkeypatch.setattr(pool, "run", run_one)
    code, comparison = run(small_config(tmp_path, cap=9))
    assert code == 0
    assert pool.ran == whole.ran, "no run twice, none left out"
    assert comparison["departures"] == []
    assert comparison["tasks"]["ha_json"]["methods"] == expected["tasks"]["ha_json"]["methods"]


def test_a_rate_at_the_edge_is_followed_to_its_other_side(tmp_path: Path, pool: Pool) -> None:
    pool.best_factor = 27.0
    _, comparison = run(small_config(tmp_path, cap=9))
    lora = next(item for item in comparison["tasks"]["ha_json"]["methods"] if item["method"] == "lora")
    assert (lora["lr"], lora["lr_at_edge"]) == (0.081, False)
    _, capped = run(small_config(tmp_path / "capped", cap=5))
    lora = next(item for item in capped["tasks"]["ha_json"]["methods"] if item["method"] == "lora")
    assert (lora["lr"], lora["lr_at_edge"]) == (0.081, True)
    assert any("at the edge of its grid" in note and "beyond may be better" in note for note in lora["notes"])
    task = capped["tasks"]["ha_json"]
    assert "edge of its grid" in task["share_of_full_reason"]
    assert {item["group"] for item in task["methods"]} == {""}, "no letters"
    assert task["letters_withheld"].startswith("no letters: the rate of full, lora, bitfit is at an edge")
    assert {(pair["a"], pair["b"]) for pair in task["pairs"] if not pair["at_edge"]} == {("few_shot", "none")}


def test_a_diverged_trial_is_an_outcome_and_no_failure(tmp_path: Path, pool: Pool) -> None:
    pool.diverging = {"lora 0.009 101"}
    code, comparison = run(small_config(tmp_path))
    task = comparison["tasks"]["ha_json"]
    assert (code, task["missing"]) == (0, [])
    lora = next(item for item in task["methods"] if item["method"] == "lora")
    assert not lora["lr_at_edge"]
    assert "lr 0.009 failed: a made-up failure" in lora["notes"]
    assert task["search_cost"]["lora"]["failed"] == 1


def test_a_failed_run_is_shown_and_the_others_compared(tmp_path: Path, pool: Pool) -> None:
    pool.failing = {"lora 0.009 101", "bitfit 0.02 2"}
    code, comparison = run(small_config(tmp_path))
    task = comparison["tasks"]["ha_json"]
    assert code == 1
    assert task["missing"] == [
        "lora, lr 0.009 of the search, failed: a made-up failure",
        "bitfit, seed 2, failed: a made-up failure",
    ]
    by_method = {item["method"]: item for item in task["methods"]}
    assert (by_method["bitfit"]["n_seeds"], by_method["lora"]["n_seeds"]) == (1, 2)
    assert "seed 2 failed and is not in the mean (oom)" in by_method["bitfit"]["notes"]
    assert by_method["lora"]["lr_at_edge"]  # the rate above was not tried to its end
    assert "lr 0.009 failed: a made-up failure" in by_method["lora"]["notes"]
    n = len(pool.ran)
    pool.failing = set()
    code, comparison = run(small_config(tmp_path))
    # Those alone, again; and the seeds of a trial that is now one of the two best.
    again = ["lora 0.009 101 90", "lora 0.009 102 90", "lora 0.009 103 90", "bitfit 0.02 2 90"]
    assert pool.ran[n:] == again
    assert (code, comparison["tasks"]["ha_json"]["missing"]) == (0, [])


def test_what_has_ended_is_kept_when_it_is_cut_off(tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    run_one, last = pool.run, N_SEARCH + 6

    def cut_off(arm: Arm) -> Result:
        if len(pool.ran) == last:
            raise KeyboardInterrupt
        return run_one(arm)

    monkeypatch.setattr(pool, "run", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(small_config(tmp_path))
    assert len([line for line in events(tmp_path) if line["event"] in ("trial", "tested")]) == last
    assert len(list((tmp_path / "small").rglob("*.result.json"))) == last
    task = json.loads((tmp_path / "small" / "comparison.json").read_text())
    assert task["title"].endswith("under way, 4 runs still to be tested")
    assert task["tasks"]["ha_json"]["pending"] == [f"{m} seed 2" for m in ("few_shot", "lora", "bitfit", "full")]
    monkeypatch.setattr(pool, "run", run_one)
    code, comparison = run(small_config(tmp_path))
    assert (code, len(pool.ran), comparison["tasks"]["ha_json"]["pending"]) == (0, N_SEARCH + N_TESTED, [])
    assert "under way" not in (tmp_path / "small" / "table.md").read_text()


def test_two_comparisons_do_not_share_a_folder(tmp_path: Path, pool: Pool) -> None:
    (tmp_path / "small").mkdir()
    held = locked(tmp_path / "small" / "lock")
    assert held is not None
    with held, pytest.raises(ValueError, match="at work there"):
        run(small_config(tmp_path))


def test_a_method_whose_every_trial_failed_is_missing(tmp_path: Path, pool: Pool) -> None:
    pool.failing = {"full 0.0002 101", "full 6.7e-05 101", "full 0.0006 101"}
    code, comparison = run(small_config(tmp_path))
    task = comparison["tasks"]["ha_json"]
    assert code == 1
    assert "full: no trial is complete, so no learning rate was chosen" in task["missing"]
    assert [item["method"] for item in task["methods"]] == ["lora", "bitfit", "few_shot", "none"]
    assert task["share_of_full_reason"] == "full has no complete run"


def test_a_choice_changed_after_the_test_was_seen_is_said(tmp_path: Path, pool: Pool) -> None:
    run(small_config(tmp_path))
    pool.best_factor = 3.0
    _, comparison = run(small_config(tmp_path, steps=91))
    lora = next(item for item in comparison["tasks"]["ha_json"]["methods"] if item["method"] == "lora")
    assert lora["lr"] == 0.009
    assert "test scores at lr 0.003, chosen earlier, had been seen before this choice was made" in lora["notes"]


# ---------------------------------------------------------------- the head, baselines, sizes, machines


ENCODER = {"model": "tiny_encoder", "tasks": ["ha_intent"], "baselines": ["none", "few_shot", "head", "tfidf"]}


def test_the_heads_rate_is_searched_first_and_is_the_same_for_all(tmp_path: Path, pool: Pool) -> None:
    code, comparison = run(small_config(tmp_path, **ENCODER, cap=9))
    assert code == 0
    others = [rate for method, rate in pool.head_rates if method != "head"]
    task = comparison["tasks"]["ha_intent"]
    assert set(others) == {task["head_lr"]}
    assert abs(task["head_lr"] / HEAD_RATE - 1) < 0.5
    first = [line.split()[0] for line in pool.ran]
    n_probe = first.index("lora")
    assert set(first[:n_probe]) == {"head"} and "head" not in first[n_probe : first.index("none")]
    assert [item["method"] for item in task["methods"]] == ["full", "lora", "head", "bitfit", "tfidf", "none"]
    probe = next(item for item in task["methods"] if item["method"] == "head")
    assert (probe["n_seeds"], probe["lr"], probe["lr_at_edge"]) == (2, task["head_lr"], False)
    assert [line["head_lr"] for line in events(tmp_path) if line["event"] == "head_lr"] == [task["head_lr"]]
    plan = json.loads((tmp_path / "small" / "plan.json").read_text())["tasks"]["ha_intent"]
    assert (plan["head_lr"], plan["baselines"]) == ({"default": 0.03, "factor": 3.0}, ["none", "head", "tfidf"])


def test_a_head_rate_that_is_given_is_not_searched(tmp_path: Path, pool: Pool) -> None:
    _, comparison = run(small_config(tmp_path, **ENCODER, head_lr=0.5))
    assert {rate for _, rate in pool.head_rates} == {0.5}
    assert not any(line.split()[0] == "head" and line.split()[2] in ("101", "102") for line in pool.ran)
    assert comparison["tasks"]["ha_intent"]["head_lr"] == 0.5


def test_a_budget_sets_sizes_and_marks_what_has_none(tmp_path: Path, pool: Pool) -> None:
    _, comparison = run(small_config(tmp_path, budget=8192, methods=["lora", "bitfit"], trials=1, cap=1))
    (small,) = (tmp_path / "small" / "ha_json" / "test").glob("lora-*-s1-*")
    made = read(small).config["method"]
    assert made["rules"][0]["hparams"] == {"rank": 4, "alpha": 8.0}
    notes = {item["method"]: item["notes"] for item in comparison["tasks"]["ha_json"]["methods"]}
    assert any("does not meet the budget" in note for note in notes["bitfit"])
    assert not any("budget" in note for note in notes["lora"])
    sizes = [line for line in events(tmp_path) if line["event"] == "size"]
    assert [(line["method"], line["size"], line["parameters"]) for line in sizes] == [
        ("lora", 4, 8192),
        ("bitfit", None, None),
    ]


def test_other_axes_are_searched_and_chosen(tmp_path: Path, pool: Pool) -> None:
    axes = {"optim.lr": {"factor": 3.0}, "optim.batch_size": [4, 8]}
    _, comparison = run(small_config(tmp_path, axes=axes, trials=4, cap=9, methods=["lora"]))
    tried = {json.dumps(line["values"], sort_keys=True) for line in comparison["tasks"]["ha_json"]["search"]}
    assert {json.loads(text)["optim.batch_size"] for text in tried} == {4, 8}
    (chosen,) = [line for line in comparison["tasks"]["ha_json"]["search"] if line["chosen"]]
    assert chosen["values"]["optim.lr"] == 0.003


def test_times_of_runs_that_shared_the_machine_are_left_out(tmp_path: Path, pool: Pool) -> None:
    _, alone = run(small_config(tmp_path / "alone"))
    assert alone["tasks"]["ha_json"]["methods"][0]["step_s"] == 0.75
    assert "train_s" in alone["tasks"]["ha_json"]["curves"]["equal"]
    _, shared = run(small_config(tmp_path / "shared", slots=2, timing_steps=0))
    task = shared["tasks"]["ha_json"]
    assert all(item["step_s"] is None and item["training_peak_bytes"] is None for item in task["methods"])
    assert set(task["curves"]["equal"]) == {"step", "examples", "flops"}
    assert any("machine to itself" in note for note in task["notes"])
    again = small_config(tmp_path / "shared", timing_steps=0)
    assert run(again)[1]["tasks"] == shared["tasks"], "it is known of each run, and not of the start"


def test_time_and_memory_of_shared_runs_are_taken_of_short_ones_that_are_alone(tmp_path: Path, pool: Pool) -> None:
    _, comparison = run(small_config(tmp_path, slots=2))
    timed = pool.ran[N_SEARCH + N_TESTED :]
    assert timed == ["lora 0.003 1 20", "bitfit 0.02 1 20", "full 0.0002 1 20"]
    assert pool.slots[-3:] == [1, 1, 1] and set(pool.slots[:-3]) == {2}
    task = comparison["tasks"]["ha_json"]
    steps = {item["method"]: item["step_s"] for item in task["methods"]}
    assert steps == {"full": 0.75, "lora": 0.75, "bitfit": 0.75, "few_shot": None, "none": None}
    assert any("are those of 20 steps alone" in note for note in task["notes"])
    last = task["curves"]["methods"]["lora"][-1]
    assert (last["step"], last["train_s"]) == (90, 90 * 0.75)
    assert comparison["departures"] == []
    assert run(small_config(tmp_path, slots=2)) == (0, comparison)
    assert len(pool.ran) == N_SEARCH + N_TESTED + 3


# ---------------------------------------------------------------- the log, values, the command


def test_a_line_of_the_ledger_cut_off_by_a_kill_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    DecisionLog(file).write("choice", method="lora", lr=0.1)
    whole = file.read_text()
    file.write_text(whole + '{"time": "20')
    ledger = DecisionLog(file)
    assert file.read_text() == whole
    ledger.write("choice", method="lora", lr=0.3)
    assert [line["lr"] for line in DecisionLog(file).earlier("choice", method="lora")] == [0.1, 0.3]
    assert [line["lr"] for line in ledger.earlier("choice", method="lora")] == [0.1]  # its own are not earlier ones
    assert [line["lr"] for line in ledger.every("choice", method="lora")] == [0.1, 0.3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "trials=0: must be at least 1"),
        ({"trials": 6, "cap": 5}, "cap=5: must be at least trials=6"),
        ({"axes": {"optim.lr": {"factor": 1.0}}}, "axes.optim.lr.factor=1.0: must be above 1"),
        ({"axes": ["optim.lr"]}, "axes=.*must be a mapping"),
        ({"axes": {"optim.steps": [1, 2]}}, "axes.optim.steps: the comparison sets this key itself"),
        ({"halving": [0.5]}, "halving=.*rise to 1.0"),
        ({"halving": [0.5, 0.2, 1.0]}, "halving=.*rise to 1.0"),
        ({"keep": 1.0}, "keep=1.0: a share"),
        ({"finalists": 0}, "finalists=0"),
        ({"alpha": 1.5}, "alpha=1.5"),
        ({"margin": -0.1}, "margin=-0.1: a number above 0"),
        ({"margin": {"ha_json": "much"}}, "margin='much': a number above 0"),
        ({"methods": ["lora", "lora"]}, "methods=.*each one once"),
        ({"methods": ["lora", "few_shot"]}, "few_shot is in both"),
        ({"tasks": []}, "tasks=.*name at least one"),
        ({"search_seeds": [2, 101]}, "search_seeds=.*must be none of the seeds.* 2 is one"),
        ({"search_seeds": []}, "search_seeds=.*name at least one"),
        ({"head_lr": 0.0}, "head_lr=0.0: must be above 0"),
        ({"shared": ["optim.lr=1"]}, "optim.lr=1: the comparison sets this key itself"),
        ({"search": ["eval.part=test"]}, "eval.part=test: the comparison sets this key itself"),
        ({"search": ["seed=1"]}, "seed=1: the comparison sets this key itself"),
    ],
)
def test_senseless_values_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(small_config(tmp_path, **changes))


def test_what_trains_nothing_is_no_method_to_be_searched(tmp_path: Path, pool: Pool) -> None:
    with pytest.raises(ValueError, match="'few_shot' trains nothing; name it among the baselines"):
        run(small_config(tmp_path, methods=["few_shot", "lora"], baselines=[]))


def test_the_command_line() -> None:
    given = ["model=minilm", "tasks=[a,b]", 'shared=["optim.batch_size=4"]', "choose_by=metric", "budget=500000"]
    given += ["axes={optim.warmup_steps: [0, 20], size: {factor: 2}}", "margin={a: 0.02}", "halving=[0.25,1]"]
    made = command.composed(given)
    assert (made.tasks, made.shared, made.budget) == (["a", "b"], ["optim.batch_size=4"], 500000)
    assert made.results == "experiments/results/minilm-study"
    assert made.search == ["forgetting.enabled=false"]
    assert made.varied == {"optim.lr": {"factor": 3.0}, "optim.warmup_steps": [0, 20], "size": {"factor": 2}}
    assert command.composed(["axes={optim.lr: {factor: 2}}"]).varied == {"optim.lr": {"factor": 2}}
    assert command.composed(["axes={optim.lr: null, method.rules.*.where: [a]}"]).varied == {
        "method.rules.*.where": ["a"]
    }
    assert (made.margin, made.halving) == ({"a": 0.02}, [0.25, 1.0])
    check(made)


@pytest.mark.slow
def test_from_the_command_to_the_table(tmp_path: Path) -> None:
    """Real runs of the tiny model, in processes of their own; then nothing again, from the small files alone."""
    data = words(tmp_path / "words.jsonl", 60)
    shared = [f"task.train={data}", "task.n_val=5", "task.n_test=6", "eval.max_new_tokens=6", "device=cpu"]
    shared += ["optim.batch_size=4", "forgetting.n_text=2", "forgetting.n_kl=2"]
    command = [sys.executable, "-m", "experiments.compare", "model=tiny", "tasks=[jsonl]", "methods=[lora,full]"]
    command += ["trials=2", "cap=2", "search_seeds=[101]", "seeds=2", "steps=3", "points=2", "slots=2"]
    command += [f"shared={json.dumps(shared)}", f"results={tmp_path / 'small'}", "resamples=500"]
    done = subprocess.run([*command, f"out={tmp_path / 'runs'}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "search: 4 runs, 0 of them done" in done.stdout
    assert "settings are chosen; 7 runs to be tested, 0 of them done" in done.stdout
    outcome = json.loads((tmp_path / "small" / "comparison.json").read_text())["tasks"]["jsonl"]
    seeds = {item["method"]: item["n_seeds"] for item in outcome["methods"]}
    assert seeds == {"none": 1, "few_shot": 2, "lora": 2, "full": 2}
    assert (outcome["n_test"], outcome["missing"]) == (6, [])
    assert set(outcome["curves"]["methods"]) == {"lora", "full"}
    searched = read(next((tmp_path / "small" / "jsonl" / "search").glob("lora-*")))
    assert searched.n_test == 5  # the validation set
    assert searched.quality == {name: value for name, value in searched.validation.items() if name != "loss"}
    again = subprocess.run(
        [*command, f"out={tmp_path / 'none'}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "search: 4 runs, 4 of them done" in again.stdout
    assert "started" not in again.stdout
    assert not (tmp_path / "none").exists()
    assert json.loads((tmp_path / "small" / "comparison.json").read_text())["tasks"]["jsonl"] == outcome


def test_the_command_names_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["model=tiny", "trials=0"]) == 2
    assert capsys.readouterr().err == "error: trials=0: must be at least 1\n"
    assert command.main(["model=tiny", "tirals=3"]) == 2
    assert "tirals" in capsys.readouterr().err


def test_ctrl_c_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> list[Result]:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison_runs, "carry_out", interrupted)
    places = [f"results={tmp_path / 'small'}", f"out={tmp_path / 'runs'}"]
    assert command.main(["model=tiny", "methods=[lora]", *places]) == 130
    assert "the same command goes on" in capsys.readouterr().err
