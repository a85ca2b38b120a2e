"""The committed planted studies: a thousand of each design, and what they have to show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import planted_studies
from benchmarks.planted_studies import NAME, SEED_SHARES, SEEDS

CONTENT = json.loads((Path(planted_studies.__file__).with_name("results") / NAME).read_text(encoding="utf-8"))
EQUAL = [line for line in CONTENT["designs"] if not line["lift"]]
LIFTED = [line for line in CONTENT["designs"] if line["lift"]]
MOST = 0.05 + 2 * (0.05 * 0.95 / CONTENT["studies"]) ** 0.5  # a share of 5 %, and two of its standard errors


def test_every_design_is_there() -> None:
    kinds = {(line["seed_share"], line["seeds"], line["binary"], line["clusters"]) for line in EQUAL}
    for share in SEED_SHARES:
        for seeds in SEEDS:
            assert {(share, seeds, binary, clusters) for binary in (True, False) for clusters in (0, 10)} <= kinds
    assert CONTENT["studies"] >= 1000


def test_equal_methods_are_told_apart_in_at_most_one_study_of_twenty() -> None:
    assert [line for line in CONTENT["designs"] if line["false_better"] > MOST] == []


def test_intervals_cover_93_to_97_percent() -> None:
    assert [line for line in EQUAL if not 0.93 <= line["coverage"] <= 0.97] == []


def test_equivalence_at_the_margin_is_claimed_in_at_most_one_study_of_twenty() -> None:
    assert [line for line in LIFTED if line["false_equivalent"] > MOST] == []


def test_the_smallest_difference_is_found_in_about_four_of_five_studies() -> None:
    """More often where a study cannot know it beforehand: that seeds do not matter, or that a score of 0 or 1 which is
    lifted varies less."""
    known = [line for line in LIFTED if line["power"] is not None]
    easier = [line for line in known if line["binary"] or line["seed_share"] == 0]
    plain = [line for line in known if line not in easier]
    assert len(plain) >= 10
    assert [line for line in plain if not 0.75 <= line["power"] <= 0.85] == []
    assert [line for line in easier if not 0.7 <= line["power"] <= 0.95] == []


def test_a_first_look_replaces_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    design = next(planted_studies.designs())
    monkeypatch.setattr(planted_studies, "designs", lambda: [design])
    assert planted_studies.main(["--studies", "8"]) == 0
    made: dict[str, Any] = json.loads((tmp_path / "runs" / "benchmarks" / NAME).read_text())
    assert made["studies"] == 8
    assert [bool(line["lift"]) for line in made["designs"]] == [False, True]
    assert f"runs/benchmarks/{NAME}" in capsys.readouterr().out
