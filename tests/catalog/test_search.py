"""Search finds exactly what holds every condition, page by page, in one statement."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import event

from loreg.catalog import Catalog, Transaction, bases, versions
from loreg.catalog.search import search
from loreg.catalog.version_details import version_details
from loreg.entities import Access, BaseModel, Query
from loreg.errors import UsageError
from loreg.parsing import parse_best, parse_comparison, parse_metric, parse_metric_condition, parse_sort
from loreg.refs import parse_ref


def find_refs(catalog: Catalog, **conditions: Any) -> list[str]:
    with catalog.read() as tx:
        return [version.ref for version in search(tx, Query(**conditions)).items]


@pytest.fixture
def three(record) -> None:
    record("team/news", tasks=("topics",), metrics=(parse_metric("accuracy=0.93@bbc:test"),), ranks=(8, 8), size=300)
    record(
        "team/movies",
        tasks=("sentiment", "reviews"),
        metrics=(parse_metric("accuracy=0.79@imdb"), parse_metric("loss=0.4@imdb")),
        labels={"owner": "grace"},
        ranks=(4, 16),
        modules=("q_proj", "k_proj"),
        size=200,
        author="grace",
        message="Now with 100% more reviews",
    )
    record(
        "code",
        tasks=("code",),
        variant="dora",
        ranks=(64, 64),
        size=900,
        card="# Card\nA snake_case model",
        base_hint="org/llama",
    )


CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["code:v1", "team/movies:v1", "team/news:v1"]),
    ({"tasks": ("topics",)}, ["team/news:v1"]),
    ({"tasks": ("sentiment", "reviews")}, ["team/movies:v1"]),
    ({"tasks": ("sentiment", "topics")}, []),
    ({"modules": ("q_proj",)}, ["code:v1", "team/movies:v1", "team/news:v1"]),
    ({"modules": ("q_proj", "k_proj")}, ["team/movies:v1"]),
    ({"ranks": (parse_comparison("<=16"),)}, ["team/movies:v1", "team/news:v1"]),
    ({"ranks": (parse_comparison(">8"), parse_comparison("<64"))}, ["team/movies:v1"]),
    ({"ranks": (parse_comparison("64"),)}, ["code:v1"]),
    ({"metrics": (parse_metric_condition("accuracy>=0.9"),)}, ["team/news:v1"]),
    ({"metrics": (parse_metric_condition("accuracy>=0.9@imdb"),)}, []),
    (
        {"metrics": (parse_metric_condition("accuracy>0.7@imdb"), parse_metric_condition("loss<0.5"))},
        ["team/movies:v1"],
    ),
    ({"metrics": (parse_metric_condition("accuracy>0@bbc:test"),)}, ["team/news:v1"]),
    ({"metrics": (parse_metric_condition("accuracy>0@bbc:dev"),)}, []),
    ({"labels": (("owner", "grace"),)}, ["team/movies:v1"]),
    ({"labels": (("owner", "g"),)}, []),
    ({"author": "grace"}, ["team/movies:v1"]),
    ({"variant": "dora"}, ["code:v1"]),
    ({"base": "org/llama"}, ["code:v1"]),
    ({"text": "TEAM/"}, ["team/movies:v1", "team/news:v1"]),
    ({"text": "more reviews"}, ["team/movies:v1"]),
    ({"text": "snake_case"}, ["code:v1"]),
    ({"text": "100%"}, ["team/movies:v1"]),
    ({"text": "snake%case"}, []),
    ({"text": "snakeXcase"}, []),
    ({"text": "_"}, ["code:v1"]),
    ({"text": "\\"}, []),
    ({"text": "'; DROP TABLE versions; --"}, []),
    ({"sort": parse_sort("name")}, ["code:v1", "team/movies:v1", "team/news:v1"]),
    ({"sort": parse_sort("rank")}, ["team/news:v1", "team/movies:v1", "code:v1"]),
    ({"sort": parse_sort("size")}, ["team/movies:v1", "team/news:v1", "code:v1"]),
    ({"sort": parse_sort("metric:accuracy")}, ["team/news:v1", "team/movies:v1"]),
    ({"sort": parse_sort("metric:accuracy@imdb")}, ["team/movies:v1"]),
]


@pytest.mark.parametrize(("conditions", "expected"), CASES, ids=[str(c)[:60] for c, _ in CASES])
def test_conditions(catalog: Catalog, three, conditions, expected):
    assert find_refs(catalog, **conditions) == expected


def test_less_is_better_for_a_loss(catalog: Catalog, record):
    for name, loss in (("a", 0.5), ("b", 0.1), ("c", 0.9)):
        record(name, metrics=(parse_metric(f"eval_loss={loss}"),))
    assert find_refs(catalog, sort=parse_sort("metric:eval_loss")) == ["b:v1", "a:v1", "c:v1"]


def test_the_best_of_several_datasets_counts_once(catalog: Catalog, record):
    record("a", metrics=(parse_metric("f1=0.5@x"), parse_metric("f1=0.9@y")))
    record("b", metrics=(parse_metric("f1=0.7@x"),))
    assert find_refs(catalog, sort=parse_sort("metric:f1")) == ["a:v1", "b:v1"]


def test_the_best_of_each_adapter_may_be_an_older_version(catalog: Catalog, record):
    for name, content, accuracy in (
        ("a", "1", 0.7),
        ("a", "2", 0.9),
        ("a", "3", 0.8),
        ("b", "1", 0.85),
        ("c", "1", 0.2),
    ):
        record(name, content, metrics=(parse_metric(f"accuracy={accuracy}@x:test"),))
    record("a", "4")
    assert find_refs(catalog, sort=parse_best("accuracy"), best=True) == ["a:v2", "b:v1", "c:v1"]
    assert find_refs(catalog, sort=parse_best("accuracy@x:test"), best=True) == ["a:v2", "b:v1", "c:v1"]
    assert find_refs(catalog, sort=parse_best("accuracy@y"), best=True) == []


def test_a_yanked_version_is_never_the_best(catalog: Catalog, record):
    record("a", "1", metrics=(parse_metric("f1=0.5"),))
    best = record("a", "2", metrics=(parse_metric("f1=0.9"),))
    with catalog.write(Access.superuser("ada")) as tx:
        versions.set_yanked(tx, versions.resolve(tx, parse_ref(best.ref)), True)
    assert find_refs(catalog, sort=parse_best("f1"), best=True) == ["a:v1"]


def test_of_an_adapter_with_two_equally_good_versions_the_newer_is_the_best(catalog: Catalog, record):
    for content in "123":
        record("a", content, metrics=(parse_metric("f1=0.5@x"), parse_metric("f1=0.5@y")))
    assert find_refs(catalog, sort=parse_best("f1"), best=True) == ["a:v3"]


def test_the_best_by_a_loss_is_the_lowest(catalog: Catalog, record):
    for name, content, loss in (("a", "1", 0.7), ("a", "2", 0.9), ("b", "1", 0.1)):
        record(name, content, metrics=(parse_metric(f"eval_loss={loss}"),))
    assert find_refs(catalog, sort=parse_best("eval_loss"), best=True) == ["b:v1", "a:v1"]


def test_the_best_is_that_of_the_versions_that_fulfill_the_other_conditions(catalog: Catalog, record):
    base = BaseModel("cd" * 32, ("org/llama",), 3, 100)
    with catalog.write(Access.superuser("ada")) as tx:
        bases.record(tx, base, 1)
    better = {"metrics": (parse_metric("f1=0.9"),)}
    good = {"metrics": (parse_metric("f1=0.5"),)}
    record("a", "1", tasks=("qa",), labels={"stage": "done"}, modules=("up_proj",), base_hint="org/llama", **good)
    record("a", "2", base=base, tasks=("qa",), ranks=(64, 64), variant="dora", author="grace", **better)
    record("a", "3", base_hint="org/mistral", **better)
    for condition, ref in (
        ({}, "a:v3"),
        ({"tasks": ("qa",)}, "a:v2"),
        ({"base": "org/llama"}, "a:v2"),
        ({"base": "org/llama", "tasks": ("qa",)}, "a:v2"),
        ({"base": "org/mistral"}, "a:v3"),
        ({"labels": (("stage", "done"),)}, "a:v1"),
        ({"modules": ("up_proj",)}, "a:v1"),
        ({"tasks": ("qa",), "ranks": (parse_comparison("<=8"),)}, "a:v1"),
        ({"author": "grace"}, "a:v2"),
        ({"variant": "dora"}, "a:v2"),
        ({"metrics": (parse_metric_condition("f1<0.6"),)}, "a:v1"),
    ):
        assert find_refs(catalog, sort=parse_best("f1"), best=True, **condition) == [ref], condition


def test_who_asks_for_a_metric_is_shown_older_versions_too(catalog: Catalog, record):
    record("a", "1", metrics=(parse_metric("f1=0.9"),))
    record("a", "2", metrics=(parse_metric("f1=0.5"),))
    for conditions, refs in (
        ({"metrics": (parse_metric_condition("f1>0.6"),)}, ["a:v1"]),
        ({"sort": parse_sort("metric:f1")}, ["a:v1", "a:v2"]),
        ({}, ["a:v2"]),
    ):
        with catalog.read() as tx:
            page = search(tx, Query(**conditions))
        assert [version.ref for version in page.items] == refs
        assert page.all_versions == bool(conditions)


def test_there_is_no_best_without_a_metric(catalog: Catalog):
    with pytest.raises(UsageError, match="the best by name is no one version"):
        find_refs(catalog, sort=parse_sort("name"), best=True)


def test_only_the_newest_version_unless_asked(catalog: Catalog, record):
    record("a", "one", tasks=("old",))
    record("a", "two", tasks=("new",))
    assert find_refs(catalog, tasks=("old",)) == []
    assert find_refs(catalog, tasks=("old",), all_versions=True) == ["a:v1"]
    assert find_refs(catalog) == ["a:v2"]


def test_a_yanked_version_is_hidden_and_the_one_before_is_the_newest(catalog: Catalog, record):
    record("a", "one")
    second = record("a", "two")
    with catalog.write(Access.superuser("ada")) as tx:
        versions.set_yanked(tx, versions.resolve(tx, parse_ref(second.ref)), True)
    assert find_refs(catalog) == ["a:v1"]
    assert find_refs(catalog, all_versions=True) == ["a:v1"]


def test_a_task_is_found_on_the_base_that_is_known_by_now(catalog: Catalog, record):
    base = BaseModel("cd" * 32, ("org/llama",), 3, 100)
    with catalog.write(Access.superuser("ada")) as tx:
        bases.record(tx, base, 1)
    record("team/declared", tasks=("qa",), base_hint="org/llama")
    record("team/known", "x", tasks=("qa",), base_hint="org/llama")
    record("team/other", tasks=("qa",), base_hint="org/mistral")
    on_llama = {"tasks": ("qa",), "base": "org/llama"}
    assert find_refs(catalog, **on_llama) == ["team/known:v1", "team/declared:v1"]
    record("team/known", "x", base=base)
    record("team/known", "x", tasks=("summaries",))
    assert find_refs(catalog, **on_llama) == ["team/known:v1", "team/declared:v1"]
    assert find_refs(catalog, tasks=("qa", "summaries"), base="org/llama") == ["team/known:v1"]
    assert find_refs(catalog, tasks=("qa",), base="sha256:cdcdcd") == ["team/known:v1"]
    assert find_refs(catalog, tasks=("qa",), base="org/mistral") == ["team/other:v1"]


def test_a_base_is_found_by_name_digest_and_prefix(catalog: Catalog, record):
    base = BaseModel("ab" * 32, ("org/llama", "local-llama"), 3, 100)
    with catalog.write(Access.superuser("ada")) as tx:
        bases.record(tx, base, 10)
    record("known", base=base)
    record("declared", base_hint="org/llama")
    record("other", base_hint="org/mistral")
    assert find_refs(catalog, base="org/llama") == ["declared:v1", "known:v1"]
    assert find_refs(catalog, base="local-llama") == ["known:v1"]
    assert find_refs(catalog, base="ababab") == ["known:v1"]
    assert find_refs(catalog, base="sha256:" + "ab" * 32) == ["known:v1"]
    assert find_refs(catalog, base="abababac") == []


def test_the_numbers_of_metrics_come_back_to_the_last_bit(catalog: Catalog, record):
    for value in (0.1 + 0.2, 1e-300, -1.7976931348623157e308, 123456789.123456789):
        version = record(f"m{abs(hash(value))}", metrics=(parse_metric(f"x={value!r}"),))
        assert version.metrics[0].value == value


def count_statements(tx: Transaction) -> list[str]:
    """A list that every statement is added to before the driver is sent it."""
    statements: list[str] = []
    event.listen(tx.connection, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    return statements


def test_everything_of_a_version_arrives_in_one_statement(catalog: Catalog, three):
    with catalog.read() as tx:
        statements = count_statements(tx)
        version = search(tx, Query(tasks=("sentiment",))).items[0]
        assert len(statements) == 1
    with catalog.read() as tx:
        statements = count_statements(tx)
        details = version_details(tx, parse_ref("team/movies:v1"))
        assert len(statements) == 1
    assert details.version == version
    assert sum(file.size for file in details.files) == 200
    assert version.tasks == ("reviews", "sentiment")
    assert version.labels == {"owner": "grace"}
    assert [str(metric) for metric in version.metrics] == ["accuracy=0.79@imdb", "loss=0.4@imdb"]
    assert [metric.higher_is_better for metric in version.metrics] == [True, False]
    assert [(m.name, m.count, m.rank_min, m.rank_max) for m in version.facts.module_types] == [
        ("k_proj", 2, 4, 16),
        ("q_proj", 2, 4, 16),
    ]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.sampled_from(["created", "name", "rank", "size", "metric:f1", "best:f1"]),
    limit=st.integers(1, 8),
)
def test_pages_together_are_the_whole_each_version_once(catalog: Catalog, record, order: str, limit: int):
    best = order == "best:f1"
    for i in range(17):
        metrics = (parse_metric(f"f1={i % 3}"),)
        record(f"ns{i % 2}/a{i % 5}", f"content {i}", ranks=(1, i % 4 + 1), size=i % 3, metrics=metrics)
    sort = parse_sort(order.replace("best", "metric"))
    query = Query(sort=sort, best=best, limit=limit, all_versions=True)
    with catalog.read() as tx:
        whole = [v.ref for v in search(tx, replace(query, limit=1000)).items]
        pages, cursor = [], None
        while True:
            page = search(tx, replace(query, cursor=cursor))
            pages += [version.ref for version in page.items]
            cursor = page.cursor
            if cursor is None:
                break
            assert len(page.items) == limit
    assert pages == whole
    assert len(set(whole)) == (5 * 2 if best else 17)


def test_a_cursor_of_a_search_by_metric_is_none_of_the_best(catalog: Catalog, record):
    for name in "abc":
        record(name, metrics=(parse_metric("f1=0.5"),))
    by_metric = {"sort": parse_sort("metric:f1"), "limit": 1}
    with catalog.read() as tx:
        cursor = search(tx, Query(**by_metric)).cursor
    with pytest.raises(UsageError, match="this cursor is not of this search"):
        find_refs(catalog, **by_metric, best=True, cursor=cursor)


def test_a_version_pushed_while_someone_pages_moves_nothing(catalog: Catalog, record):
    for i in range(6):
        record(f"a{i}")
    with catalog.read() as tx:
        first = search(tx, Query(limit=3))
    record("late")
    with catalog.read() as tx:
        second = search(tx, Query(limit=3, cursor=first.cursor))
    assert [v.ref for v in first.items + second.items] == [f"a{i}:v1" for i in (5, 4, 3, 2, 1, 0)]


@pytest.mark.parametrize(
    "cursor", ["x", "", "W10", "WyJuYW1lIiwgMV0", "bm9uc2Vuc2U", "é", "WyJjcmVhdGVkIiwgInllc3RlcmRheSIsIDFd"]
)
def test_a_cursor_of_something_else_is_a_usage_error(catalog: Catalog, record, cursor: str):
    record("a")
    if cursor == "":
        assert find_refs(catalog, cursor=cursor) == ["a:v1"]
        return
    with pytest.raises(UsageError, match="this cursor is not of this search"):
        find_refs(catalog, cursor=cursor)
