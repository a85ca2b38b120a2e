"""Replay: exact shares, an order that is a function of the place, and rows of any kind in one batch."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.config.identity import key
from experiments.config.schema import DataConfig, ModelConfig
from experiments.data import replay
from experiments.data.batch import IGNORED, indices
from experiments.data.encode import Encoder
from experiments.data.findings import DataError
from experiments.data.replay import Mixture
from experiments.models.load import load_model
from experiments.objectives import replayed_objective
from experiments.objectives.classification import Classification
from experiments.objectives.responses import Responses
from experiments.objectives.token_loss import token_loss_sum
from experiments.tasks.base import Example, TaskData, TaskError
from experiments.tasks.metrics import classification, exact_match
from tests.support.runs import config, directory, metrics, overrides, own_cache_and_torch_settings, run, words  # noqa: F401

SHARES = st.fractions(0, 1, max_denominator=20).filter(lambda share: share < 1)
MIXTURES = st.builds(
    Mixture,
    st.integers(1, 9),
    st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple),
    SHARES,
    st.integers(0, 3),
)


def source_of(mixture: Mixture, row: int) -> int:
    """0: the task; from 1: the sources."""
    ends = [mixture.n_task]
    for n in mixture.n_sources:
        ends.append(ends[-1] + n)
    return next(i for i, end in enumerate(ends) if row < end)


@given(MIXTURES, st.integers(1, 6), st.integers(0, 12))
def test_shares_are_exact_after_every_step(mixture: Mixture, batch_size: int, steps: int) -> None:
    drawn = [row for step in range(steps) for row in mixture.indices(step, batch_size)]
    counts = [sum(source_of(mixture, row) == i for row in drawn) for i in range(1 + len(mixture.n_sources))]
    assert counts == mixture.counts(len(drawn))
    assert sum(counts[1:]) == int(len(drawn) * mixture.share)
    assert max(counts[1:]) - min(counts[1:]) <= 1  # the sources take turns


@given(MIXTURES, st.integers(1, 6))
def test_the_order_is_a_function_of_the_place_alone(mixture: Mixture, batch_size: int) -> None:
    """So a resumed run draws the same, and micro-batches or another batch size see the same stream."""
    stream = [mixture.row(place) for place in range(5 * batch_size)]
    assert [row for step in range(5) for row in mixture.indices(step, batch_size)] == stream
    assert mixture.indices(4, batch_size) == stream[4 * batch_size :]


@given(MIXTURES)
def test_task_and_sources_each_come_in_epochs(mixture: Mixture) -> None:
    stream = [mixture.row(place) for place in range(400)]
    start = 0
    for n, i in zip((mixture.n_task, *mixture.n_sources), range(9)):
        own = [row - start for row in stream if source_of(mixture, row) == i]
        for epoch in range(len(own) // n):
            assert sorted(own[epoch * n : (epoch + 1) * n]) == list(range(n))
        start += n


@given(st.integers(1, 30), st.integers(0, 9), st.integers(1, 8), st.integers(0, 20))
def test_without_replay_the_order_is_that_of_the_task(n: int, seed: int, batch_size: int, step: int) -> None:
    assert Mixture(n, (), Fraction(0), seed).indices(step, batch_size) == indices(step, batch_size, n, seed)


def test_a_decimal_share_is_taken_as_written() -> None:
    """0.29 · 100 is 28.999… in binary."""
    made = replay.load(DataConfig(replay=0.29, replay_from=["general"]), task("generate"))
    assert made.mixture(5, 0).counts(100) == [71, 29]


def task(kind: Any, train: Any = None, test: Any = ()) -> TaskData:
    train = train or [Example(text=f"{i} lamp?", completion="ab"[i % 2]) for i in range(6)]
    labels = tuple(sorted({e.completion for e in train})) if kind == "classify" else ()
    scorer = classification if labels else exact_match
    return TaskData("made", kind, train, [], list(test), labels, "", {}, "exact_match", scorer)


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_texts_answers_and_labels_in_one_batch_of_a_decoder(tmp_path: Path) -> None:
    loaded = load_model(ModelConfig(name="tiny"), dtype=torch.float32, device=torch.device("cpu"))
    objective = Responses(Encoder(loaded.tokenizer, 40, front=(7, 8)))
    data = task("generate")
    labelled = write(tmp_path / "labels.jsonl", {"text": "good", "label": "pos"}, {"text": "bad", "label": "neg"})
    earlier = write(tmp_path / "earlier.jsonl", {"prompt": "2 + 2", "completion": "4"})
    made = replay.load(DataConfig(replay=0.5, replay_from=["general", labelled, earlier]), data)
    assert [source.kind for source in made.sources] == ["text", "classify", "generate"]
    rows = objective.rows(data.train)
    for source in made.sources:
        rows += replayed_objective(objective, source.kind).rows(source.examples)
    assert len(rows) == 6 + 300 + 2 + 1
    order = made.mixture(len(data.train), seed=0)
    batch = objective.collate([rows[i] for i in order.indices(0, 8)], torch.device("cpu"))
    assert batch.inputs["input_ids"].shape == batch.labels.shape == (8, 40)
    text = rows[6]
    assert text.prompt[:2] == [7, 8]
    assert loaded.tokenizer.decode([*text.prompt[2:], *text.response]) == made.sources[0].examples[0].text[:38]
    (single,) = objective.collate([text], torch.device("cpu")).labels.tolist()
    assert single == [IGNORED] * 2 + text.response  # every token after the trained prompt
    assert loaded.tokenizer.decode(rows[306].response, skip_special_tokens=True) == "pos"
    loss = objective.loss_sum(loaded.model, batch)
    assert torch.isfinite(loss)
    assert loss > 0


def test_what_the_result_says(tmp_path: Path) -> None:
    earlier = write(tmp_path / "earlier.jsonl", {"prompt": "2 + 2", "completion": "4"})
    made = replay.load(DataConfig(replay=0.1, replay_from=["general", earlier]), task("generate"))
    said = made.result(steps=15, batch_size=8)
    assert said is not None
    assert (said["share"], said["n_task"]) == (0.1, 108)
    assert {name: (one["kind"], one["n_examples"], one["n_drawn"]) for name, one in said["sources"].items()} == {
        "general": ("text", 300, 6),
        earlier: ("generate", 1, 6),
    }


def test_nothing_is_replayed_by_default() -> None:
    made = replay.load(DataConfig(), task("generate"))
    assert (made.sources, made.sha256, made.result(10, 8)) == ((), "", None)
    assert made.mixture(6, 3).indices(2, 4) == indices(2, 4, 6, 3)


def test_another_task_with_its_fields() -> None:
    one = replay.source("general task.n_train=7 task.seed=3")
    assert (one.kind, len(one.examples)) == ("text", 7)
    assert one.sha256 != replay.source("general task.n_train=7").sha256


def test_a_head_learns_its_own_labels_alone(tmp_path: Path) -> None:
    data = task("classify")
    tokenizer = load_model(ModelConfig(name="tiny"), dtype=torch.float32, device=torch.device("cpu")).tokenizer
    head = Classification(Encoder(tokenizer, 20), data.labels)
    with pytest.raises(TaskError, match=r"general: its examples are of the kind 'text', .* learns 'classify' alone"):
        replay.load(DataConfig(replay=0.1), data, head)
    other = write(tmp_path / "other.jsonl", {"text": "x", "label": "a"}, {"text": "y", "label": "z"})
    with pytest.raises(TaskError, match=r"label 'z' is none of the 2 labels of task=made"):
        replay.load(DataConfig(replay=0.1, replay_from=[other]), data, head)
    fits = write(tmp_path / "fits.jsonl", {"text": "x", "label": "a"}, {"text": "y", "label": "b"})
    made = replay.load(DataConfig(replay=0.1, replay_from=[fits]), data, head)
    (source,) = made.sources
    assert [row.label for row in replayed_objective(head, source.kind).rows(source.examples)] == [0, 1]


def test_a_source_that_holds_a_test_prompt_is_refused(tmp_path: Path) -> None:
    test = [Example(text="What is it?", completion="x", place="t.jsonl:4")]
    leaky = write(
        tmp_path / "leaky.jsonl", {"prompt": "a", "completion": "b"}, {"prompt": "What  is it?", "completion": "c"}
    )
    with pytest.raises(TaskError, match=r"leaky\.jsonl:2 has the prompt of t\.jsonl:4, on which task=made is measured"):
        replay.load(DataConfig(replay=0.1, replay_from=[leaky]), task("generate", test=test))


def test_sources_that_cannot_be_replayed(tmp_path: Path) -> None:
    broken = write(tmp_path / "broken.jsonl", {"prompt": "a", "completion": "b"}, {"prompt": "a"}, 5)
    for entries, message in (
        ([], "names nothing to replay"),
        ([broken], r"2 records cannot be used, first .*broken\.jsonl:2: .*data check .*broken\.jsonl"),
        ([str(tmp_path / "absent.jsonl")], r"absent\.jsonl: cannot be read"),
    ):
        with pytest.raises(TaskError, match=message):
            replay.load(DataConfig(replay=0.1, replay_from=entries), task("generate"))


def test_the_key_of_a_run_knows_what_is_replayed(tmp_path: Path) -> None:
    file = words(tmp_path / "more.jsonl", 4)
    given = overrides(tmp_path, "data.replay=0.2", f"data.replay_from=[{file}]")
    before = key(config(*given))
    assert before == key(config(*given)) != key(config(*given, "data.replay=0.1"))
    words(file, 5)
    assert key(config(*given)) != before
    plain = overrides(tmp_path)
    assert key(config(*plain)) == key(config(*plain, "data.replay_from=[ha_json]"))  # nothing of it is replayed


class Stopped(Exception):
    pass


def test_a_run_that_was_cut_off_goes_on_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("data.replay=0.4", "optim.checkpoint_every=1", "forgetting.enabled=false")
    whole = config(*overrides(tmp_path, *given))
    result = run(whole)
    assert result["data"]["replay"]["n_task"] == 10
    assert result["data"]["replay"]["sources"]["general"]["n_drawn"] == 6
    assert result["data"]["checks"]["leak"] == 0
    cut = config(*overrides(tmp_path, *given, f"out={tmp_path / 'cut'}"))

    def halt(model: Any, batch: Any) -> Any:
        if len((directory(cut) / "metrics.jsonl").read_text().splitlines()) == 2:
            raise Stopped
        return token_loss_sum(model, batch)

    with monkeypatch.context() as patch:
        patch.setattr("experiments.objectives.language_modelling.token_loss_sum", halt)
        with pytest.raises(Stopped):
            run(cut)
    run(cut)
    assert metrics(directory(cut)) == metrics(directory(whole))


def test_a_leak_stops_a_run_before_it_trains(tmp_path: Path) -> None:
    train, test = words(tmp_path / "train.jsonl", 8), words(tmp_path / "test.jsonl", 3)
    given = (f"task.test={test}", "task.n_test=null", "task.n_val=2", "forgetting.enabled=false")
    with pytest.raises(DataError, match=r"leak: .*test\.jsonl:\d and .*train\.jsonl:\d"):
        run(config(*overrides(tmp_path, *given, file=train)))
    result = run(config(*overrides(tmp_path, *given, "data.check=warn", file=train)))
    assert result["data"]["checks"]["leak"] >= 3
    result = run(config(*overrides(tmp_path, *given, "data.check=off", file=train)))
    assert result["data"]["checks"] == {}
