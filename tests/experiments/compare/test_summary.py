"""What is said of tested runs: shares, luck, different data, tables; from made-up rows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.made_up import UNTRAINED, made_up, made_up_result, put
from experiments.compare.search_lines import search_part
from experiments.compare.summary import across, compared
from experiments.compare.table import cells, markdown, notes, pair_cells, rich_table, sample
from experiments.compare.task_study import TaskStudy
from experiments.compare.trials import Choice, Outcome, Trial
from experiments.store.files import ReportError, read
from experiments.store.result import Complete, Cost, Speed

N = 60


def rows_of(tmp_path: Path, method: str, share: float, seeds: tuple[int, ...], **changes: Any) -> list[Complete]:
    """Rows whose first examples are right: `share` of them, the same for every seed but one example each."""
    rows = []
    for seed in seeds:
        right = round(share * N)
        scores = [1.0] * right + [0.0] * (N - right)
        scores[-seed - 1] = 1.0 if method != "none" else 0.0
        quality = {"exact_match": float(np.mean(scores)), "valid_json": 0.875}
        result = made_up(method, seed=seed, scores=scores, quality=quality, n_test=N, **changes)
        row = read(put(tmp_path, result, f"{method}-{seed}"))
        assert isinstance(row, Complete)
        rows.append(row)
    return rows


def trial(lr: float, loss: float) -> Trial:
    return Trial({"optim.lr": lr}, 1.0, {101: Outcome("exact_match", {"exact_match": 0.5, "loss": loss})})


@pytest.fixture
def contest(tmp_path: Path) -> TaskStudy:
    """full and lora tie, none knows nothing, hush never ran to its end."""
    trials = [trial(lr, loss) for lr, loss in ((0.1, 1.0), (0.3, 0.5), (0.9, 0.7))]
    failed = Trial({"optim.lr": 0.3}, 1.0, {101: Outcome(failure="made-up failure")})
    return TaskStudy(
        "made-up-task",
        methods=("lora", "full", "hush"),
        trials={"lora": trials, "full": trials, "hush": [failed]},
        searched={method: [made_up_result(method)] for method in ("lora", "full", "hush")},
        choices={
            "lora": Choice({"optim.lr": 0.9}, True, ("lr 0.9 is at the edge",)),
            "full": Choice({"optim.lr": 0.3}, False),
        },
        tested={
            "none": rows_of(tmp_path, "none", 0.0, (1,), **UNTRAINED),
            "lora": rows_of(tmp_path, "lora", 0.75, (1, 2, 3)),
            "full": rows_of(tmp_path, "full", 0.8, (1, 2, 3)),
        },
        missing=["hush, lr 0.3 of the search, failed: made-up failure"],
        notes={"lora": ["lr 0.9 is at the edge"]},
    )


def test_what_a_task_comes_to(contest: TaskStudy) -> None:
    outcome = compared(contest, 0.05)
    json.dumps(outcome, allow_nan=False)
    full, lora, none = outcome["methods"]
    assert [item["method"] for item in (full, lora, none)] == ["full", "lora", "none"]
    assert (full["group"], lora["group"], none["group"]) == ("a", "a", "b")
    assert (full["baseline"], none["baseline"], full["below"], none["below"]) == (False, True, [], [])
    assert (full["lr"], full["lr_at_edge"], lora["lr_at_edge"], none["lr"]) == (0.3, False, True, None)
    assert full["n_seeds"] == 3
    assert full["seed_sd"] == pytest.approx(0)
    assert none["seed_sd"] is None
    assert lora["share_of_full"] == pytest.approx(46 / 49)
    assert outcome["share_of_full_reason"] is None
    assert (full["perplexity_before"], full["perplexity_after"], none["perplexity_after"]) == (20.0, 25.0, None)
    assert full["quality"]["valid_json"] == 0.875
    assert full["keys"] == ["0123456789ab"] * 3
    assert {(pair["a"], pair["b"]): pair["better"] for pair in outcome["pairs"]} == {
        ("full", "lora"): None,
        ("full", "none"): "full",
        ("lora", "none"): "lora",
    }
    assert (outcome["margin"], outcome["letters_withheld"], outcome["n_groups"]) == (None, None, None)
    marks = {(line["method"], line["lr"]): line["chosen"] for line in search_part(contest)["search"]}
    assert [lr for (method, lr), chosen in marks.items() if method == "full" and chosen] == [0.3]
    assert marks["hush", 0.3] is False


def test_the_margin_makes_equivalence(contest: TaskStudy) -> None:
    pairs = {(pair["a"], pair["b"]): pair for pair in compared(contest, 0.05, margin=0.4)["pairs"]}
    assert pairs["full", "lora"]["verdict"] == "equivalent"
    assert pairs["full", "none"]["verdict"] == "better"
    outcome = compared(contest, 0.05, margin=0.01)
    assert outcome["margin"] == 0.01
    (undecided,) = [pair for pair in outcome["pairs"] if pair["verdict"] == "undecided"]
    assert undecided["smallest"] > 0.02


def test_letters_are_withheld_while_a_baseline_is_better(contest: TaskStudy, tmp_path: Path) -> None:
    """A linear probe above all methods: what is ranked would be what kept them from working."""
    config = {"method": {"name": "head", "baseline": True}}
    contest.tested["head"] = rows_of(tmp_path, "head", 0.9, (1, 2, 3), config=config)
    outcome = compared(contest, 0.05)
    entries = {item["method"]: item for item in outcome["methods"]}
    assert {item["group"] for item in outcome["methods"]} == {""}
    assert (entries["full"]["below"], entries["lora"]["below"]) == (["head"], ["head"])
    assert entries["head"]["baseline"]
    assert re.match(r"no letters: the best fine-tuned method, full \(0\.817\), is below head \(0\.917\)", line(outcome))
    assert line(outcome) in notes(outcome)
    headers, table = cells(outcome)
    assert "letters" not in headers
    shown = {row[0]: row[headers.index("below")] for row in table}
    assert shown == {"head (baseline)": "–", "full": "↓ head", "lora": "↓ head", "none (baseline)": "–"}
    contest.tested["head"] = rows_of(tmp_path / "again", "head", 0.77, (1, 2, 3), config=config)
    outcome = compared(contest, 0.05)
    assert outcome["letters_withheld"] is None
    below = {item["method"]: item["below"] for item in outcome["methods"]}
    assert below == {"full": [], "head": [], "lora": ["head"], "none": []}


def line(outcome: dict[str, Any]) -> str:
    return outcome["letters_withheld"]


def with_groups(rows: list[Complete], groups: tuple[str, ...] | None) -> list[Any]:
    return [replace(row, groups=groups) for row in rows]


def test_examples_of_one_group_are_drawn_together(contest: TaskStudy) -> None:
    groups = tuple(f"wording {i // 10}" for i in range(N))
    single = compared(contest, 0.05)
    for method, rows in contest.tested.items():
        contest.tested[method] = with_groups(rows, groups)
    outcome = compared(contest, 0.05)
    assert (single["n_groups"], outcome["n_groups"]) == (None, 6)
    (alone,) = [p for p in single["pairs"] if (p["a"], p["b"]) == ("full", "lora")]
    (pair,) = [p for p in outcome["pairs"] if (p["a"], p["b"]) == ("full", "lora")]
    assert pair["about"] == "new seeds and clusters"
    assert pair["high"] - pair["low"] > alone["high"] - alone["low"]
    assert "60 test examples in 6 groups" in sample(outcome)
    assert "the results do not say which examples are drawn together, so each was taken for itself" in single["notes"]
    assert not any("drawn together" in note for note in outcome["notes"])


@pytest.mark.parametrize(
    ("groups", "n_groups", "note"),
    [
        (("only",) * N, None, "all test examples are of one group, only: nothing is known of other groups"),
        (("",) * N, None, ""),
        ((*("",) * (N - 2), "x", "x"), N - 1, ""),
    ],
)
def test_groups_that_are_none(contest: TaskStudy, groups: tuple[str, ...], n_groups: int | None, note: str) -> None:
    for method, rows in contest.tested.items():
        contest.tested[method] = with_groups(rows, groups)
    outcome = compared(contest, 0.05)
    assert outcome["n_groups"] == n_groups
    assert [each for each in outcome["notes"] if "group" in each] == [each for each in [note] if each]


def test_no_share_of_a_full_that_may_not_be_at_its_best(contest: TaskStudy) -> None:
    contest.choices["full"] = Choice({"optim.lr": 0.3}, True)
    found = compared(contest, 0.05)
    assert {item["share_of_full"] for item in found["methods"]} == {None}
    assert "full's learning rate, 0.3, is at the edge of its grid" in found["share_of_full_reason"]
    del contest.tested["full"]
    assert compared(contest, 0.05)["share_of_full_reason"] == "full has no complete run"
    contest.methods = ("lora", "hush")
    assert "full is not among the methods" in compared(contest, 0.05)["share_of_full_reason"]


def test_no_share_of_negative_scores(contest: TaskStudy) -> None:
    for method, rows in contest.tested.items():
        contest.tested[method] = [replace(item, scores=tuple(x - 3 for x in item.scores)) for item in rows]
    assert "a share needs scores above 0" in compared(contest, 0.05)["share_of_full_reason"]


def test_luck_of_the_seeds_makes_no_letter(contest: TaskStudy, tmp_path: Path) -> None:
    """lora's seeds scatter: it is below full on these examples for sure, but of other seeds nobody knows."""
    scattered = [rows_of(tmp_path, "lora", share, (seed,))[0] for seed, share in enumerate((0.8, 0.05, 0.75), 1)]
    contest.tested["lora"] = scattered
    outcome = compared(contest, 0.05)
    pair = next(pair for pair in outcome["pairs"] if (pair["a"], pair["b"]) == ("full", "lora"))
    assert (pair["verdict"], pair["better"]) == ("undecided", None)
    assert pair["low"] < 0 < pair["high"]
    assert pair["smallest"] > pair["difference"]
    headers, table = pair_cells(outcome)
    row = next(each for each in table if each[0] == "full − lora")
    assert row[headers.index("verdict")] == "undecided"
    assert row[headers.index("could have been found")] == f"{pair['smallest']:.3f}"
    decided = next(each for each in table if each[0] == "full − none")
    assert decided[headers.index("verdict")] == "full better"


def test_one_seed_is_said(contest: TaskStudy) -> None:
    for method, rows in contest.tested.items():
        contest.tested[method] = rows[:1]
    outcome = compared(contest, 0.05)
    assert {item["group"] for item in outcome["methods"]} == {""}
    assert "full, lora: one seed, so seeds were not varied; no verdict and no letter" in outcome["notes"]
    headers, table = pair_cells(outcome)
    assert {row[headers.index("verdict")] for row in table} == {"undecided: one seed"}


def test_the_head_of_an_untrained_encoder_is_its_seeds(contest: TaskStudy) -> None:
    """One that writes text is the same at every seed; the other's head is drawn, here with one seed alone."""
    (none,) = contest.tested["none"]
    pairs = compared(contest, 0.05)["pairs"]
    assert all(pair["p_holm"] is not None for pair in pairs if pair["b"] == "none")
    contest.tested["none"] = [
        replace(none, cost=Cost(switch_s=None, generate_tokens_per_s=Speed(unmerged=None, merged=None)))
    ]
    pairs = compared(contest, 0.05)["pairs"]
    assert all(pair["p_holm"] is None for pair in pairs if pair["b"] == "none")


def test_other_machines_and_a_ceiling_are_said(contest: TaskStudy) -> None:
    lora = contest.tested["lora"][0]
    contest.tested["lora"][0] = replace(lora, environment=replace(lora.environment, device="cuda"))
    for method in ("full", "lora"):
        full_marks = {"exact_match": 1.0, "valid_json": 0.5}
        contest.tested[method] = [
            replace(item, scores=(1.0,) * N, quality=full_marks) for item in contest.tested[method]
        ]
    notes = compared(contest, 0.05)["notes"]
    assert "the runs are of several kinds of device: cpu (6), cuda (1)" in notes
    assert "exact_match is near the most there is, so hardly to be told apart: lora, full" in notes


def test_a_ceiling_of_one_of_several_metrics_is_said(contest: TaskStudy) -> None:
    """The main metric has room, and a part that it is made of has none."""
    for method in ("full", "lora"):
        contest.tested[method] = [
            replace(item, quality=item.quality | {"valid_json": 0.99, "style": 1.0, "length": 40.0})
            for item in contest.tested[method]
        ]
    outcome = compared(contest, 0.05)
    ceilings = [note for note in outcome["notes"] if "near the most" in note]
    assert ceilings == [
        "valid_json is near the most there is, so hardly to be told apart: lora, full",
        "style is near the most there is, so hardly to be told apart: lora, full",
    ]


def test_different_data_are_refused(contest: TaskStudy, tmp_path: Path) -> None:
    other = made_up()["data"] | {"sha256": "cd" * 32, "test_sha256": "cd" * 32}
    contest.tested["lora"] += rows_of(tmp_path, "lora", 0.5, (4,), data=other)
    with pytest.raises(ReportError, match=r"on different data.*By hash: abab.*none-1.*; cdcd.*lora-4"):
        compared(contest, 0.05)


def test_runs_of_different_sources_are_refused(contest: TaskStudy) -> None:
    rows = contest.tested["lora"]
    contest.tested["lora"] = [*rows[:2], replace(rows[2], sources_sha256=None)]
    with pytest.raises(ReportError, match=r"made by different sources.*; unknown: .*lora-3"):
        compared(contest, 0.05)
    contest.tested["lora"] = [*rows[:2], replace(rows[2], sources_sha256="ef" * 32)]
    with pytest.raises(ReportError, match=r"made by different sources.*By hash: fedc.*none-1.*; efef.*lora-3"):
        compared(contest, 0.05)
    for method, each in contest.tested.items():
        contest.tested[method] = [replace(row, sources_sha256="ef" * 32) for row in each]
    assert compared(contest, 0.05)["pairs"]


def test_what_training_costs_is_tested_over_seeds(contest: TaskStudy) -> None:
    """full takes twice as long at every seed, and its memory is no other."""
    for method, seconds in (("lora", (1.0, 1.1, 1.05)), ("full", (2.0, 2.1, 2.08))):
        contest.tested[method] = [replace(row, step_s=s) for row, s in zip(contest.tested[method], seconds)]
    outcome = compared(contest, 0.05)
    costs = {item["method"]: item["cost"] for item in outcome["methods"]}
    assert (costs["lora"]["step_s"]["group"], costs["full"]["step_s"]["group"]) == ("a", "b")
    assert costs["lora"]["step_s"]["mean"] == pytest.approx(1.05)
    assert costs["lora"]["step_s"]["low"] < 1.05 < costs["lora"]["step_s"]["high"]
    assert {costs[name]["training_peak_bytes"]["group"] for name in ("lora", "full")} == {"a"}
    assert costs["none"] == {"step_s": None, "training_peak_bytes": None}
    (pair,) = outcome["other_pairs"]["step_s"]
    assert (pair["a"], pair["better"], pair["about"]) == ("lora", "lora", "new seeds")
    assert pair["difference"] == pytest.approx(1.05 - 2.06)
    headers, table = cells(outcome)
    steps = {row[0]: row[headers.index("step")] for row in table}
    assert (steps["full"], steps["lora"]) == ("2.08 s b", "1.05 s a")


def test_tasks_are_put_together(contest: TaskStudy) -> None:
    one = compared(contest, 0.05)
    together = across({"x": one, "y": one}, 0.05, 200)
    assert together is not None
    assert [item["method"] for item in together["methods"]] == ["full", "lora", "none"]
    assert across({"x": one}, 0.05, 200) is None
    text = markdown({"title": "Made up", "how": "", "tasks": {"x": one, "y": one}, "across": together})
    assert "## All tasks together" in text
    assert "| full over lora | 1.00 | 1.00 to 1.00 |" in text
    assert "| none | 0.000 |" in text


def test_the_tables(contest: TaskStudy) -> None:
    found = compared(contest, 0.05)
    text = markdown(
        {"title": "Made up", "how": "Made by hand.", "tasks": {"made-up-task": found | search_part(contest)}}
    )
    lines = {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]]
        for line in text.splitlines()
        if "|" in line
    }
    assert lines["method"][0] == "1"  # the best to be expected of one trial, which is the last table
    assert "| full | 0.817 |" in text
    assert "0.9 *" in text
    assert "- missing: hush, lr 0.3 of the search, failed: made-up failure" in text
    assert "- lora: lr 0.9 is at the edge" in text
    assert "| hush | lr 0.3 | 100% | 1 | failed |  |  |" in text
    assert "The best validation score to be expected of so many trials:" in text
    assert "full − lora" in lines
    headers, table = cells(found)
    assert {len(line) for line in table} == {len(headers)}
    assert table[0][headers.index("perplexity after / before")] == "1.250"
    assert table[2][headers.index("training peak")] == "–"
    assert rich_table("made-up-task", found).row_count == 3


def test_nothing_tested_is_said() -> None:
    failed = Trial({"optim.lr": 0.1}, 1.0, {101: Outcome(failure="made up")})
    contest = TaskStudy("made-up-task", methods=("lora",), trials={"lora": [failed]})
    found = compared(contest, 0.05)
    assert found["methods"] == []
    text = markdown({"title": "Made up", "how": "", "tasks": {"made-up-task": found | search_part(contest)}})
    assert "No run has been tested." in text
    assert "| lora | lr 0.1 | 100% | 1 | failed |" in text
    assert "no share of full: no run has been tested" in notes(found)
