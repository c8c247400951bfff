"""The common searches use indexes: PostgreSQL says so itself, on a catalog of some size."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from sqlalchemy import PrimaryKeyConstraint, Table, UniqueConstraint, text
from sqlalchemy.dialects import postgresql

from loreg.catalog import Catalog, uploads
from loreg.catalog.paging import encode
from loreg.catalog.schema import metadata
from loreg.catalog.search import select_page, split_for
from loreg.catalog.search_shape import text_share
from loreg.catalog.text_query import TextShare, sample_text
from loreg.entities import Query
from loreg.parsing import parse_comparison, parse_metric_condition, parse_sort
from services import new_database

VERSIONS = 20_000
DELETED = {"versions", "exports", "merges", "blobs"}  # what delete, prune and gc remove rows of

FILL = f"""
INSERT INTO adapters SELECT i, 'team', 'a' || i, now() FROM generate_series(1, {VERSIONS // 2}) i;
INSERT INTO blobs SELECT lpad(to_hex(i), 64, '0'), 1 FROM generate_series(1, 40) i;
INSERT INTO bases SELECT i, lpad(to_hex(i), 64, '0'), 1, 1, now() FROM generate_series(1, 40) i;
INSERT INTO base_names SELECT 'org/base' || i, i FROM generate_series(1, 40) i;
INSERT INTO versions SELECT i, (i + 1) / 2, 2 - i % 2, lpad(to_hex(i), 64, '0'), i % 40 + 1, 'org/hint' || i % 40,
  'lora',  'CAUSAL_LM', 8, i % 200, 16, 1000, 1000 + i, 'F32', 'user' || i % 100, 'message', '',
  now() - i * interval '1 minute', NULL
  FROM generate_series(1, {VERSIONS}) i;
INSERT INTO tasks SELECT i, 'task' || i % 200, lpad(to_hex(i % 40 + 1), 64, '0') FROM generate_series(1, {VERSIONS}) i;
INSERT INTO labels SELECT i, 'owner', 'user' || i % 200 FROM generate_series(1, {VERSIONS}) i;
INSERT INTO module_types SELECT i, m, 2, 8, 8 FROM generate_series(1, {VERSIONS}) i,
  unnest(ARRAY['q_proj', 'v_proj', 'rare' || i % 200]) m;
INSERT INTO metrics SELECT i, 'metric' || i % 20, 'data' || i % 10, '', random(), true, 'ada', now(), random()
  FROM generate_series(1, {VERSIONS}) i;
INSERT INTO search_texts SELECT i, ('news:1D ' || CASE WHEN i % 5 = 0 THEN 'sports:1D ' ELSE '' END ||
  CASE WHEN i % 20 = 0 THEN 'rowing:1D ' ELSE '' END || CASE WHEN i % 50 = 0 THEN 'chess:1D ' ELSE '' END ||
  CASE WHEN i < 200 THEN 'old:1D ' ELSE '' END ||
  CASE WHEN i > {VERSIONS - 300} THEN 'new:1D ' ELSE '' END || 'run' || i || ':1D')::tsvector
  FROM generate_series(1, {VERSIONS}) i;
INSERT INTO files SELECT i, 'adapter_config.json', lpad('1', 64, '0'), 1 FROM generate_series(1, {VERSIONS}) i;
ANALYZE;
"""

SEARCHES: dict[str, Query] = {
    "newest": Query(),
    "next page": Query(cursor=encode("created", [VERSIONS // 2])),
    "task": Query(tasks=("task7",)),
    "task on a base": Query(tasks=("task7",), base="org/base8"),
    "task on a base by metric": Query(
        tasks=("task7",), base="org/base8", metrics=(parse_metric_condition("metric7>=0.9"),)
    ),
    "base by name": Query(base="org/base3"),
    "base by digest": Query(base="sha256:" + "0" * 63 + "3"),
    "declared base": Query(base="org/hint9"),
    "module": Query(modules=("rare7",)),
    "label": Query(labels=(("owner", "user7"),)),
    "author": Query(author="user7"),
    "rank": Query(ranks=(parse_comparison("<=2"),), sort=parse_sort("rank")),
    "by name": Query(sort=parse_sort("name")),
    "by size": Query(sort=parse_sort("size")),
    "by rank": Query(sort=parse_sort("rank")),
    "metric": Query(metrics=(parse_metric_condition("metric3>=0.999"),)),
    "best by metric": Query(sort=parse_sort("metric:metric3@data3")),
    "best on a dataset": Query(sort=parse_sort("metric:metric3@data3"), best=True),
    "best for a task on a base": Query(
        tasks=("task7",), base="org/base8", sort=parse_sort("metric:metric7"), best=True
    ),
    "task by metric": Query(tasks=("task7",), sort=parse_sort("metric:metric7")),
}


@pytest.fixture(scope="module")
def large(postgres: str) -> Any:
    with new_database(postgres, "large", template="postgres") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(FILL)
        catalog = Catalog(url)
        yield catalog
        catalog.close()


@pytest.mark.parametrize("name", SEARCHES)
def test_a_common_search_reads_no_large_table_from_end_to_end(large: Catalog, name: str):
    with large.read() as tx:
        shape, values = split_for(tx, SEARCHES[name])
    statement = select_page(shape, sees_all=True)
    sql = str(statement.params(values).compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))
    with large.read() as tx:
        plan = tx.connection.execute(text("EXPLAIN (FORMAT JSON) " + sql.replace(":", r"\:"))).scalar()
    plan = json.loads(plan) if isinstance(plan, str) else plan
    assert scanned(plan[0]["Plan"]) & {"versions", "tasks", "labels", "module_types", "metrics"} == set()


@pytest.mark.parametrize(
    ("words", "share"),
    [
        ("news", TextShare.FREQUENT),
        ("news run", TextShare.FREQUENT),  # whatever PostgreSQL takes the many words that begin so for
        ("sports", TextShare.FREQUENT),
        ("rowing", TextShare.COMMON),
        ("chess", TextShare.UNCOMMON),
        ("old", TextShare.RARE),
        ("run77", TextShare.RARE),
        ("no such word", TextShare.RARE),
    ],
)
def test_of_a_text_that_many_have_the_newest_are_read_and_no_more(large: Catalog, words: str, share: TextShare):
    query = Query(text=words, sort=parse_sort("relevance"))
    with large.read() as tx:
        shape, values = split_for(tx, query)
        statement = select_page(shape, sees_all=True).params(values).compile(dialect=tx.connection.dialect)
        plan = tx.connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", statement.params).scalar()
    assert text_share(shape) == share
    assert rows_read(plan[0]["Plan"]) < 60_000  # 2,000 that are ranked, in each step; all are 20,000


def test_of_the_best_for_a_task_on_a_base_no_more_is_asked_than_a_page_shows(large: Catalog):
    query = Query(tasks=("task7",), base="org/base8", sort=parse_sort("metric:metric7"), best=True, limit=3)
    with large.read() as tx:
        shape, values = split_for(tx, query)
        statement = select_page(shape, sees_all=True).params(values).compile(dialect=tx.connection.dialect)
        plan = tx.connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", statement.params).scalar()
    assert rows_read(plan[0]["Plan"]) < 700  # a hundred have a number, in each of four steps until they are sorted


def test_of_an_uncommon_text_the_index_is_asked_for_the_newest_alone_with_some_to_spare(large: Catalog):
    with large.read() as tx:
        sample = sample_text(tx.connection, {"text": "'chess'"}, wanted=100)
        since = text("SELECT count(*) FROM search_texts WHERE version_id > :oldest AND document @@ 'chess'::tsquery")
        matches = tx.connection.execute(since, {"oldest": sample.oldest}).scalar_one()
    assert sample.share == TextShare.UNCOMMON
    assert 100 <= matches < 250  # of 400


def test_whether_a_blob_may_be_read_is_known_from_one_of_the_versions_that_have_it(large: Catalog):
    shared = "1".rjust(64, "0")
    with large.read() as tx:
        assert uploads.find_readable(tx, [shared, "f" * 64]) == {shared}
        compiled = uploads.select_readable(sees_all=True, has_token=True).compile(dialect=tx.connection.dialect)
        statement = f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled}"
        plan = tx.connection.exec_driver_sql(statement, {**compiled.params, "digests": [shared]}).scalar()
    assert rows_read(plan[0]["Plan"]) < 100  # of 20,000 that have it


def test_whoever_refers_to_rows_that_are_deleted_is_found_by_an_index():
    """For each row that goes the database looks for those that refer to it: without an index, in the whole table."""
    for table in metadata.tables.values():
        leading = {next(iter(index.columns)).name for index in (*table.indexes, *unique_keys(table))}
        for key in table.foreign_keys:
            if key.column.table.name in DELETED:
                assert key.parent.name in leading, f"{table.name}.{key.parent.name}"


def unique_keys(table: Table) -> list[PrimaryKeyConstraint | UniqueConstraint]:
    """The constraints that have an index of their own."""
    return [key for key in table.constraints if isinstance(key, (PrimaryKeyConstraint, UniqueConstraint))]


def rows_read(node: dict[str, Any]) -> int:
    """How many rows all nodes of a plan that was run gave out."""
    return node["Actual Rows"] * node["Actual Loops"] + sum(map(rows_read, node.get("Plans", [])))


def scanned(node: dict[str, Any]) -> set[str]:
    """The tables that a plan reads from end to end."""
    below = set().union(*(scanned(child) for child in node.get("Plans", [])))
    return below | ({node["Relation Name"]} if node["Node Type"] == "Seq Scan" else set())
