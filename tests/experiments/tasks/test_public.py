"""Public tasks on a few rows of their own columns: read from files and as from the hub, split, scored, and refused."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("hydra", reason="needs the extra `experiments`")

from experiments.config.tasks import PUBLIC as ABOUT
from experiments.config.tasks import TASKS, PublicConfig
from experiments.data.gate import check
from experiments.tasks import load_task
from experiments.tasks.base import TaskData, TaskError
from experiments.tasks.public import rows as rows_module
from experiments.tasks.public.table import PUBLIC

N = 24  # rows of each split
NAMES = "ada bob cid dot eve fay gus hal ivy jon kim lea mia ned oda pam quin ron sue tom uma vic wes zoe".split()  # noqa: SIM905


def letters(i: int, n: int) -> dict[str, list[str]]:
    return {"text": [f"thing {i} {k}" for k in range(n)], "label": ["A", "B", "C", "D", "E"][:n]}


def meaning(i: int) -> str:
    return f"name[Inn {NAMES[i % 24]} {i}], eatType[pub], customer rating[{i % 5} out of 5], near[The Bakers]"


# A row of each dataset, in its own columns; `split` tells apart what is in which.
ROWS: dict[str, Any] = {
    "meta-math/MetaMathQA": lambda i, split: {
        "type": ("GSM_Rephrased", "MATH_AnsAug")[i % 2],
        "query": f"{NAMES[i]} has {i} eggs and finds {i + 3}. How many now, in {split}?",
        "original_question": f"Q{i} of train?",
        "response": f"{i} + {i + 3} = {2 * i + 3}. The answer is: {2 * i + 3}",
    },
    "openai/gsm8k": lambda i, split: {
        "question": f"Q{i} of {split}?",
        "answer": f"It is <<{i}+1={i + 1}>>{i + 1}.\n#### {i + 1}",
    },
    "google/boolq": lambda i, split: {
        "question": f"is {NAMES[i]} tall in {split}",
        "passage": f"{NAMES[i]} of {split} is {150 + i} cm tall.",
        "answer": i % 2 == 0,
    },
    "ybisk/piqa": lambda i, split: {
        "goal": f"open jar {i} of {split}", "sol1": f"turn the lid {i}", "sol2": f"paint the lid {i}", "label": i % 2
    },
    "allenai/social_i_qa": lambda i, split: {
        "context": f"{NAMES[i]} gave a gift in {split}.", "question": "How would others feel?",
        "answerA": f"glad {i}", "answerB": f"angry {i}", "answerC": f"tired {i}", "label": str(1 + i % 3),
    },
    "Rowan/hellaswag": lambda i, split: {
        "ind": i, "activity_label": "Baking", "ctx_a": f"{NAMES[i]} of {split} kneads dough.", "ctx_b": "then she",
        "ctx": "", "endings": [f"bakes it {i} [substeps] now.", f"eats it {i}.", f"sells it {i}.", f"flies {i}."],
        "source_id": f"activity~{split}{i}", "split": split, "split_type": "indomain", "label": str(i % 4),
    },
    "allenai/winogrande": lambda i, split: {
        "sentence": f"The cup {i} of {split} did not fit into the bag because the _ was too small.",
        "option1": f"cup {i}", "option2": f"bag {i}", "answer": str(1 + i % 2),
    },
    "allenai/ai2_arc": lambda i, split: {
        "id": f"{split}{i}", "question": f"Which of {i} is a fruit, {NAMES[i]} of {split}?", "choices": letters(i, 4),
        "answerKey": "ABCD"[i % 4],
    },
    "allenai/openbookqa": lambda i, split: {
        "id": f"{split}{i}", "question_stem": f"The sun warms {NAMES[i]} of {split} by", "choices": letters(i, 4),
        "answerKey": "ABCD"[i % 4],
    },
    "cais/mmlu": lambda i, split: {
        "question": f"What is {i} in {split}?", "subject": ("college_biology", "virology")[i % 2],
        "choices": [f"one {i}", f"two {i}", f"three {i}", f"four {i}"], "answer": i % 4,
    },
    "allenai/scitldr": lambda i, split: {
        "source": [f"We study {NAMES[i]} {i}.", f"It works in {split}."], "source_labels": [0, 1],
        "rouge_scores": [0.1, 0.2], "paper_id": f"{split}-{i}",
        "target": [f"{NAMES[i]} works."] if split == "train" else [f"{NAMES[i]} works.", f"It does, {NAMES[i]}."],
    },
    "tuetschek/e2e_nlg": lambda i, split: {
        "meaning_representation": meaning({"train": 0, "validation": 100, "test": 200}[split] + i // 2),
        "human_reference": f"Sentence {i} about the inn.",
    },
    "xlangai/spider": lambda i, split: {
        "db_id": f"shop{i % 4}" if split == "train" else "zoo",
        "question": f"How many have more than {i}?", "query_toks": [], "question_toks": [],
        "query": f"SELECT count(*) FROM {'item' if split == 'train' else 'pet'} WHERE n > {i}",
    },
    "allenai/tulu-3-sft-mixture": lambda i, split: {
        "id": f"t{i}", "source": ("ai2/a", "ai2/b")[i % 2],
        "messages": [{"role": "user", "content": f"Say {i}."}, {"role": "assistant", "content": f"Here is {i}."}],
    },
}  # fmt: skip
PAIRS = {"mrpc": ("sentence1", "sentence2"), "qqp": ("question1", "question2"), "mnli": ("premise", "hypothesis"),
         "qnli": ("question", "sentence"), "rte": ("sentence1", "sentence2"), "wnli": ("sentence1", "sentence2"),
         "stsb": ("sentence1", "sentence2"), "cola": ("sentence",), "sst2": ("sentence",)}  # fmt: skip


def glue_row(subset: str, i: int, split: str) -> dict[str, Any]:
    classes = {"mnli": 3}.get(subset, 2)
    texts = {column: f"{column} {NAMES[i]} {i} of {split}" for column in PAIRS[subset]}
    return {**texts, "label": round(i / 5, 2) if subset == "stsb" else i % classes, "idx": i}


def row(hub: str, subset: str | None, i: int, split: str) -> dict[str, Any]:
    return (
        glue_row(str(subset), i, split)
        if hub == "nyu-mll/glue"
        else ROWS[hub](i, f"{subset or ''} {split}".strip() if hub == "allenai/ai2_arc" else split)
    )


def sources(name: str) -> list[Any]:
    own = PUBLIC[name]
    return [s for member in own.members for s in sources(member)] or [
        *own.splits.train,
        *own.splits.val,
        *own.splits.test,
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every dataset in its own columns, in the hub's layout."""
    for name in PUBLIC:
        for source in sources(name):
            into = tmp_path / source.hub.rpartition("/")[2] / (source.subset or "")
            into.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(row(source.hub, source.subset, i, source.split)) for i in range(N)]
            (into / f"{source.split}.jsonl").write_text("\n".join(lines) + "\n")
    for name, table in [*((f"shop{i}", "item") for i in range(4)), ("zoo", "pet")]:
        (tmp_path / "database" / name).mkdir(parents=True)
        with closing(sqlite3.connect(tmp_path / "database" / name / f"{name}.sqlite")) as connection, connection:
            connection.execute(f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, n INTEGER)")
            connection.executemany(f"INSERT INTO {table}(n) VALUES (?)", [(i,) for i in range(30)])
    return tmp_path


def loaded(name: str, folder: Path, **more: Any) -> TaskData:
    return load_task(PublicConfig(name, **{"path": str(folder), "n_val": 8} | more))


def gold(data: TaskData) -> list[str]:
    if data.kind == "respond":
        return ["[3.0, 2, 9]"] * len(data.test)
    return [example.completion for example in data.test]


def test_the_tables_have_the_same_tasks() -> None:
    assert set(ABOUT) == set(PUBLIC) <= set(TASKS)
    assert all(TASKS.about(TASKS[name]) == about for name, about in ABOUT.items())
    assert all(each.columns and each.licence and each.protocol for each in PUBLIC.values())


METRICS = {"glue_cola": "mcc", "glue_stsb": "pearson", "glue_mrpc": "f1", "glue_qqp": "f1", "gsm8k": "number_match",
           "scitldr": "rouge_l", "e2e": "bleu", "spider": "execution_accuracy", "tulu3": "log_likelihood"}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_rows_of_its_columns_become_a_task(name: str, folder: Path) -> None:
    data = loaded(name, folder, n_test=8 if name in ("tulu3", "commonsense") else None)
    assert data.name == name and data.metric == METRICS.get(name, "accuracy")
    assert data.train and len(data.val) >= 8 and len(data.test) >= 8  # and so there are demonstrations for few_shot
    scores = data.score(data.test, gold(data))
    if data.ceiling is not None:
        assert scores.means[data.metric] == pytest.approx(data.ceiling, abs=1e-6)
    assert check(data, near_duplicates=False).of("error") == []
    assert all(example.place for example in data.train + data.val + data.test)
    assert data.sha256 == loaded(name, folder, n_test=8 if name in ("tulu3", "commonsense") else None).sha256


@pytest.mark.parametrize("name", PUBLIC)
def test_a_draw_leaves_the_test_alone(name: str, folder: Path) -> None:
    config = PublicConfig(name, path=str(folder), n_train=6, n_val=8, n_test=8)
    undrawn, draws = load_task(config), [load_task(config, draw=draw) for draw in (0, 1)]
    assert {data.test_sha256 for data in draws} == {undrawn.test_sha256}
    assert len({data.sha256 for data in draws}) == 2 and all(len(data.train) == 6 for data in draws)
    assert all(check(data, near_duplicates=False).of("error") == [] for data in draws)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_hub_is_asked_for_its_ids(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(hub: str, subset: str | None, split: str, revision: str | None = None) -> Any:
        asked.append((hub, subset, split, revision))
        return Listed([row(hub, subset, i, split) for i in range(N)])

    library = SimpleNamespace(load_dataset=load_dataset, __version__="5")
    monkeypatch.setattr(rows_module, "library", lambda: library)
    more = {"databases": str(folder / "database")} if name == "spider" else {}
    sizes = {"n_val": 8, "n_test": 8}
    data, local = load_task(PublicConfig(name, **sizes, **more)), loaded(name, folder, n_test=8)  # type: ignore[arg-type]
    assert data.sha256 == local.sha256
    assert sorted(asked, key=str) == sorted(((s.hub, s.subset, s.split, s.revision) for s in sources(name)), key=str)


class Listed(list[Any]):
    def select(self, indices: list[int]) -> Listed:
        return Listed([self[i] for i in indices])


# ---------------------------------------------------------------- what is in the examples


def test_gsm8k_trains_on_no_rephrasing_of_a_validation_question(folder: Path) -> None:
    data = loaded("gsm8k", folder)
    assert data.test[0].completion.endswith("#### 1") and "<<" not in data.test[0].completion
    assert {e.part for e in data.train} == {"GSM_Rephrased", "MATH_AnsAug"}
    assert len(data.train) == N - 8 and data.sources["left out"] == "8 of train that is held"
    assert data.score(data.test[:3], ["so 1", "The answer is: 2.00", "#### $4"]).each == [1, 1, 0]


def test_choices_go_on_where_the_prompt_ends(folder: Path) -> None:
    wino = loaded("winogrande", folder).test[0]
    assert wino.text.endswith("because the") and wino.continues and wino.completion == " cup 0 was too small."
    hella = loaded("hellaswag", folder).test[0]
    assert hella.text == "Baking: ada of validation kneads dough. Then she" and hella.completion == " bakes it 0 now."
    assert loaded("mmlu", folder).test[1].completion == " B" and "\nB. two 1\n" in loaded("mmlu", folder).test[1].text
    assert loaded("boolq", folder).test[0].completion == " yes"


def test_mnli_has_its_two_tests_as_parts_and_premises_as_groups(folder: Path) -> None:
    data = loaded("glue_mnli", folder)
    assert {e.part for e in data.test} == {"matched", "mismatched"} and len(data.test) == 2 * N
    assert data.labels == ("contradiction", "entailment", "neutral") and all(e.group for e in data.test)


def test_glue_reports_what_its_papers_do(folder: Path) -> None:
    means = {name: loaded(f"glue_{name}", folder) for name in ("mrpc", "stsb")}
    assert {"f1", "accuracy"} <= set(means["mrpc"].score(means["mrpc"].test, gold(means["mrpc"])).means)
    assert {"pearson", "spearman"} <= set(means["stsb"].score(means["stsb"].test, gold(means["stsb"])).means)
    assert loaded("glue_mrpc", folder, metric="accuracy").metric == "accuracy"


def test_e2e_gathers_the_references_of_an_input(folder: Path) -> None:
    data = loaded("e2e", folder, n_val=None)
    assert len(data.test) == N // 2 and all(len(e.references) == 2 for e in data.test)
    assert data.test[0].text.startswith("name : Inn ") and " | customer rating : " in data.test[0].text
    assert len(data.train) == N


def test_commonsense_is_eight_sets_in_parts(folder: Path) -> None:
    data = loaded("commonsense", folder, n_test=16)
    assert {e.part for e in data.test} == set(PUBLIC["commonsense"].members) and len(data.test) == 16
    means = data.score(data.test, [e.completion if e.part == "boolq" else "" for e in data.test]).means
    assert means == {"accuracy": 1 / 8, "macro_accuracy": 1 / 8}


def test_the_files_of_llm_adapters_are_read(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = [
            {
                "instruction": f"Please answer, {split}: is {i} even?\n\nAnswer format: true/false", "input": "",
                "output": f"the correct answer is {str(i % 2 == 0).lower()}", "answer": str(i % 2 == 0).lower(),
            }
            for i in range(N)
        ]  # fmt: skip
        (tmp_path / f"{split}.json").write_text(json.dumps(rows))
    data = loaded("boolq", tmp_path)
    assert data.test[1].choices == ("the correct answer is true", "the correct answer is false")
    assert data.test[1].completion == "the correct answer is false"


def test_commonsense_of_llm_adapters_own_folders(tmp_path: Path) -> None:
    for name in ("boolq", "piqa", "social_i_qa", "hellaswag", "winogrande", "ARC-Easy", "ARC-Challenge", "openbookqa"):
        (tmp_path / name).mkdir()
        for split in ("train", "test"):
            rows = [
                {
                    "instruction": f"{name} {split} {i}: which?\n\nAnswer format: answer1/answer2", "input": "",
                    "output": f"the correct answer is answer{1 + i % 2}", "answer": f"answer{1 + i % 2}",
                }
                for i in range(N)
            ]  # fmt: skip
            (tmp_path / name / f"{split}.json").write_text(json.dumps(rows))
    data = loaded("commonsense", tmp_path, n_val=8)
    assert len(data.test) == 8 * N and len(data.val) == 8 and len(data.train) == 8 * (N - 1)
    assert {e.part for e in data.train} == set(PUBLIC["commonsense"].members)


def test_files_of_ones_own_need_no_hub_for_validation(folder: Path) -> None:
    own = {part: str(folder / "ai2_arc" / "ARC-Easy" / f"{part}.jsonl") for part in ("train", "test")}
    data = load_task(PublicConfig("arc_easy", n_val=4, **own))  # type: ignore[arg-type]
    assert (len(data.train), len(data.val), len(data.test)) == (N - 4, 4, N)


def test_spider_is_executed_on_the_database_of_each_question(folder: Path) -> None:
    data = loaded("spider", folder)
    assert data.test[0].text.startswith("pet(id, n)\nQuestion: ") and {e.group for e in data.test} == {"zoo"}
    said = ["SELECT COUNT(id) FROM pet WHERE n >= 1", "SELECT 1 FROM", "SELECT count(*) FROM item"]
    scores = data.score(data.test[:3], said)
    assert scores.each == [1, 0, 0] and scores.means["valid_sql"] == pytest.approx(1 / 3)


def test_gold_queries_that_do_not_run_are_left_out_and_counted(folder: Path) -> None:
    file = folder / "spider" / "validation.jsonl"
    first, *others = file.read_text().splitlines()
    broken = json.dumps(json.loads(first) | {"query": "SELECT gone FROM pet"})
    file.write_text("\n".join([broken, *others]) + "\n")
    data = loaded("spider", folder)
    assert len(data.test) == N - 1 and data.sources["gold queries that do not run within the limits"] == "1"


def test_a_database_may_be_a_script(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTATUNE_CACHE", str(folder / "cache"))
    (folder / "database" / "zoo" / "zoo.sqlite").unlink()
    script = folder / "database" / "zoo" / "schema.sql"
    script.write_text("CREATE TABLE pet(id INTEGER, n INTEGER); INSERT INTO pet VALUES (1, 99);")
    other = folder / "moved"
    (folder / "database").rename(other)
    data = loaded("spider", folder, databases=str(other))
    assert data.score(data.test, gold(data)).means["execution_accuracy"] == 1


def test_tulu_is_scored_by_the_loss_of_the_last_turn(folder: Path) -> None:
    data = loaded("tulu3", folder, n_test=8)
    assert (data.kind, data.ceiling) == ("respond", None)
    assert data.score(data.test[:1], ["[3.0, 2, 9]"]).each == [-1.5]


# ---------------------------------------------------------------- files of every kind, and what is wrong with them


@pytest.mark.parametrize("ending", ["json", "csv", "tsv", "parquet"])
def test_files_of_other_kinds(ending: str, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path / f"{split}.{ending}", [glue_row("mrpc", i, split) for i in range(N)])
    data = loaded("glue_mrpc", tmp_path)
    assert data.labels == ("equivalent", "not_equivalent") and len(data.test) == N
    assert data.test[1].completion == "equivalent" and data.test[1].text_pair == "sentence2 bob 1 of validation"


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    if file.suffix == ".json":
        file.write_text(json.dumps(rows))
    elif file.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        pytest.importorskip("datasets")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), file)
    else:
        between = "," if file.suffix == ".csv" else "\t"
        lines = [between.join(rows[0]), *(between.join(map(str, row.values())) for row in rows)]
        file.write_text("\n".join(lines) + "\n")


def test_single_files_and_splits_of_other_names(tmp_path: Path) -> None:
    files = {part: tmp_path / f"{part}.jsonl" for part in ("mine", "yours")}
    for name, file in files.items():
        file.write_text("".join(json.dumps(glue_row("rte", i, name)) + "\n" for i in range(N)))
    data = load_task(PublicConfig("glue_rte", train=str(files["mine"]), test=str(files["yours"]), n_val=4))
    assert len(data.test) == N and len(data.train) == N - 4
    (tmp_path / "dev.jsonl").write_text(files["yours"].read_text())
    files["mine"].rename(tmp_path / "train.jsonl")
    assert loaded("glue_rte", tmp_path, n_val=4).sha256 == data.sha256


def test_what_save_to_disk_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    parts = {s: datasets.Dataset.from_list([glue_row("sst2", i, s) for i in range(N)]) for s in ("train", "validation")}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "glue" / "sst2"))
    assert len(loaded("glue_sst2", tmp_path).test) == N


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 2}, r"validation.jsonl:1: column 'label' must be 0 to 1 or of \['not_equivalent', 'eq.*\], not 2$"),
        ({"label": -1}, r"validation.jsonl:1: column 'label' .* not -1; take a split that has its answers"),
        ({"label": None}, r"validation.jsonl:1: column 'label' .* take a split that has its answers"),
        ({"sentence2": ""}, r"validation.jsonl:1: column 'sentence2' must be a text that is not empty, not ''"),
        ({"sentence2": 7}, r"validation.jsonl:1: column 'sentence2' must be a text"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_named(change: dict[str, Any], message: str, folder: Path) -> None:
    (folder / "glue" / "mrpc" / "validation.jsonl").write_text(json.dumps(glue_row("mrpc", 0, "x") | change) + "\n")
    with pytest.raises(TaskError, match=message):
        loaded("glue_mrpc", folder)


def test_files_that_are_wrong_are_named(folder: Path) -> None:
    file = folder / "glue" / "mrpc" / "validation.jsonl"
    for content, message in (
        ('{"sentence1": "a"}', r"validation.jsonl:1: no column 'sentence2'; there are: sentence1"),
        ("[1]", r"validation.jsonl:1: a row is a JSON object, not list"),
        ("{", r"validation.jsonl:1: not a JSON value"),
        (" ", r"validation.jsonl: the file is empty"),
    ):
        file.write_text(content)
        with pytest.raises(TaskError, match=message):
            loaded("glue_mrpc", folder)
    file.write_text("".join(json.dumps(glue_row("mrpc", i, "x")) + "\n" for i in range(N)))
    with pytest.raises(TaskError, match=r"task.path=absent: there is no such directory"):
        loaded("glue_mrpc", Path("absent"))
    with pytest.raises(
        TaskError, match=r"no file of nyu-mll/glue/mrpc\[train\] in it; it may be glue/mrpc/train.jsonl"
    ):
        loaded("glue_mrpc", folder / "database")
    with pytest.raises(TaskError, match=r"task.metric=bleu: for task=glue_mrpc there are: "):
        loaded("glue_mrpc", folder, metric="bleu")
    with pytest.raises(TaskError, match=r"task=commonsense has 8 sets"):
        loaded("commonsense", folder, train="a.jsonl")


@pytest.mark.parametrize(
    ("name", "hub", "change", "message"),
    [
        ("gsm8k", "gsm8k/main/test", {"answer": "It is 3."}, r":1: column 'answer' has no ####"),
        (
            "winogrande",
            "winogrande/winogrande_xl/validation",
            {"sentence": "No gap."},
            r":1: column 'sentence' has no gap",
        ),
        ("arc_easy", "ai2_arc/ARC-Easy/test", {"choices": ["a"]}, r":1: column 'choices' must have 'text' and 'label'"),
        ("arc_easy", "ai2_arc/ARC-Easy/test", {"answerKey": "Z"}, r":1: column 'answerKey' must be"),
        ("mmlu", "mmlu/all/test", {"choices": ["a", "b"]}, r":1: column 'choices' must have 4 texts, not 2"),
        ("e2e", "e2e_nlg/test", {"meaning_representation": "name The Inn"}, r":1: .* is no list of slot\[value\]"),
        ("glue_stsb", "glue/stsb/validation", {"label": 7}, r":1: column 'label' must be from 0 to 5, not 7"),
        ("glue_stsb", "glue/stsb/validation", {"label": "x"}, r":1: column 'label' must be a number, not 'x'"),
        ("spider", "spider/validation", {"db_id": "gone"}, r":1: no database 'gone' in task.databases="),
        ("tulu3", "tulu-3-sft-mixture/train", {"messages": []}, r":1: field 'messages' must be a list of 2 turns"),
    ],
)
def test_a_wrong_row_of_each_kind(name: str, hub: str, change: dict[str, Any], message: str, folder: Path) -> None:
    file = folder / f"{hub}.jsonl"
    first, *others = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps(json.loads(first) | change), *others]) + "\n")
    with pytest.raises(TaskError, match=message):
        loaded(name, folder, n_test=8)


def test_an_empty_database_tells_nothing(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "database" / "zoo" / "zoo.sqlite")) as connection, connection:
        connection.execute("DELETE FROM pet")
    with pytest.raises(TaskError, match=r"zoo.sqlite has no rows, so that execution tells nothing"):
        loaded("spider", folder)
    with pytest.raises(TaskError, match=r"task=spider executes queries: task.databases="):
        load_task(PublicConfig("spider"))


def test_two_answers_to_a_prompt_and_leaks_are_left_out_and_counted(folder: Path) -> None:
    file = folder / "glue" / "sst2" / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    held = json.loads((folder / "glue" / "sst2" / "validation.jsonl").read_text().splitlines()[0])
    rows += [rows[0], rows[1] | {"label": 0}, held]
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    data = loaded("glue_sst2", folder, n_val=0)
    assert len(data.train) == N - 1
    assert data.sources["left out"] == "1 of train that is held; 3 of train that is there twice, or has two answers"


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *((name, "bitfit") for name in ("hellaswag", "tulu3", "glue_mnli", "gsm8k")),
        *((name, "few_shot") for name in ("hellaswag", "tulu3", "spider")),
    ],
)
def test_a_run_on_one_of_each_kind(name: str, method: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.runs import config, run

    monkeypatch.setenv("DELTATUNE_CACHE", str(folder / "cache"))
    made = config(
        *("model=tiny", f"task={name}", f"task.path={folder}", "task.n_train=8", "task.n_val=2", "task.n_test=3"),
        *(
            "optim=quick",
            "optim.steps=2",
            f"method={method}",
            "eval.max_new_tokens=3",
            "device=cpu",
            f"out={folder}/runs",
        ),
        *("forgetting.enabled=false", "data.near_duplicates=false"),
    )
    result = run(made)
    assert next(iter(result["quality"])) == METRICS.get(name, "accuracy") and len(result["scores"]) == result["n_test"]
    assert result["data"]["test_sha256"] and ("ceiling" in result) == (name != "tulu3")


def test_a_public_task_is_a_probe_of_forgetting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.runs import config, overrides, run

    monkeypatch.setenv("DELTATUNE_CACHE", str(folder / "cache"))
    probe = f"'arc_easy task.path={folder} task.n_train=4 task.n_val=2 task.n_test=6'"
    made = config(*overrides(folder, "optim.steps=2", f"forgetting.tasks=[{probe}]", "forgetting.n_examples=4"))
    (other,) = run(made)["forgetting"]["tasks"].values()
    assert other["metric"] == "accuracy" and 0 <= other["after"] <= 1
