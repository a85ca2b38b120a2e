"""What is derived from the tree of a result: its keys, its columns; and that it knows every committed file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

import pytest

from benchmarks.made_up import made_up, made_up_failure, made_up_result
from experiments import ROOT
from experiments.store.files import find, read
from experiments.store.lines import Prediction, Step
from experiments.store.result import Seconds, about, plain
from experiments.store.schema import columns, columns_of, flat, keys
from experiments.support.phase_clock import PHASES

COMMITTED = find([ROOT / "experiments" / "results"])


def test_every_key_is_explained() -> None:
    listed = {key.name: key for key in keys()}
    assert all(key.type and key.description for key in listed.values())
    leaves = ("seed", "memory.peak_bytes", "forgetting.tasks.*.before", "data.replay.sources.*.n_drawn", "seconds.cost")
    assert {name: listed[name].type for name in leaves} == {
        "seed": "whole number",
        "memory.peak_bytes": "whole number",
        "forgetting.tasks.*.before": "number",
        "data.replay.sources.*.n_drawn": "whole number",
        "seconds.cost": "number",
    }
    assert listed["lr"].type == "number or null"
    assert listed["scores"].type == "list of numbers"
    assert listed["failure_kind"].type == "text or null"
    assert "file" not in listed  # where a result was read is not in the file


def test_every_key_of_a_file_is_in_the_list() -> None:
    def names(content: object, prefix: str = "") -> set[str]:
        inner = content.items() if isinstance(content, dict) else ()
        return {f"{prefix}{name}" for name in dict(inner)}.union(
            *(names(each, f"{prefix}{name}.") for name, each in inner)
        )

    listed = {key.name for key in keys()}
    free = ("config.", "quality.", "quality_by_part.", "validation.", "data.sources.", "data.checks.")
    free += ("forgetting.tasks.", "data.replay.sources.")
    for file in COMMITTED[::10]:
        content = names(json.loads(file.read_text()))
        assert {name for name in content - listed if not name.startswith(free)} == set()


def test_every_committed_file_is_read_and_written_as_it_is() -> None:
    assert len(COMMITTED) > 200
    for file in COMMITTED:
        content = json.loads(file.read_text())
        assert plain(read(file)) == content


def test_steps_and_predictions_are_explained_too() -> None:
    for shape in (Step, Prediction):
        assert all(key.description for key in keys(shape))
        assert [key.name for key in keys(shape)] == [column.name for column in columns_of(shape)]


def test_every_phase_of_a_run_has_its_key() -> None:
    assert [*PHASES, "total"] == [key.name for key in keys(Seconds)]


def test_columns_have_one_name_each_and_say_what_they_are() -> None:
    names = [column.name for column in columns()]
    assert len(set(names)) == len(names)
    assert all(column.description and column.sql in ("VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "JSON")
               for column in columns())  # fmt: skip
    assert {"score", "split", "delta_bytes", "increase_bytes", "total_s", "kl_per_token", "git_commit"} <= set(names)


def test_a_column_s_name_can_be_given_and_a_clash_is_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Part:
        n: Annotated[int, about("how many", "n_parts")]
        hidden: Annotated[int, about("of no interest", "")] = 0
        many: Annotated[dict[str, int], about("many")]
        kept: Annotated[dict[str, int], about("many, as JSON", "kept")]

    globals()["Part"] = Part
    assert [(column.name, column.sql) for column in columns_of(Part)] == [("n_parts", "BIGINT"), ("kept", "JSON")]


def test_flat_values_are_those_of_the_tree() -> None:
    result = made_up_result()
    values = flat(result)
    assert list(values) == [column.name for column in columns()]
    assert (values["score"], values["delta_bytes"], values["total_s"], values["train_s"]) == (0.25, 4096, 52.0, 42.0)
    assert (values["perplexity_before"], values["device_peak_bytes"], values["failure"]) == (20.0, None, None)
    assert values["data"] == made_up()["data"]
    failed = flat(made_up_failure(error="it broke", failure_kind="nan"))
    assert (failed["failure"], failed["failure_kind"], failed["score"], failed["split"]) == (
        *("it broke", "nan", None, "test"),
    )


def test_a_result_cannot_be_built_without_a_key() -> None:
    with pytest.raises(TypeError, match="cost"):
        Seconds(**{name: 1.0 for name in (*PHASES, "total") if name != "cost"})
    with pytest.raises(TypeError, match="nap"):
        Seconds(**dict.fromkeys((*PHASES, "total", "nap"), 1.0))
