"""Whole runs on the tiny model of every kind of task that a file of records can be."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import config, directory, overrides, own_cache_and_torch_settings, run  # noqa: F401 - a fixture

WORDS = (
    "apple",
    "river",
    "stone",
    "cloud",
    "tiger",
    "violin",
    "candle",
    "forest",
    "bottle",
    "winter",
    "garden",
    "hammer",
)


def records(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def carried_out(tmp_path: Path, file: Path, *more: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The result, and the lines of predictions.jsonl."""
    made = config(
        *overrides(tmp_path, "optim.steps=2", "forgetting.enabled=false", "data.check=warn", *more, file=file)
    )
    result = run(made)
    lines = (directory(made) / "predictions.jsonl").read_text().splitlines()
    return result, [json.loads(line) for line in lines]


def test_a_multiple_choice_takes_one_of_its_choices(tmp_path):
    rows = [
        {"prompt": f"{i} {WORDS[i % 12]}?", "choices": [f"{WORDS[i % 7]} {i}", f"a {i}", "none"], "answer": i % 3}
        for i in range(30)
    ]
    result, lines = carried_out(tmp_path, records(tmp_path / "choices.jsonl", *rows))
    assert result["metric"] == "accuracy"
    choices = {row["prompt"]: row["choices"] for row in rows}
    assert all(line["prediction"] in choices[line["prompt"]] for line in lines)
    assert len({line["prediction"].split()[0] for line in lines}) > 1
    right = [line["prediction"] == line["gold"] for line in lines]
    assert result["quality"] == {"accuracy": pytest.approx(sum(right) / len(right))}


def test_a_preference_is_right_where_the_chosen_text_is_likelier(tmp_path):
    rows = [{"prompt": f"{i} {WORDS[i % 12]}?", "chosen": f"yes {i}", "rejected": f"no, no {i}"} for i in range(30)]
    result, lines = carried_out(tmp_path, records(tmp_path / "preferences.jsonl", *rows))
    assert {line["prediction"].split()[0] for line in lines} <= {"yes", "no,"}
    right = [line["prediction"].startswith("yes") for line in lines]
    assert result["quality"] == {"accuracy": pytest.approx(sum(right) / len(right))}


def ratings(path: Path) -> Path:
    rows = [{"text": f"{WORDS[i % 12]} {['bad', 'good'][i % 2]}", "label": 1.5 + 2 * (i % 2)} for i in range(40)]
    return records(path, *rows)


def test_a_head_of_one_output_learns_numbers(tmp_path):
    file = ratings(tmp_path / "ratings.jsonl")
    result, lines = carried_out(tmp_path, file, "model=tiny_encoder", "method=full", "optim.lr=1e-3", "optim.steps=200")
    assert result["metric"] == "pearson"
    assert result["quality"]["pearson"] > 0.9
    assert result["quality"]["valid_number"] == 1
    said = [float(line["prediction"]) for line in lines]
    gold = [float(line["gold"]) for line in lines]
    assert result["quality"]["mean_absolute_error"] == pytest.approx(
        sum(abs(a - b) for a, b in zip(said, gold)) / len(gold)
    )
    assert result["validation"]["loss"] < 1  # the squared error; 1 is the variance


def test_a_decoder_writes_numbers_as_text(tmp_path):
    file = ratings(tmp_path / "ratings.jsonl")
    result, lines = carried_out(
        tmp_path, file, "method=full", "optim.lr=3e-3", "optim.steps=30", "eval.max_new_tokens=6"
    )
    assert result["quality"]["valid_number"] == pytest.approx(sum(numeric(l["prediction"]) for l in lines) / len(lines))
    assert result["quality"]["valid_number"] > 0.5


def numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_plain_text_is_learned_whole(tmp_path):
    rows = [{"text": " ".join(WORDS[(i * k) % 12] for k in range(1, 8)) + f" {i}"} for i in range(30)]
    result, lines = carried_out(tmp_path, records(tmp_path / "texts.jsonl", *rows), "optim.lr=1e-2", "optim.steps=8")
    assert result["metric"] == "log_likelihood"
    said = [json.loads(line["prediction"]) for line in lines]
    nll, tokens, size = (sum(column) for column in zip(*said))
    assert tokens == size  # a byte is a token here; the first of a text is not foretold
    assert result["quality"]["perplexity"] == pytest.approx(math.exp(nll / tokens))
    assert result["quality"]["log_likelihood"] == pytest.approx(sum(-a / b for a, b, _ in said) / len(said))
    val = result["validation"]
    assert val["loss"] == pytest.approx(math.log(val["perplexity"]), rel=1e-4)
    assert val["loss"] < math.log(259)  # better than by chance on 259 tokens


def test_texts_are_scored_against_all_their_references(tmp_path):
    rows = [
        {"prompt": f"{i} {WORDS[i % 12]}?", "completion": WORDS[i % 12], "references": [f"{WORDS[i % 12]} {i}"]}
        for i in range(30)
    ]
    file = records(tmp_path / "texts.jsonl", *rows)
    result, lines = carried_out(tmp_path, file, "task.metric=rouge_l")
    assert result["metric"] == "rouge_l"
    assert {"rouge_l", "chrf", "bleu", "exact_match", "corpus_bleu", "corpus_chrf"} == set(result["quality"])
    assert len(lines) == result["n_test"]


def test_quality_is_reported_by_part(tmp_path):
    rows = [{"text": f"{WORDS[i % 12]} {i}", "label": "ab"[i % 2], "lang": ["en", "de"][i // 2 % 2]} for i in range(40)]
    file = records(tmp_path / "classes.jsonl", *rows)
    result, lines = carried_out(tmp_path, file, "task.part=lang", "model=tiny_encoder", "task.metric=mcc")
    assert result["metric"] == "mcc"
    assert set(result["quality_by_part"]) == {line["part"] for line in lines}
    assert all("mcc" in means for means in result["quality_by_part"].values())
