"""Queries over result files, what they may not do, and exports; every result is made up."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from benchmarks.made_up import UNTRAINED, made_up, made_up_result, put
from experiments import ROOT
from experiments.store import __main__
from experiments.store.database import TABLES
from experiments.store.export import csv_text, latex, markdown
from experiments.store.files import ReportError
from experiments.store.query import ask, write_parquet
from experiments.store.schema import columns
from experiments.store.small import essentials


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


def asked(place: Path, sql: str) -> list[tuple[Any, ...]]:
    return ask([place], sql).rows


def main(command: str, *more: str, runs: Path) -> int:
    return __main__.main([command, *more, "--runs", str(runs)])


# ---------------------------------------------------------------- the tables


def test_every_number_of_a_run_is_in_the_tables(runs: Path) -> None:
    sql = "SELECT score, trainable, delta_bytes, total_s, train_s, kl_per_token, merged_tokens_per_s, device_peak_bytes"
    assert asked(runs, f"{sql} FROM runs WHERE method = 'fable'") == [
        (0.25, 1000, 4096, 52.0, 42.0, 0.0625, 40.0, None)
    ]
    sql = (
        "SELECT q.split, part, q.metric, value FROM quality q JOIN runs r USING (run) WHERE key = 'a' ORDER BY 1, 2, 3"
    )
    assert asked(runs, sql) == [
        ("test", "", "exact_match", 0.25),
        ("test", "", "valid_json", 0.875),
        ("test", "north", "exact_match", 0.5),
        ("test", "north", "valid_json", 1.0),
        ("test", "south", "exact_match", 0.0),
        ("test", "south", "valid_json", 0.75),
        *(("validation", "", name, value) for name, value in sorted(made_up()["validation"].items())),
    ]
    sql = "SELECT f.task, f.metric, before, after FROM forgetting f JOIN runs USING (run) WHERE method = 'fable'"
    assert asked(runs, sql) == [("made-up-other", "accuracy", 0.5, 0.375)]
    sql = "SELECT sum(seconds) = any_value(total_s), count(*) FROM phases JOIN runs USING (run) GROUP BY run"
    assert asked(runs, sql) == [(True, 12), (True, 12)]
    sql = "SELECT count(*), min(loss), max(tokens), max(more) FROM metrics JOIN runs USING (run) WHERE key = 'a'"
    assert asked(runs, sql) == [(11, 3.0 / 11, 110, None)]
    sql = "SELECT max(example), sum(correct), sum(p.score), min(prediction), max(more) FROM predictions p"
    assert asked(runs, sql) == [(15, 4, 8.0, "“é”", '{"made_up":[1]}')]
    assert asked(runs, "SELECT config ->> '$.optim.lr' FROM runs WHERE key = 'a'") == [("0.01",)]


def test_a_failed_run_has_no_numbers(runs: Path) -> None:
    ((status, said, kind, *numbers),) = asked(
        runs,
        "SELECT status, failure, failure_kind, score, trainable, peak_bytes, step_s, total_s, n_test "
        "FROM runs WHERE method = 'myth'",
    )
    assert (status, said, kind) == ("failed", "step 4: nan", "nan")
    assert numbers == [None] * 6


def test_every_column_of_a_result_is_filled(runs: Path) -> None:
    answer = ask([runs], "SELECT * FROM runs WHERE key = 'a'")
    assert answer.headers == ["run", "file", *(column.name for column in columns())]
    missing = {name for name, value in zip(answer.headers, answer.rows[0]) if value is None}
    assert missing == {
        *("failure", "failure_kind", "device_peak_bytes", "feature_drift", "n_left_out", "base_commit"),
        *("forgetting_text", "forgetting_reason", "spectra_reason", "replay_share", "replay_n_task"),
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
    sql = "SELECT file FROM problems WHERE kind = 'unreadable' ORDER BY 1"
    assert main("sql", sql, runs=runs) == 1
    printed = capsys.readouterr()
    for file, message in (
        (broken, "not a readable"),
        (old, "key 'format' is 1"),
        (f"{torn}:12", "not a JSON"),
        (f"{odd}:2", "Expected `str"),
        (big, "key 'seed' is 1180591620717411303424"),
    ):
        assert f"unreadable: {file}: {message}" in printed.err
    assert asked(runs, sql) == [(str(file),) for file in sorted([broken, old, torn, odd, big])]
    assert asked(runs, "SELECT count(*) FROM runs") == [(3,)]
    assert asked(runs, "SELECT count(*) FROM predictions") == [(16,)]
    assert asked(runs, "SELECT count(*) FROM metrics") == [(0,)]
    assert main("list", runs=runs) == 1
    assert str(torn) not in capsys.readouterr().err  # nobody asked for the steps of training


def test_half_a_sign_and_a_loss_that_is_no_number_cost_nothing(runs: Path) -> None:
    put(runs, made_up("half", status="failed", error="half \ud83d of a sign", failure_kind="error"))
    lines = [json.dumps(step | {"loss": float("nan")}) + "\n" for step in steps(2)]
    (runs / "made-up-hush" / "metrics.jsonl").write_text("".join(lines))
    assert asked(runs, "SELECT failure FROM runs WHERE method = 'half'") == [("half ? of a sign",)]
    sql = "SELECT step, loss, wall_s FROM metrics JOIN runs USING (run) WHERE method = 'hush'"
    assert asked(runs, sql) == [(1, None, 0.5), (2, None, 1.0)]


def test_what_is_unfinished_or_there_twice_is_said(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "begun").mkdir()
    (runs / "begun" / "config.yaml").write_text("seed: 0\n")
    copy = tmp_path / "small" / "fable.result.json"
    copy.parent.mkdir()
    copy.write_text(json.dumps(essentials(made_up_result("fable", key="a"))))
    jsonl(copy.with_name("fable.metrics.jsonl"), steps(2))
    places = [runs, tmp_path / "small"]
    assert ask(places, "SELECT count(*) FROM runs").rows == [(4,)]
    assert set(ask(places, "SELECT kind, file FROM problems").rows) == {
        ("doubled", str(copy)),
        ("unfinished", str(runs / "begun")),
    }
    sql = "SELECT count(*) FROM metrics JOIN runs USING (run) WHERE file LIKE '%.result.json'"
    assert ask(places, sql).rows == [(2,)]
    assert __main__.main(["list", "--runs", *map(str, places)]) == 0
    printed = capsys.readouterr().err
    assert f"doubled: {copy}: the same configuration as" in printed
    assert "unfinished: 1 runs without a result yet" in printed


def test_a_run_that_ends_is_in_the_next_answer(runs: Path) -> None:
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    assert asked(runs, "SELECT count(*) FROM runs") == [(3,)]
    more = put(runs, made_up("more"), "more")
    assert asked(runs, "SELECT count(*) FROM runs") == [(4,)]
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file() and path != more} == before


# ---------------------------------------------------------------- queries


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM runs", "UPDATE runs SET score = 1", "DROP TABLE runs", "CREATE TEMP TABLE a (b INTEGER)",
        "VACUUM", "ATTACH '{new}' AS a", "PRAGMA database_list", "SELECT 1; DELETE FROM runs", "", "-- nothing",
        "SELECT nothing FROM runs", "SELECT load_extension('{new}')", "COPY runs TO '{new}'", "EXPORT DATABASE '{new}'",
        "SET enable_external_access = true", "RESET lock_configuration", "INSTALL httpfs", "LOAD httpfs",
        "SELECT * FROM '{file}'", "SELECT * FROM read_text('{file}')", "SELECT * FROM read_json('{file}')",
        "SELECT * FROM glob('{file}')", "SELECT * FROM places", "SELECT $1",
        "WITH gone AS (DELETE FROM runs RETURNING *) SELECT * FROM gone", "CALL force_checkpoint()",
    ],
)  # fmt: skip
def test_a_query_reads_the_tables_and_no_more(
    sql: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, new = sorted(tmp_path.rglob("*")), tmp_path / "new"
    file = runs / "made-up-fable" / "result.json"
    content = file.read_bytes()
    assert main("sql", sql.format(new=new, file=file), runs=runs) == 2
    assert capsys.readouterr().err.startswith("error: sql: ")
    assert sorted(tmp_path.rglob("*")) == before
    assert file.read_bytes() == content


def test_an_export_writes_its_own_file_alone(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.parquet"
    for sql in (f"COPY runs TO '{other}'", f"SELECT * FROM read_text('{runs / 'made-up-fable' / 'result.json'}')"):
        given = (sql, "--format", "parquet", "--out", str(tmp_path / "t.parquet"))
        assert main("export", *given, runs=runs) == 2
        assert capsys.readouterr().err.startswith("error: sql: ")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_sql_prints_rows_whole(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT '[red]' || repeat('x', 300) AS long, NULL AS none, 134515008 AS n, 0.5 AS half, true AS yes"
    assert main("sql", sql, runs=runs) == 0
    out = capsys.readouterr().out
    assert "[red]" + "x" * 300 in out
    assert "134,515,008" in out
    assert "–" in out
    assert "0.5 " in out
    assert "true" in out


def test_sql_without_a_query_explains_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("sql", runs=tmp_path / "nowhere") == 0
    out = capsys.readouterr().out
    assert "KL(base ‖ tuned) on text that the base wrote, nats a token" in out
    with duckdb.connect(":memory:") as connection:
        connection.execute(out)  # it is the schema itself
        made = connection.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
    assert set(made) == {(table.name, column.name) for table in TABLES for column in table.columns}


def test_the_tables_explain_themselves(runs: Path) -> None:
    sql = "SELECT comment FROM duckdb_columns() WHERE table_name = 'runs' AND column_name = 'delta_bytes'"
    assert asked(runs, sql) == [("bytes on disk of what was trained: the delta, or the whole model",)]
    assert asked(runs, "SELECT count(*) FROM duckdb_columns() WHERE comment IS NULL AND NOT internal") == [(0,)]


def test_list_has_a_line_for_each_configuration(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(runs, made_up("fable", seed=8, key="d", quality={"exact_match": 0.75}), "second")
    assert main("list", runs=runs) == 0
    table = [line.split() for line in capsys.readouterr().out.replace("│", " ").splitlines()]
    assert ["made-up-model", "made-up-task", "test", "fable", "0.01", "11", "2", "0", "exact_match", "0.5", "0.25"] in [
        line[:11] for line in table
    ]
    assert ["test", "myth", "0.01", "11", "1", "1"] in [line[2:8] for line in table]


def test_a_search_is_not_mixed_with_the_test(runs: Path) -> None:
    searched = made_up("fable", key="v", quality={"exact_match": 0.875})
    searched["config"]["eval"]["part"] = "val"
    put(runs, searched, "search")
    sql = "SELECT split, score FROM runs WHERE method = 'fable' ORDER BY split"
    assert asked(runs, sql) == [("test", 0.25), ("validation", 0.875)]
    sql = "SELECT DISTINCT q.split FROM quality q JOIN runs USING (run) WHERE key = 'v'"
    assert asked(runs, sql) == [("validation",)]


def test_without_runs_the_next_step_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("list", runs=tmp_path / "nowhere") == 2
    assert "no such folder; give the folder of a run or one that holds runs" in capsys.readouterr().err
    assert main("list", runs=tmp_path) == 2
    assert "no result.json under" in capsys.readouterr().err


def test_the_old_name_asks_and_says_where_the_new_one_is(runs: Path) -> None:
    """experiments/results/ holds data and must stay without an __init__.py, or it would hide the command."""
    assert (ROOT / "experiments" / "results").is_dir()

    def results(*given: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "experiments.results", *given]
        environment = {**os.environ, "COLUMNS": "100"}
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)

    done = results("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in ("list", "sql", "export"))
    assert "fable" in results("export", "SELECT method FROM runs", "--runs", str(runs)).stdout
    old = results("rebuild", "runs")
    assert old.returncode == 1
    assert "python -m experiments.store list --runs runs" in old.stderr


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


def test_parquet_has_types(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    values = "('a|b & c_d', 1, 0.123456789::DOUBLE), ('é', NULL, 12345.6), (NULL, 3, NULL), ('d', 4, 2)"
    write_parquet([runs], f"SELECT * FROM (VALUES {values}) AS t (name, n, x)", out)
    read = duckdb.read_parquet(str(out))
    assert (read.columns, [str(each) for each in read.types]) == (HEADERS, ["VARCHAR", "INTEGER", "DOUBLE"])
    rows = [("a|b & c_d", 1, 0.123456789), ("é", None, 12345.6), (None, 3, None), ("d", 4, 2.0)]
    assert read.fetchall() == rows
    write_parquet([runs], "SELECT method, score, n_test FROM runs WHERE false", out)
    read = duckdb.read_parquet(str(out))
    assert (read.columns, read.fetchall()) == (["method", "score", "n_test"], [])
    assert [str(each) for each in read.types] == ["VARCHAR", "DOUBLE", "BIGINT"]
    before = out.read_bytes()
    for bad, message in (
        ("SELECT 1 AS a, 2 AS a", "one name"),
        ("SELECT method AS name FROM runs UNION ALL SELECT [1]", "sql: "),
        ("SELECT CAST(method AS INTEGER) FROM runs", "sql: "),
    ):
        with pytest.raises(ReportError, match=message):
            write_parquet([runs], bad, out)
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "t.parquet"]


@pytest.mark.parametrize("form", __main__.FORMATS)
def test_every_run_is_exported(form: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"table.{form}"
    assert main("export", "--format", form, "--out", str(out), runs=runs) == 0
    assert out.stat().st_mode & 0o777 == 0o666 & ~umask()
    if form == "parquet":
        read = duckdb.read_parquet(str(out)).select("method").fetchall()
        assert read == [("fable",), ("hush",), ("myth",)]
        assert main("export", "--format", form, runs=runs) == 2
        assert "--out FILE" in capsys.readouterr().err
        return
    text = out.read_text()
    assert all(method in text for method in ("fable", "hush", "myth"))
    assert main("export", "--format", form, runs=runs) == 0
    assert capsys.readouterr().out == text


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
