"""Parts that are split off: a rare label is trained on, and tested if it can be; sizes fit the file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.config.tasks import JsonlConfig
from experiments.tasks import load_task
from experiments.tasks.base import Example, TaskError
from experiments.tasks.split import taken


def labelled(counts: dict[str, int]) -> list[Example]:
    return [Example(text=f"{label} {i}", completion=label) for label, n in counts.items() for i in range(n)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "counts", [{"a": 396, "b": 4}, {"a": 300, "b": 97, "c": 2, "d": 1}, dict.fromkeys("abcdefg", 3)]
)
def test_a_rare_label_is_trained_on_and_tested(counts: dict[str, int], seed: int) -> None:
    rows = labelled(counts)
    n = len(rows) // 3
    test, rest = taken("test", rows, n, seed, labelled=True)
    assert len(test) == n and len(test) + len(rest) == len(rows)
    tested, kept = (Counter(e.completion for e in part) for part in (test, rest))
    for label, count in counts.items():
        assert kept[label] >= 1 and (tested[label] >= 1 or count == 1)
        assert abs(tested[label] - n * count / len(rows)) <= 2


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9)), min_size=1, max_size=40), st.data())
def test_groups_stay_together_and_the_order_does_not_matter(rows: list[tuple[str, int]], data: st.DataObject) -> None:
    examples = [Example(text=str(i), completion=label, group=f"g{group}") for i, (label, group) in enumerate(rows)]
    n = data.draw(st.integers(1, len(examples)))
    test, rest = taken("test", examples, n, 0, labelled=True)
    assert len(test) >= n and len(test) + len(rest) == len(examples)
    assert {e.group for e in test}.isdisjoint(e.group for e in rest)
    again, _ = taken("test", examples[::-1], n, 0, labelled=True)
    assert {e.text for e in again} == {e.text for e in test}


@pytest.mark.parametrize("n", [10, 40, 310, 999, 1000, 5000])
def test_sizes_fit_the_file(tmp_path: Path, n: int) -> None:
    file = tmp_path / "all.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"p{i}", "completion": "c"}) + "\n" for i in range(n)))
    data = load_task(JsonlConfig(name="jsonl", train=str(file)))
    assert len(data.train) >= 0.7 * n
    assert (len(data.val), len(data.test)) == (min(100, n // 10), min(200, n // 5))


@pytest.mark.parametrize(("field", "what"), [("g", "2 different groups"), (None, "1 different prompts")])
def test_records_that_stand_together_are_said_to(tmp_path: Path, field: str | None, what: str) -> None:
    file = tmp_path / "all.jsonl"
    prompt = "p{i}" if field else "p"
    records = [{"prompt": prompt.format(i=i), "completion": "c", "g": i % 2} for i in range(30)]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(TaskError, match=f"30 records, of {what}, which are never divided, leave none to train on"):
        load_task(JsonlConfig(name="jsonl", train=str(file), group=field))
