"""Datasets of the datasets library: out of a directory, their columns renamed, their classes named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("datasets", reason="needs the extra `hub`")

import datasets

from experiments.config.tasks import HubConfig
from experiments.tasks import load_task
from experiments.tasks.base import Example, TaskError
from experiments.tasks.hub import version_of


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def reviews(path: Path, n: int = 12) -> str:
    """A dataset whose columns are no record form and whose labels are numbers with names."""
    features = datasets.Features(
        {
            "review": datasets.Value("string"),
            "stars": datasets.ClassLabel(names=["bad", "good"]),
            "lang": datasets.Value("string"),
        }
    )
    rows = {
        "review": [f"no {i}" for i in range(n)],
        "stars": [i % 2 for i in range(n)],
        "lang": ["en", "de"] * (n // 2),
    }
    whole = datasets.Dataset.from_dict(rows, features=features)
    parts = {"train": whole.select(range(n - 4)), "test": whole.select(range(n - 4, n))}
    datasets.DatasetDict(parts).save_to_disk(str(path))
    return str(path)


FIELDS = {"text": "review", "label": "stars"}


def task(path: str, **more: Any) -> HubConfig:
    return HubConfig("hub", path=path, **{"n_val": 2, "n_test": 2} | more)


def test_columns_become_fields_and_classes_their_names(tmp_path: Path) -> None:
    path = reviews(tmp_path / "reviews")
    data = load_task(task(path, test="test", n_test=None, fields=FIELDS, part="lang"))
    assert (data.kind, data.labels, data.metric) == ("classify", ("bad", "good"), "accuracy")
    assert [len(part) for part in (data.train, data.val, data.test)] == [6, 2, 4]
    assert data.test[1] == Example((), "good", text="no 9", part="de", place=f"{path}[test]:1")
    assert set(data.sources) == {f"{path}[train]", f"{path}[test]", "datasets"}


def test_a_directory_of_plain_files(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    rows = [{"prompt": f"say {i}", "completion": str(i)} for i in range(6)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_task(task(str(folder), metric="chrf"))
    assert (data.kind, data.metric) == ("generate", "chrf")
    assert sorted(e.completion for e in data.train + data.val + data.test) == list("012345")


def test_what_does_not_fit_is_named_with_split_and_row(tmp_path: Path) -> None:
    path = reviews(tmp_path / "reviews")
    with pytest.raises(TaskError, match=r"reviews\[train\]:0: no known record form"):
        load_task(task(path))
    with pytest.raises(
        TaskError, match=r"reviews\[train\]: task.fields names the column 'score'; there are: lang, rev"
    ):
        load_task(task(path, fields={"text": "review", "label": "score"}))
    with pytest.raises(TaskError, match=r"reviews\[dev\]: cannot be loaded: KeyError"):
        load_task(task(path, val="dev", fields=FIELDS))
    hidden = datasets.load_from_disk(path)["test"].map(lambda row: {"stars": -1})
    datasets.DatasetDict({"train": hidden}).save_to_disk(str(tmp_path / "hidden"))
    with pytest.raises(TaskError, match=r"hidden\[train\]:0: column 'stars' has no class"):
        load_task(task(str(tmp_path / "hidden"), fields=FIELDS))


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"absent\[train\]: cannot be loaded"):
        load_task(task(str(tmp_path / "absent")))


def test_without_the_library_its_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TaskError, match=r"pip install -c constraints.txt -e '.\[experiments,hub\]'"):
        load_task(task("anything"))


@pytest.mark.parametrize("order", [("text", "review"), ("review", "text")])
def test_a_mapping_wins_over_a_column_of_the_fields_name(tmp_path: Path, order: tuple[str, str]) -> None:
    columns = {"text": [f"other {i}" for i in range(8)], "review": [f"asked {i}" for i in range(8)]}
    rows = {**{name: columns[name] for name in order}, "label": list("abababab"), "prompt": ["p"] * 8}
    rows |= {"completion": ["c"] * 8}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows)}).save_to_disk(str(tmp_path / "made"))
    data = load_task(task(str(tmp_path / "made"), fields={"text": "review"}))
    assert data.kind == "classify" and all(e.text.startswith("asked") for e in data.train + data.val + data.test)
    data = load_task(task(str(tmp_path / "made"), fields={"prompt": "text", "completion": "review"}))
    assert data.kind == "generate" and all(e.text.startswith("other") for e in data.train + data.val + data.test)


def test_the_commit_is_where_the_rows_were_read() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    info = SimpleNamespace(download_checksums={f"hf://datasets/a/b@{commit}/train.parquet": {}})
    assert version_of(SimpleNamespace(info=info), "main") == commit
    assert version_of(SimpleNamespace(), "v1") == "v1" and version_of(SimpleNamespace(), None) == "newest"


def test_a_mapping_to_a_field_that_no_form_has_is_refused(tmp_path: Path) -> None:
    path = reviews(tmp_path / "reviews")
    with pytest.raises(TaskError, match=r"task\.fields=\{lable: …\}: no form has that field; there are: text, label"):
        load_task(task(path, fields={**FIELDS, "lable": "lang"}))
    assert load_task(task(path, fields={**FIELDS, "topic": "lang"}, part="topic")).train[0].part in ("en", "de")
