"""What is said of tested runs: shares, luck, different data, tables; from made-up rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.made_up import UNTRAINED, made_up, put
from experiments.compare.rates import Choice, Trial
from experiments.compare.summary import TaskStudy, compared
from experiments.compare.table import cells, markdown, notes, rich_table
from experiments.store.files import ReportError, read
from experiments.store.result import Complete, Cost, Each, Forgetting, Speed

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


@pytest.fixture
def contest(tmp_path: Path) -> TaskStudy:
    """full and lora tie, none knows nothing, hush never ran to its end."""
    validation = {"exact_match": 0.5, "loss": 1.5}
    trials = [
        Trial(lr, "exact_match", validation | {"loss": loss}) for lr, loss in ((0.1, 1.0), (0.3, 0.5), (0.9, 0.7))
    ]
    return TaskStudy(
        "made-up-task",
        rates={method: [0.3, 0.1, 0.9] for method in ("lora", "full", "hush")},
        trials={"lora": trials, "full": trials, "hush": [Trial(0.3, failure="made-up failure")]},
        choices={"lora": Choice(0.9, True, ("lr 0.9 is at the edge",)), "full": Choice(0.3, False)},
        tested={
            "none": rows_of(tmp_path, "none", 0.0, (1,), **UNTRAINED),
            "lora": rows_of(tmp_path, "lora", 0.75, (1, 2, 3)),
            "full": rows_of(tmp_path, "full", 0.8, (1, 2, 3)),
        },
        missing=["hush, lr 0.3 of the search, failed: made-up failure"],
        notes={"lora": ["lr 0.9 is at the edge"]},
    )


def test_what_is_found(contest: TaskStudy) -> None:
    found = compared(contest, alpha=0.05, resamples=2000)
    json.dumps(found, allow_nan=False)
    full, lora, none = found["methods"]
    assert [item["method"] for item in (full, lora, none)] == ["full", "lora", "none"]
    assert (full["group"], lora["group"], none["group"]) == ("a", "a", "b")
    assert (full["lr"], full["lr_at_edge"], lora["lr_at_edge"], none["lr"]) == (0.3, False, True, None)
    assert full["n_seeds"] == 3
    assert full["seed_sd"] == pytest.approx(0)
    assert none["seed_sd"] is None
    assert lora["share_of_full"] == pytest.approx(46 / 49)
    assert found["share_of_full_reason"] is None
    assert (full["perplexity_before"], full["perplexity_after"], none["perplexity_after"]) == (20.0, 25.0, None)
    assert full["quality"]["valid_json"] == 0.875
    assert full["keys"] == ["0123456789ab"] * 3
    assert {(pair["a"], pair["b"]): pair["distinguishable"] for pair in found["pairs"]} == {
        ("full", "lora"): False,
        ("full", "none"): True,
        ("lora", "none"): True,
    }
    marks = {(line["method"], line["lr"]): line["chosen"] for line in found["search"]}
    assert [lr for (method, lr), chosen in marks.items() if method == "full" and chosen] == [0.3]
    assert marks["hush", 0.3] is False


def test_no_share_of_a_full_that_may_not_be_at_its_best(contest: TaskStudy) -> None:
    contest.choices["full"] = Choice(0.3, True)
    found = compared(contest, alpha=0.05, resamples=200)
    assert {item["share_of_full"] for item in found["methods"]} == {None}
    assert "full's learning rate, 0.3, is at the edge of its grid" in found["share_of_full_reason"]
    del contest.tested["full"]
    assert compared(contest, alpha=0.05, resamples=200)["share_of_full_reason"] == "full has no complete run"
    del contest.rates["full"]
    assert "full is not among the methods" in compared(contest, alpha=0.05, resamples=200)["share_of_full_reason"]


def test_no_share_of_negative_scores(contest: TaskStudy) -> None:
    for method, rows in contest.tested.items():
        contest.tested[method] = [replace(item, scores=tuple(x - 3 for x in item.scores)) for item in rows]
    assert "a share needs scores above 0" in compared(contest, alpha=0.05, resamples=200)["share_of_full_reason"]


def test_luck_of_the_seeds_is_called_so(contest: TaskStudy, tmp_path: Path) -> None:
    """lora's seeds scatter: it is below full on these examples for sure, but not beyond its seeds."""
    scattered = [rows_of(tmp_path, "lora", share, (seed,))[0] for seed, share in enumerate((0.8, 0.05, 0.75), 1)]
    contest.tested["lora"] = scattered
    found = compared(contest, alpha=0.05, resamples=2000)
    pair = next(pair for pair in found["pairs"] if (pair["a"], pair["b"]) == ("full", "lora"))
    assert pair["distinguishable"]
    assert pair["seeds_low"] < 0 < pair["seeds_high"]
    said = next(line for line in found["notes"] if line.startswith("full and lora are told apart as trained here"))
    assert "may be the luck of their seeds" in said


def test_what_is_forgotten_has_intervals_and_ties(contest: TaskStudy) -> None:
    """lora and full forget about the same, each text by another amount; none forgets nothing."""
    base = [3.0 + 0.1 * i for i in range(16)]
    by = {"none": [0.0] * 16, "lora": [0.5 + 0.01 * (i % 5) for i in range(16)], "full": [0.519] * 16}
    for method, rows in contest.tested.items():
        each = Each(nll_before=tuple(base), nll_after=tuple(a + b for a, b in zip(base, by[method])))
        forgetting = Forgetting(
            text_perplexity=None, kl_per_token=None, feature_drift=None, tasks={}, each=each, reason=None
        )
        contest.tested[method] = [replace(item, forgetting=forgetting) for item in rows]
    found = compared(contest, alpha=0.05, resamples=2000)
    forgot = {item["method"]: item["forgot"] for item in found["methods"]}
    assert (forgot["none"]["group"], forgot["lora"]["group"], forgot["full"]["group"]) == ("a", "b", "b")
    assert forgot["lora"]["measure"] == "nats"
    assert forgot["lora"]["mean"] == pytest.approx(float(np.mean(by["lora"])))
    assert 0.5 < forgot["lora"]["low"] < forgot["lora"]["mean"] < forgot["lora"]["high"] < 0.55
    headers, table = cells(found)
    assert table[2][headers.index("forgotten")] == "0.000 [0.000, 0.000]"
    assert "alike" in headers
    assert "of full" in headers


def test_the_head_of_an_untrained_encoder_is_its_seeds(contest: TaskStudy) -> None:
    (none,) = contest.tested["none"]
    pairs = compared(contest, alpha=0.05, resamples=200)["pairs"]
    assert all(pair["seeds_low"] is not None for pair in pairs if pair["b"] == "none")
    contest.tested["none"] = [
        replace(none, cost=Cost(switch_s=None, generate_tokens_per_s=Speed(unmerged=None, merged=None)))
    ]
    pairs = compared(contest, alpha=0.05, resamples=200)["pairs"]
    assert all(pair["seeds_low"] is None for pair in pairs if pair["b"] == "none")


def test_other_machines_and_a_ceiling_are_said(contest: TaskStudy) -> None:
    lora = contest.tested["lora"][0]
    contest.tested["lora"][0] = replace(lora, environment=replace(lora.environment, device="cuda"))
    for method in ("full", "lora"):
        contest.tested[method] = [replace(item, scores=(1.0,) * N) for item in contest.tested[method]]
    notes = compared(contest, alpha=0.05, resamples=200)["notes"]
    assert "the runs are of several kinds of device: cpu (6), cuda (1)" in notes
    assert "near the most there is, so hardly to be told apart: lora, full" in notes


def test_different_data_are_refused(contest: TaskStudy, tmp_path: Path) -> None:
    other = made_up()["data"] | {"sha256": "cd" * 32}
    contest.tested["lora"] += rows_of(tmp_path, "lora", 0.5, (4,), data=other)
    with pytest.raises(ReportError, match=r"different data.*none-1.*abab.*lora-4.*cdcd"):
        compared(contest, alpha=0.05, resamples=200)


def test_the_tables(contest: TaskStudy) -> None:
    found = compared(contest, alpha=0.05, resamples=2000)
    text = markdown({"title": "Made up", "how": "Made by hand.", "tasks": {"made-up-task": found}})
    lines = {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]]
        for line in text.splitlines()
        if "|" in line
    }
    assert lines["method"][0] == "lr"  # the search's table, which is the last
    assert "| full | 0.817 |" in text
    assert "0.9 *" in text
    assert "- missing: hush, lr 0.3 of the search, failed: made-up failure" in text
    assert "- lora: lr 0.9 is at the edge" in text
    assert "| hush | 0.3 | failed |  |  |" in text
    assert "full − lora" in lines
    headers, table = cells(found)
    assert {len(line) for line in table} == {len(headers)}
    assert table[0][headers.index("perplexity after / before")] == "1.250"
    assert table[2][headers.index("training peak")] == "–"
    assert rich_table("made-up-task", found).row_count == 3


def test_nothing_tested_is_said() -> None:
    contest = TaskStudy("made-up-task", rates={"lora": [0.1]}, trials={"lora": [Trial(0.1, failure="made up")]})
    found = compared(contest, alpha=0.05, resamples=200)
    assert found["methods"] == []
    text = markdown({"title": "Made up", "how": "", "tasks": {"made-up-task": found}})
    assert "No run has been tested." in text
    assert "| lora | 0.1 | failed |" in text
    assert "no share of full: no run has been tested" in notes(found)
