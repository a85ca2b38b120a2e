"""The index of result files, queries over it and its exports; every result is made up."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from experiments import ROOT
from experiments.store import __main__, index
from experiments.store.export import csv_text, latex, markdown, write_parquet
from experiments.store.index import query, rebuild
from experiments.store.result import NOT_IN_FILE, ReportError, Row, essentials
from tests.support.made_up import UNTRAINED, made_up, put


def jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def steps(n: int) -> list[dict[str, Any]]:
    return [
        {"step": i, "loss": 3.0 / i, "lr": 0.01, "grad_norm": 1.0, "tokens": 10 * i, "wall_s": 0.5 * i}
        for i in range(1, n + 1)
    ]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three runs, one of them failed and one untrained; the complete ones with all their files."""
    fable = put(tmp_path / "runs", made_up("fable", key="a"))
    jsonl(fable.with_name("metrics.jsonl"), steps(11))
    said = [
        {"prompt": f"p{i}", "gold": "g", "prediction": "“é”", "score": 0.5, "part": "north", "correct": i % 4 == 0}
        for i in range(16)
    ]
    jsonl(fable.with_name("predictions.jsonl"), [*said[:15], said[15] | {"made_up": [1]}])
    put(tmp_path / "runs", made_up("hush", key="b", **UNTRAINED))
    put(tmp_path / "runs", made_up("myth", key="c", status="failed", error="step 4: nan", failure_kind="nan"))
    return tmp_path / "runs"


@pytest.fixture
def database(runs: Path, tmp_path: Path) -> Path:
    assert rebuild([runs], tmp_path / "index.sqlite") == (3, [])
    return tmp_path / "index.sqlite"


def asked(database: Path, sql: str) -> list[tuple[Any, ...]]:
    return query(database, sql)[1]


# ---------------------------------------------------------------- the index


def test_every_number_of_a_run_is_in_the_index(database: Path) -> None:
    sql = "SELECT score, trainable, delta_bytes, total_s, train_s, kl_per_token, merged_tokens_per_s, device_peak_bytes"
    assert asked(database, f"{sql} FROM runs WHERE method = 'fable'") == [
        (0.25, 1000, 4096, 52.0, 42.0, 0.0625, 40.0, None)
    ]
    sql = (
        "SELECT q.split, part, q.metric, value FROM quality q JOIN runs r USING (run) WHERE key = 'a' ORDER BY 1, 2, 3"
    )
    assert asked(database, sql) == [
        ("test", "", "exact_match", 0.25),
        ("test", "", "valid_json", 0.875),
        ("test", "north", "exact_match", 0.5),
        ("test", "north", "valid_json", 1.0),
        ("test", "south", "exact_match", 0.0),
        ("test", "south", "valid_json", 0.75),
        *(("validation", "", name, value) for name, value in sorted(made_up()["validation"].items())),
    ]
    sql = "SELECT f.task, f.metric, before, after FROM forgetting f JOIN runs USING (run) WHERE method = 'fable'"
    assert asked(database, sql) == [("made-up-other", "accuracy", 0.5, 0.375)]
    sql = "SELECT sum(seconds) = total_s, count(*) FROM phases JOIN runs USING (run) GROUP BY run"
    assert asked(database, sql) == [(1, 12), (1, 12)]
    sql = "SELECT count(*), min(loss), max(tokens), max(more) FROM metrics JOIN runs USING (run) WHERE key = 'a'"
    assert asked(database, sql) == [(11, 3.0 / 11, 110, None)]
    sql = "SELECT max(example), sum(correct), sum(p.score), min(prediction), max(more) FROM predictions p"
    assert asked(database, sql) == [(15, 4, 8.0, "“é”", '{"made_up": [1]}')]
    assert asked(database, "SELECT config ->> '$.optim.lr' FROM runs WHERE key = 'a'") == [(0.01,)]


def test_a_failed_run_has_no_numbers(database: Path) -> None:
    ((status, said, kind, *numbers),) = asked(
        database,
        "SELECT status, failure, failure_kind, score, trainable, peak_bytes, step_s, total_s, n_test "
        "FROM runs WHERE method = 'myth'",
    )
    assert (status, said, kind) == ("failed", "step 4: nan", "nan")
    assert numbers == [None] * 6


def test_every_plain_field_of_a_row_has_a_column(database: Path) -> None:
    names, rows = query(database, "SELECT * FROM runs WHERE key = 'a'")
    found = dict(zip(names, rows[0]))
    plain = {n for n, v in vars(Row("m", "m", "t", 0, 0.1, 1, 1)).items() if not isinstance(v, dict | tuple)}
    assert plain - {*NOT_IN_FILE, "forgetting", "other_tasks"} <= set(names)  # those two have a table
    missing = {name for name, value in found.items() if value is None}
    assert missing == {
        "failure",
        "failure_kind",
        "device_peak_bytes",
        "feature_drift",
    }  # no column is forgotten when rows go in


def test_a_file_that_cannot_be_read_costs_itself_alone(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, old = put(runs, "{", "broken"), put(runs, made_up(format=1), "old")
    big = put(runs, made_up(seed=2**70), "seed")
    torn = runs / "made-up-fable" / "metrics.jsonl"
    torn.write_text(torn.read_text() + '{"step": 1')
    odd = runs / "made-up-hush" / "predictions.jsonl"
    jsonl(odd, [{"prompt": "text"}, {"prompt": ["not", "text"]}])
    database = tmp_path / "index.sqlite"
    assert __main__.main(["rebuild", str(runs), "--db", str(database)]) == 1
    printed = capsys.readouterr()
    for file, said in (
        (broken, "not a readable"),
        (old, "key 'format' is 1"),
        (f"{torn}:12", "not a JSON"),
        (odd, ""),
        (big, ""),
    ):
        assert f"unreadable: {file}: {said}" in printed.err
    assert "3 runs" in printed.out
    assert "could not be read: 5" in printed.out
    assert asked(database, "SELECT file FROM problems ORDER BY 1") == [
        (str(file),) for file in sorted([broken, old, torn, odd, big])
    ]
    assert asked(database, "SELECT count(*) FROM predictions") == [(16,)]
    assert asked(database, "SELECT count(*) FROM metrics") == [(0,)]


def test_what_is_unfinished_or_there_twice_is_said(runs: Path, tmp_path: Path) -> None:
    (runs / "begun").mkdir()
    (runs / "begun" / "config.yaml").write_text("seed: 0\n")
    copy = tmp_path / "small" / "fable.result.json"
    copy.parent.mkdir()
    copy.write_text(json.dumps(essentials(made_up("fable", key="a"))))
    jsonl(copy.with_name("fable.metrics.jsonl"), steps(2))
    n_runs, problems = rebuild([runs, tmp_path / "small"], tmp_path / "index.sqlite")
    assert n_runs == 4
    assert {(problem.kind, problem.file) for problem in problems} == {
        ("doubled", str(copy)),
        ("unfinished", str(runs / "begun")),
    }
    sql = "SELECT count(*) FROM metrics JOIN runs USING (run) WHERE file LIKE '%.result.json'"
    assert asked(tmp_path / "index.sqlite", sql) == [(2,)]


def test_a_rebuild_that_fails_leaves_the_index_as_it_was(
    runs: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = database.read_bytes()
    put(runs, made_up("more"), "more")
    with monkeypatch.context() as patch:
        patch.setattr(index, "unfinished", lambda places: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rebuild([runs], database)
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir() if path.is_file()] == [database.name]
    with index.opened(database) as reader:
        assert rebuild([runs], database)[0] == 4
        assert reader.execute("SELECT count(*) FROM runs").fetchone() == (3,)  # who reads goes on with the old one
    assert asked(database, "SELECT count(*) FROM runs") == [(4,)]


# ---------------------------------------------------------------- queries


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM runs", "UPDATE runs SET score = 1", "DROP TABLE runs", "CREATE TEMP TABLE a (b)",
        "VACUUM INTO '{new}'", "ATTACH '{new}' AS a", "PRAGMA query_only = OFF", "SELECT 1; DELETE FROM runs", "",
        "SELECT nothing FROM runs", "SELECT load_extension('{new}')",
    ],
)  # fmt: skip
def test_a_query_reads_and_no_more(
    sql: str, database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, new = database.read_bytes(), tmp_path / "new.sqlite"
    assert __main__.main(["sql", sql.format(new=new), "--db", str(database)]) == 2
    assert capsys.readouterr().err.startswith("error: sql: ")
    assert database.read_bytes() == before
    assert not new.exists()


def test_sql_prints_rows_whole(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT '[red]' || printf('%.*c', 300, 'x') AS long, NULL AS none, 134515008 AS n"
    assert __main__.main(["sql", sql, "--db", str(database)]) == 0
    out = capsys.readouterr().out
    assert "[red]" + "x" * 300 in out
    assert "134,515,008" in out
    assert "–" in out


def test_sql_without_a_query_explains_the_tables(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["sql", "--db", str(database)]) == 0
    out = capsys.readouterr().out
    assert "nats, to the base on text that it wrote" in out
    assert sqlite3.connect(":memory:").executescript(out)  # it is the schema itself


def test_list_has_a_line_for_each_configuration(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(runs, made_up("fable", seed=8, key="d", quality={"exact_match": 0.75}), "second")
    rebuild([runs], tmp_path / "i.sqlite")
    assert __main__.main(["list", "--db", str(tmp_path / "i.sqlite")]) == 0
    table = [line.split() for line in capsys.readouterr().out.replace("│", " ").splitlines()]
    assert ["made-up-model", "made-up-task", "test", "fable", "0.01", "11", "2", "0", "exact_match", "0.5", "0.25"] in [
        line[:11] for line in table
    ]
    assert ["test", "myth", "0.01", "11", "1", "1"] in [line[2:8] for line in table]


def test_a_search_is_not_mixed_with_the_test(runs: Path, tmp_path: Path) -> None:
    searched = made_up("fable", key="v", quality={"exact_match": 0.875})
    searched["config"]["eval"]["part"] = "val"
    put(runs, searched, "search")
    rebuild([runs], tmp_path / "i.sqlite")
    sql = "SELECT split, score FROM runs WHERE method = 'fable' ORDER BY split"
    assert asked(tmp_path / "i.sqlite", sql) == [("test", 0.25), ("validation", 0.875)]
    sql = "SELECT DISTINCT q.split FROM quality q JOIN runs USING (run) WHERE key = 'v'"
    assert asked(tmp_path / "i.sqlite", sql) == [("validation",)]


def test_without_an_index_the_next_step_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["list", "--db", str(tmp_path / "no.sqlite")]) == 2
    assert "experiments.store.__main__ rebuild runs" in capsys.readouterr().err
    assert not (tmp_path / "no.sqlite").exists()
    assert __main__.main(["rebuild", str(tmp_path), "--db", str(tmp_path / "no.sqlite")]) == 2
    assert "no result.json under" in capsys.readouterr().err


def test_the_module_is_found_beside_the_folder_of_its_name() -> None:
    """experiments/results/ holds data and must stay without an __init__.py, or it would hide the command."""
    assert (ROOT / "experiments" / "results").is_dir()
    command = [sys.executable, "-m", "experiments.results", "--help"]
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=True)
    assert "rebuild" in done.stdout


# ---------------------------------------------------------------- exports

HEADERS = ["name", "n", "x"]
ROWS = [("a|b & c_d\n50%", 1, 0.123456789), ("\\~^<é>", None, 12345.6), (None, 3, None)]


def test_csv_keeps_every_digit() -> None:
    rows = list(csv.reader(csv_text(HEADERS, ROWS).splitlines(keepends=True)))
    assert rows == [HEADERS, [ROWS[0][0], "1", "0.123456789"], [ROWS[1][0], "", "12345.6"], ["", "3", ""]]


def test_markdown_cells_cannot_break_the_table() -> None:
    assert markdown(HEADERS, ROWS).splitlines() == [
        "| name | n | x |",
        "| :-- | --: | --: |",
        "| a\\|b & c_d 50% | 1 | 0.1235 |",
        "| \\\\~^<é> | – | 12,346 |",
        "| – | 3 | – |",
    ]


def test_latex_is_escaped() -> None:
    assert latex(HEADERS, ROWS).splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"name & n & x \\",
        r"\midrule",
        r"a\textbar{}b \& c\_d 50\% & 1 & 0.1235 \\",
        r"\textbackslash{}\textasciitilde{}\textasciicircum{}\textless{}é\textgreater{} & -- & 12,346 \\",
        r"-- & 3 & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_parquet_has_types(tmp_path: Path) -> None:
    rows = [*ROWS, ("d", 4, 2)]  # SQLite may give 2 where the others are floats
    write_parquet(tmp_path / "t.parquet", HEADERS, rows)
    table = pyarrow.parquet.read_table(tmp_path / "t.parquet")
    assert [str(field.type) for field in table.schema] == ["string", "int64", "double"]
    assert table.to_pydict() == {header: [row[i] for row in rows] for i, header in enumerate(HEADERS)}
    write_parquet(tmp_path / "none.parquet", HEADERS, [])
    assert pyarrow.parquet.read_table(tmp_path / "none.parquet").column_names == HEADERS
    for bad, said in (([("a",), (1,)], "mixes types"), ([("a",), (1.5,)], "mixes types")):
        with pytest.raises(ReportError, match=said):
            write_parquet(tmp_path / "bad.parquet", ["name"], bad)
    with pytest.raises(ReportError, match="one name"):
        write_parquet(tmp_path / "bad.parquet", ["a", "a"], [(1, 2)])
    assert not (tmp_path / "bad.parquet").exists()


@pytest.mark.parametrize("form", __main__.FORMATS)
def test_every_run_is_exported(form: str, database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"table.{form}"
    assert __main__.main(["export", "--format", form, "--db", str(database), "--out", str(out)]) == 0
    if form == "parquet":
        assert pyarrow.parquet.read_table(out)["method"].to_pylist() == ["fable", "hush", "myth"]
        assert __main__.main(["export", "--format", form, "--db", str(database)]) == 2
        assert "--out FILE" in capsys.readouterr().err
        return
    text = out.read_text()
    assert all(method in text for method in ("fable", "hush", "myth"))
    assert __main__.main(["export", "--format", form, "--db", str(database)]) == 0
    assert capsys.readouterr().out == text
