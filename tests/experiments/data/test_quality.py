"""The data gate: what is planted is found, at its place; what is sound passes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.config.compose import task_config
from experiments.config.schema import Check
from experiments.config.tasks import PUBLIC, TASKS, GeneralConfig
from experiments.data.__main__ import Look, main
from experiments.data.encode import Encoder
from experiments.data.findings import KINDS, DataError, Findings
from experiments.data.gate import check
from experiments.data.near_duplicates import SIZE, THRESHOLD, jaccard, near_duplicates, shingles
from experiments.objectives.classification import Classification
from experiments.objectives.responses import Responses
from experiments.tasks import load_task
from experiments.tasks.base import Example, TaskData
from experiments.tasks.metrics import exact_match
from tests.support.runs import config, own_cache_and_torch_settings  # noqa: F401


def data(kind: Any = "generate", train: Any = (), val: Any = (), test: Any = ()) -> TaskData:
    labels = tuple(sorted({e.completion for e in train})) if kind == "classify" else ()
    return TaskData("made", kind, list(train), list(val), list(test), labels, "", {}, "exact_match", exact_match)


def found(findings: Findings) -> set[tuple[str, str, str | None]]:
    return {(finding.kind, finding.place, finding.other) for finding in findings.found}


SENTENCES = (
    "The ferry to the island leaves at half past seven in the morning",
    "Nobody in the village remembers who planted the old walnut tree",
    "A letter without a stamp arrived on the desk of the mayor today",
    "Seven sheep were counted on the meadow behind the broken windmill",
    "The recipe asks for two spoons of honey and a pinch of black salt",
    "Her violin was built in a cellar by a man who could not hear well",
    "Every winter the lake freezes over and children skate to school",
    "The last page of the diary was torn out before the museum bought it",
)


def records(n: int, start: int = 0) -> list[dict[str, str]]:
    """Sound records: distinct prompts, far from one another."""
    rng = random.Random(start)
    letters = "abcdefghijklmnopqrstuvwxyz"
    said = ["".join(rng.choices(letters, k=40)) for _ in range(n)]
    return [{"prompt": f"{text} {start + i}", "completion": text[::-1]} for i, text in enumerate(said)]


def write(path: Path, rows: list[Any]) -> Path:
    """A file of records; a bytes stands for a line as it is."""
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def checked(capsys: Any, *arguments: Any) -> tuple[int, list[dict[str, Any]]]:
    status = main(["check", "--json", *map(str, arguments)])
    out = capsys.readouterr().out
    return status, json.loads(out)["data"]


def test_what_is_planted_in_files_is_reported_with_file_and_line(tmp_path: Path, capsys: Any) -> None:
    train: list[Any] = records(30)
    test: list[Any] = records(12, start=100)
    train[8]["prompt"] = SENTENCES[1]
    train[20] = dict(train[3])
    train[21] = train[8] | {"prompt": SENTENCES[1].replace("walnut", "walnuts")}
    train[25] = b'{"prompt": "cut off'
    train[26] = '{"prompt": "é", "completion": "b"}'.encode("latin-1")
    train[27] = {"prompt": "no answer", "completion": " "}
    train[28] = {"prompt": "no completion"}
    test[2] = train[3] | {"completion": "something else"}
    test[5] = dict(train[11])
    test[7] = train[8] | {"prompt": SENTENCES[1].upper()}
    a, b = write(tmp_path / "x.train.jsonl", train), write(tmp_path / "x.test.jsonl", test)
    status, (report,) = checked(capsys, a, b)
    assert {(f["kind"], f["place"], f["other"]) for f in report["findings"]} == {
        ("exact_duplicate", f"{a}:21", f"{a}:4"),
        ("near_duplicate", f"{a}:22", f"{a}:9"),
        ("leak", f"{b}:3", f"{a}:4"),
        ("leak", f"{b}:6", f"{a}:12"),
        ("near_leak", f"{b}:8", f"{a}:9"),
        ("broken_line", f"{a}:26", None),
        ("not_utf8", f"{a}:27", None),
        ("empty", f"{a}:28", None),
        ("broken_line", f"{a}:29", None),
    }
    assert status == 1
    assert report["counts"] | {"broken_line": 2, "leak": 2, "mojibake": 0} == report["counts"]
    assert report["examples"] == {"train": 26, "val": 0, "test": 12}


def test_conflicting_labels_and_labels_out_of_train(tmp_path: Path, capsys: Any) -> None:
    train = [{"text": text, "label": "odd" if i % 2 else "even"} for i, text in enumerate(SENTENCES)]
    train.append({"text": f"  {SENTENCES[2]}\n", "label": "odd"})  # white space is no difference
    a = write(tmp_path / "train.jsonl", train)
    b = write(tmp_path / "test.jsonl", [{"text": "A new one", "label": "even"}, {"text": "Another", "label": "third"}])
    status, (report,) = checked(capsys, a, b)
    assert {(f["kind"], f["place"], f["other"]) for f in report["findings"]} == {
        ("conflicting_answers", f"{a}:9", f"{a}:3"),
        ("unknown_label", f"{b}:2", None),
        ("missing_label", "test", None),
    }
    assert status == 1
    assert report["labels"]["train"] == {"odd": 5, "even": 4}


def test_a_task_of_a_broken_file_is_read_to_its_end(tmp_path: Path, capsys: Any) -> None:
    rows: list[Any] = records(20)
    rows[4] = b"{"
    rows[9] = b"[]"
    rows[0] = {"text": "another form", "label": "x"}
    file = write(tmp_path / "all.jsonl", rows)
    status, (report,) = checked(capsys, "task=jsonl", f"task.train={file}")
    assert [(f["place"], f["other"]) for f in report["findings"]] == [
        (f"{file}:5", None),
        (f"{file}:10", None),
        (f"{file}:1", f"{file}:2"),  # most are of the form of line 2
    ]
    assert status == 1


def test_a_label_that_stops_the_loading_of_a_task_is_reported_with_all_else(tmp_path: Path, capsys: Any) -> None:
    train = write(tmp_path / "a.jsonl", [{"text": text, "label": "x"} for text in SENTENCES])
    test = write(tmp_path / "b.jsonl", [{"text": "new", "label": "y"}, {"text": SENTENCES[2], "label": "z"}])
    status, (report,) = checked(capsys, "task=jsonl", f"task.train={train}", f"task.test={test}")
    assert [(f["kind"], f["place"], f["other"]) for f in report["findings"] if f["severity"] == "error"] == [
        ("leak", f"{test}:2", f"{train}:3"),
        ("unknown_label", f"{test}:1", None),
        ("unknown_label", f"{test}:2", None),
    ]
    assert status == 1


FORMS = {
    "choose": {"prompt": "Which?", "choices": ["this", "that"], "answer": 1},
    "text": {"text": "All of this is learned."},
    "generate": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    "classify": {"text": "good", "label": "pos"},
}


@pytest.mark.parametrize("kind", FORMS)
def test_every_kind_of_record(kind: str, tmp_path: Path, capsys: Any) -> None:
    file = write(tmp_path / "all.jsonl", [FORMS[kind], FORMS[kind]])
    status, (report,) = checked(capsys, file, "model=tiny")
    assert (status, report["kind"]) == (0, kind)
    assert [(f["kind"], f["place"], f["other"]) for f in report["findings"]] == [
        ("exact_duplicate", f"{file}:2", f"{file}:1"),
        *([("one_class", "train", None)] if kind == "classify" else []),
    ]


def test_sound_files_pass_and_the_report_shows_them(tmp_path: Path, capsys: Any) -> None:
    train = write(tmp_path / "a_train.jsonl", records(60))
    test = write(tmp_path / "a_test.jsonl", records(20, start=100))
    other = write(tmp_path / "b.jsonl", [{"text": text, "label": "a"} for text in SENTENCES])
    assert main(["check", str(train), str(test), str(other), "model=tiny", "optim.max_length=64"]) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / 'a'}: generate, 60 train, 20 test" in " ".join(out.split())
    assert "truncated (80)" in out  # a token a byte: prompt and completion and their end have 84 or 85
    assert "tokens" in out


def test_what_cannot_be_looked_at_is_said(tmp_path: Path, capsys: Any) -> None:
    for arguments, message in (
        (["absent.jsonl"], "absent.jsonl: cannot be read"),
        (["task=nothing"], "Could not find 'task/nothing'"),
        (["task=jsonl"], "task.train"),
        ([str(write(tmp_path / "a.jsonl", [{}])), "task=ha_json"], "give a task or files, not both"),
        ([str(write(tmp_path / "b.jsonl", []))], "b.jsonl: the file is empty"),
    ):
        assert main(["check", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_the_general_texts_have_no_errors() -> None:
    assert check(load_task(GeneralConfig(name="general"))).of("error") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(TASKS) - {"general", "hub", "jsonl", *PUBLIC}))
def test_the_generated_tasks_have_no_errors(name: str) -> None:
    task = task_config(name)
    assert check(load_task(task, seed=task.seed)).of("error") == []


TEXTS = {
    "mojibake": "The café is closed".encode().decode("latin-1"),
    "replacement_character": "The caf\ufffd is closed",
    "control_character": "The cafe\x00 is closed",
    "carriage_return": "The cafe\r\nis closed",
    "normal_form": "The cafe\u0301 is closed",
    "lone_surrogate": "The caf\ud83d is closed",
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("field", ["text", "completion", "text_pair", "messages", "references", "choices"])
def test_encodings_in_every_field(kind: str, field: str) -> None:
    text = TEXTS[kind]
    values = {"messages": ({"role": "user", "content": text},), "references": (text,), "choices": (text,)}
    given: dict[str, Any] = {"text": "Is it open?", "completion": "no"} | {field: values.get(field, text)}
    assert found(check(data(train=[Example(**given)]))) == {(kind, "train#0", None)}


@pytest.mark.parametrize(
    "text", ["naïve café", "„Straße“ — 10 €", "東京は晴れ", "हिन्दी में लिखा", "Ελληνικά", "tab\tnewline\n", "🙂👍🏽"]
)
def test_sound_texts_of_any_script_are_left_alone(text: str) -> None:
    assert found(check(data(train=[Example(text=text, completion=text)]))) == set()


def test_empty_texts() -> None:
    turns = ({"role": "user", "content": " "},)
    train = [
        Example(text="", completion="a"),
        Example(text="b", completion=" "),
        Example(messages=turns, completion="c"),
    ]
    assert found(check(data(train=train))) == {("empty", f"train#{i}", None) for i in range(3)}
    assert found(check(data("text", train=[Example(text="all"), Example(text="\n")]))) == {("empty", "train#1", None)}


def test_choices() -> None:
    train = [
        Example(text="one?", completion="a", choices=("a", "b")),
        Example(text="two?", completion="c", choices=("a", "b")),
        Example(text="three?", completion="a", choices=("a", "a")),
        Example(text="one?", completion="b", choices=("b", "a")),
        Example(text="four?", completion="a", choices=("a", "b", "b")),
    ]
    assert found(check(data("choose", train=train))) == {
        ("answer_not_a_choice", "train#1", None),
        ("answer_not_a_choice", "train#2", None),
        ("conflicting_answers", "train#3", "train#0"),
        ("repeated_choice", "train#4", None),
    }


def test_two_answers_are_a_conflict_only_where_one_is_right() -> None:
    two = [Example(text="Greet me", completion="Hello"), Example(text="Greet me", completion="Good day to you")]
    (conflict,) = check(data(train=two)).found
    assert (conflict.kind, conflict.severity) == ("conflicting_answers", "warning")
    several = Example(text="Greet me", completion="Hello", references=("Hello", "Good day to you"))
    assert check(data(train=[several, two[1]])).found == []
    other = Example(text="Bid farewell", completion="Bye", references=("Bye", "So long"))
    assert len(check(data(train=two, test=[other])).found) == 1  # another prompt's references are no excuse
    assert len(check(data(train=[several, Example(text="Greet me", completion="What?")])).found) == 1


def test_answers_longer_than_what_is_written() -> None:
    objective = Responses(Encoder(tokenizer_of_tiny(), 100))
    long, short = (Example(text=SENTENCES[i], completion="x" * n) for i, n in enumerate((9, 8)))
    findings = check(data(train=[Example(text="train", completion="y" * 30)], test=[long, short]), objective, True, 9)
    (only,) = findings.found
    assert (only.kind, only.place) == ("answer_too_long", "test#0")
    assert only.message == "its answer has 10 tokens, eval.max_new_tokens=9"  # the end is one of them
    assert "answer_too_long" not in check(data(test=[long]), objective).counts()


def test_a_group_in_two_parts_is_said_once() -> None:
    train = [Example(text=text, completion=str(i), group="g" if i < 3 else "h") for i, text in enumerate(SENTENCES[:5])]
    test = [Example(text=text, completion="x", group="g") for text in SENTENCES[5:]]
    assert found(check(data(train=train, test=test))) == {("group_leak", "test#0", "train#0")}


def test_tokens_of_a_label_that_a_head_does_not_know() -> None:
    objective = Classification(Encoder(tokenizer_of_tiny(), 50), ("a",))
    test = [Example(text=SENTENCES[0], completion="a"), Example(text="new", completion="b")]
    findings = check(data("classify", train=[Example(text="old", completion="a")], test=test), objective)
    assert found(findings) == {("unknown_label", "test#1", None), ("truncated", "test#0", None)}
    assert findings.lengths["test"]["tokens"]["max"] == len(SENTENCES[0])


def test_imbalance_and_labels_that_nothing_tests() -> None:
    train = [Example(text=f"{r['prompt']}", completion="many") for r in records(10)]
    train.append(Example(text="the rare one", completion="rare"))
    findings = check(data("classify", train=train, test=[Example(text=SENTENCES[0], completion="many")]))
    assert {f.kind: f.message for f in findings.found} == {
        "imbalance": "10 examples of 'many', 1 of 'rare'",
        "missing_label": "1 of 2 labels do not occur: rare",
    }


def tokenizer_of_tiny() -> Any:
    return Look(config("model=tiny"), tokens=True).tokenizer[0]


def test_tokens_are_those_of_the_rows_of_a_training() -> None:
    turns = ({"role": "user", "content": "How many?"},)
    examples = [Example(messages=turns, completion="12"), Example(messages=turns * 3, completion="a few" * 10)]
    longest = max(row.n_tokens for row in Responses(Encoder(tokenizer_of_tiny(), 1000)).rows(examples))
    findings = check(data(train=examples), Responses(Encoder(tokenizer_of_tiny(), longest - 1)))
    assert findings.lengths["train"]["tokens"]["max"] == longest
    assert found(findings) == {("truncated", "train#1", None)}
    assert found(check(data(train=examples), Responses(Encoder(tokenizer_of_tiny(), longest)))) == set()


def test_what_a_run_would_refuse_is_an_error_of_the_data() -> None:
    examples = [Example(text="Say much", completion="a" * 20), Example(text="Say less", completion="b")]
    findings = check(data(train=examples), Responses(Encoder(tokenizer_of_tiny(), 12)))
    (error,) = findings.of("error")
    assert (error.kind, error.place) == ("does_not_fit", "train#0")
    assert "leaves no room for a prompt in optim.max_length=12" in error.message


def test_counts_name_what_was_looked_for() -> None:
    counts = check(data(train=[Example(text="a", completion="b")])).counts()
    assert set(counts.values()) == {0}
    assert set(KINDS) - set(counts) == {
        *("broken_line", "not_utf8", "unknown_label", "missing_label", "imbalance", "answer_not_a_choice"),
        *("repeated_choice", "one_class", "field_not_shown", "control_word"),
        *("truncated", "does_not_fit", "answer_too_long"),
    }
    without = check(data(), near_duplicates=False).counts()
    assert "near_duplicate" not in without
    assert "near_leak" not in without


def test_errors_stop_a_run_or_are_said(capsys: Any) -> None:
    same = Example(text="Who?", completion="me", place="a.jsonl:3")
    findings = check(data(train=[same], test=[Example(text="Who?", completion="me", place="b.jsonl:7")] * 8))
    with pytest.raises(
        DataError, match=r"8 errors:\n  leak: b\.jsonl:7 and a\.jsonl:3: .*\n(.*\n)+… and 3 more\n.*check=warn"
    ):
        findings.enforce(Check.error)
    capsys.readouterr()
    findings.enforce(Check.warn)
    err = capsys.readouterr().err
    assert "error: leak (8), first b.jsonl:7 and a.jsonl:3" in err
    assert "warning: exact_duplicate (7)" in err
    check(data(train=[same] * 2)).enforce(Check.error)  # a warning stops nothing


VOCABULARY = ["lamp", "door", "the", "red", "two", "open", "window", "slowly", "garden", "seven"]
WORDS = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=12)


@given(st.lists(WORDS, max_size=25))
def test_near_duplicates_are_what_all_pairs_give(drawn: list[list[str]]) -> None:
    """Up to the closest earlier record: of few records no bucket overflows."""
    texts = [" ".join(words) for words in drawn]
    parts = [("train", "test")[i % 2] for i in range(len(texts))]
    grams = [{t.ljust(SIZE)[i : i + SIZE] for i in range(max(1, len(t) - SIZE + 1))} for t in texts]
    likeness = [[len(a & b) / len(a | b) for b in grams] for a in grams]
    wanted = {}
    for i in range(len(texts)):
        for same in (True, False):
            near = [(likeness[i][j], -j) for j in range(i) if (parts[i] == parts[j]) == same]
            if near and max(near)[0] >= THRESHOLD:
                wanted[i, same] = max(near)[0]
    got = {
        (p.index, parts[p.index] == parts[p.other]): p.likeness for p in near_duplicates([(t,) for t in texts], parts)
    }
    assert got == wanted


@given(st.text(), st.text())
def test_likeness(a: str, b: str) -> None:
    one, other = shingles(a), shingles(b)
    assert jaccard(one, one) == 1
    assert 0 <= jaccard(one, other) == jaccard(other, one) <= 1
    assert np.array_equal(one, np.unique(one))
    assert np.array_equal(shingles(a.upper()), shingles(f" {a.upper().casefold()}\n"))


def test_of_near_duplicates_the_difference_is_shown() -> None:
    head = "The tables are city and river and state and mountain and lake. " * 4
    train = [Example(text=f"{head}How long is the {name}?", completion="select length") for name in ("Rhine", "Rhone")]
    (near,) = check(data(train=train)).found
    assert near.excerpt == "'… nd mountain and lake. How long is the Rhone?'"
    assert near.message == "0.91 alike: '… nd mountain and lake. How long is the Rhine?'"


def test_both_sides_have_to_be_near() -> None:
    schema = "city(name, state, population) river(name, length, state) question: "
    rows = [(schema + "how long is the Rhine", "select length"), (schema + "how long is the Rhone", "select length")]
    rows.append((rows[0][0], "an answer that has nothing in common"))
    assert [(p.index, p.other) for p in near_duplicates(rows, ["train"] * 3)] == [(1, 0)]


@pytest.mark.slow
def test_fifty_thousand_records_take_well_under_a_minute() -> None:
    import time

    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 9))) for _ in range(3000)]
    made = [
        Example(text=" ".join(rng.choices(words, k=40)), completion=" ".join(rng.choices(words, k=5)))
        for _ in range(50_000)
    ]
    began = time.process_time()
    assert check(data(train=made[:45_000], test=made[45_000:])).found == []
    assert time.process_time() - began < 45
