"""The general texts: whole paragraphs, none in two passages, no topic in two parts."""

from __future__ import annotations

import math
from itertools import combinations

import pytest

from experiments.config.tasks import GeneralConfig
from experiments.tasks import general, load_task
from experiments.tasks.base import TaskError

SIZES = GeneralConfig()


@pytest.mark.parametrize("seed", range(5))
def test_the_default_sizes_are_there_and_no_topic_stands_in_two_parts(seed: int) -> None:
    parts = general.split(SIZES.n_train, SIZES.n_val, SIZES.n_test, seed)
    assert {name: len(part) for name, part in parts.items()} == {"train": 300, "val": 20, "test": 64}
    for one, other in combinations(parts.values(), 2):
        assert {e.group for e in one}.isdisjoint(e.group for e in other)
    assert len({e.group for e in parts["test"]}) > 30  # topics take turns


def test_passages_are_of_the_stated_sizes_and_no_paragraph_stands_in_two() -> None:
    found = [e.text for examples in general.passages().values() for e in examples]
    assert all(general.SHORTEST <= len(text) <= general.LONGEST for text in found)
    paragraphs = [" ".join(p.split()) for text in found for p in text.split("\n\n")]
    whole = [p for p in paragraphs if len(p) > 200]
    assert len(set(whole)) == len(whole) > 300


def test_the_split_is_a_function_of_the_seed() -> None:
    first, again, other = (general.split(30, 5, 10, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_as_a_task() -> None:
    data = load_task(GeneralConfig(name="general", n_train=30, n_val=5, n_test=10))
    assert (data.kind, data.metric, data.labels) == ("text", "log_likelihood", ())
    assert [len(part) for part in (data.train, data.val, data.test)] == [30, 5, 10]
    scores = data.score(data.test[:2], ["[2.0, 4, 10]", "[6.0, 4, 10]"])
    assert scores.each == [-0.5, -1.5]
    assert scores.means == pytest.approx(
        {"log_likelihood": -1.0, "perplexity": math.e, "bits_per_byte": 8 / 20 / math.log(2)}
    )


def test_more_than_there_is() -> None:
    with pytest.raises(TaskError, match=r"task\.n_test=100000: its topics have only \d+ passages"):
        general.split(1, 1, 100_000)


def test_what_a_module_says_of_itself(tmp_path) -> None:
    file = tmp_path / "module.py"
    for source, docstring in {
        '#!/bin/python\n# -*- coding: latin-1 -*-\n\n"""One.\n\n    Two.\n    """\nx = 1\n': "One.\n\nTwo.",
        'x = 1\n"""No docstring."""\n': "",
        'b"bytes"\n': "",
        "": "",
    }.items():
        file.write_text(source)
        assert general.docstring(file) == docstring


def test_long_paragraphs_are_cut_at_the_ends_of_lines() -> None:
    lines = [f"line {i} " + "x" * 90 for i in range(40)]
    passages = list(general.joined(["head", *general.pieces("\n".join(lines)), "tail"]))
    assert all(len(text) <= general.LONGEST for text in passages)
    assert "\n".join(passages).split() == ["head", *" ".join(lines).split(), "tail"]
