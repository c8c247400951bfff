"""Search finds exactly what holds every condition, page by page, in one statement."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import event

from loreg.catalog import Catalog, Transaction, bases, versions
from loreg.catalog.facets import count_facets
from loreg.catalog.search import search
from loreg.catalog.text_query import TextSample, TextShare
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
    ({"text": "reviews more"}, ["team/movies:v1"]),
    ({"text": "snake_case"}, ["code:v1"]),
    ({"text": "100%"}, ["team/movies:v1"]),
    ({"text": "snakeXcase"}, []),
    ({"text": "snake model news"}, []),
    ({"text": "movi"}, ["team/movies:v1"]),
    ({"text": "movi team"}, []),
    ({"text": "topics"}, ["team/news:v1"]),
    ({"text": "dora llama"}, ["code:v1"]),
    ({"text": "k_proj"}, ["team/movies:v1"]),
    ({"text": "owner:grace"}, ["team/movies:v1"]),
    ({"text": "'; DROP TABLE versions; --"}, []),
    ({"text": "news OR movies"}, []),
    ({"text": '"news" | !movies:*'}, []),
    ({"sort": parse_sort("name")}, ["code:v1", "team/movies:v1", "team/news:v1"]),
    ({"sort": parse_sort("rank")}, ["team/news:v1", "team/movies:v1", "code:v1"]),
    ({"sort": parse_sort("size")}, ["team/movies:v1", "team/news:v1", "code:v1"]),
    ({"sort": parse_sort("metric:accuracy")}, ["team/news:v1", "team/movies:v1"]),
    ({"sort": parse_sort("metric:accuracy@imdb")}, ["team/movies:v1"]),
]


@pytest.mark.parametrize(("conditions", "expected"), CASES, ids=[str(c)[:60] for c, _ in CASES])
def test_conditions(catalog: Catalog, three, conditions, expected):
    assert find_refs(catalog, **conditions) == expected


@pytest.mark.parametrize("text", ["_", "\\", "%", "--"])
def test_a_text_without_a_word_is_a_usage_error(catalog: Catalog, text: str):
    with pytest.raises(UsageError, match="has no letter and no digit to search for"):
        find_refs(catalog, text=text)


def test_a_text_of_many_words_is_searched_for_and_one_of_too_many_is_a_usage_error(catalog: Catalog, record):
    record("team/news", card=" ".join(f"w{i}" for i in range(400)))
    assert by_relevance(catalog, " ".join(f"w{i}" for i in range(32))) == ["team/news:v1"]
    for text in (" ".join(f"w{i}" for i in range(33)), "w " * 10_000):
        with pytest.raises(UsageError, match="a search has at most 32 words"):
            by_relevance(catalog, text)


def by_relevance(catalog: Catalog, text: str, **conditions: Any) -> list[str]:
    return find_refs(catalog, text=text, sort=parse_sort("relevance"), **conditions)


def test_a_name_is_found_by_each_of_its_words(catalog: Catalog, record):
    record("team/news-topics_r8")
    for word in ("topics", "news", "r8", "NEWS", "topics team", "news-topics_r8", "top"):
        assert by_relevance(catalog, word) == ["team/news-topics_r8:v1"], word


def test_a_word_counts_most_in_the_name_then_in_task_and_base_then_in_labels_then_in_the_card(catalog: Catalog, record):
    record("d", card="A model for news")
    record("a-news")
    record("c", labels={"source": "news"})
    record("b", tasks=("news",))
    record("e", message="not news", card="Also news")
    record("f", base_hint="org/news-base")
    assert by_relevance(catalog, "news") == ["a-news:v1", "f:v1", "b:v1", "c:v1", "e:v1", "d:v1"]


def test_words_in_any_script_are_found_whatever_their_case(catalog: Catalog, record):
    record("a", card="Größere Übung, ΣΊΣΥΦΟΣ, новости, ﬁne")
    for word in ("größere", "GRÖSSERE", "übung", "U\u0308bung", "σίσυφος", "НОВОСТИ", "fine"):
        assert by_relevance(catalog, word) == ["a:v1"], word
    assert by_relevance(catalog, "ubung x") == []


def test_a_card_of_any_size_is_kept_in_words(catalog: Catalog, record):
    record("a", card="first " + " ".join(f"word{number:x}" for number in range(60_000)) + " last")
    record("b", "b", card="x" * 65_000)
    assert by_relevance(catalog, "first") == ["a:v1"]
    assert by_relevance(catalog, "x" * 500) == ["b:v1"]


def test_a_base_is_found_by_a_name_that_it_got_later(catalog: Catalog, record):
    base = BaseModel("ab" * 32, ("org/llama",), 3, 100)
    with catalog.write(Access.superuser("ada")) as tx:
        bases.record(tx, base, 1)
    record("known", base=base)
    with catalog.write(Access.superuser("ada")) as tx:
        bases.record(tx, replace(base, names=("org/maverick-17b",)), 1)
    assert by_relevance(catalog, "maverick") == ["known:v1"]
    assert by_relevance(catalog, "maverick known") == ["known:v1"]
    assert by_relevance(catalog, "llam") == ["known:v1"]


def test_what_is_said_of_a_version_later_is_found_too(catalog: Catalog, record):
    record("a", "x", base_hint="org/llama")
    record("a", "x", tasks=("summaries",), labels={"owner": "grace"})
    for word in ("summaries", "grace", "owner", "llama"):
        assert by_relevance(catalog, word) == ["a:v1"], word


def test_a_path_of_a_base_is_found_by_its_last_part_alone(catalog: Catalog, record):
    record("a", base_hint="/home/ada/secret/llama-8b")
    assert by_relevance(catalog, "llama") == ["a:v1"]
    assert by_relevance(catalog, "secret") == []


def test_of_a_text_that_many_match_the_newest_are_ranked(catalog: Catalog, record, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loreg.catalog.relevance.MAX_RANKED", 3)
    record("news")
    for name in "abc":
        record(name, card="news")
    with catalog.read() as tx:
        # another shape than those of other tests: a statement is built once
        page = search(tx, Query(text="news", sort=parse_sort("relevance"), author="ada", limit=3))
    assert ([version.ref for version in page.items], page.ranked) == (["c:v1", "b:v1", "a:v1"], 3)
    with catalog.read() as tx:
        assert search(tx, Query(text="a", sort=parse_sort("relevance"), author="ada", limit=3)).ranked is None


def test_versions_that_are_not_shown_hide_no_older_ones(catalog: Catalog, record, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loreg.catalog.relevance.MAX_RANKED", 4)
    record("open/first", card="weather")
    for content in "123456":
        record("open/often", content, card="weather")
    record("secret/other", card="weather")
    with catalog.read() as tx:
        page = search(tx, Query(text="weather", sort=parse_sort("relevance"), limit=7))  # a shape of its own
    assert [version.ref for version in page.items] == ["secret/other:v1", "open/often:v6", "open/first:v1"]
    with catalog.read(Access("ada", {"open": "read"})) as tx:
        page = search(tx, Query(text="weather", sort=parse_sort("relevance"), limit=7))
    assert [version.ref for version in page.items] == ["open/often:v6", "open/first:v1"]


@pytest.mark.parametrize(
    "sample",
    [
        *map(TextSample, TextShare),
        TextSample(TextShare.UNCOMMON, 2),  # more have it than was expected: one of them is older
        TextSample(TextShare.UNCOMMON, 1000),
    ],
    ids=str,
)
def test_however_common_a_text_is_the_same_is_found(
    catalog: Catalog, record, monkeypatch: pytest.MonkeyPatch, sample: TextSample
):
    with catalog.read() as tx:
        if tx.connection.dialect.name == "sqlite" and sample.share != TextShare.RARE:
            pytest.skip("SQLite takes the newest from its index")
    monkeypatch.setattr("loreg.catalog.search.sample_text", lambda *_: sample)
    record("sports", "1", card="news of the day")
    record("sports", "2", tasks=("news",))
    record("news", card="the day", tasks=("sports",))
    record("a", card="nothing")
    record("b", card="newsletter and news")
    assert by_relevance(catalog, "news") == ["news:v1", "sports:v2", "b:v1"]
    assert by_relevance(catalog, "day news") == ["news:v1"]
    assert by_relevance(catalog, "day news", all_versions=True) == ["news:v1", "sports:v1"]
    assert by_relevance(catalog, "news", tasks=("sports",)) == ["news:v1"]
    assert by_relevance(catalog, "news", tasks=("news",)) == ["sports:v2"]
    pages, cursor = [], None
    while cursor or not pages:
        with catalog.read() as tx:
            page = search(tx, Query(text="news", sort=parse_sort("relevance"), limit=1, cursor=cursor))
        pages += [version.ref for version in page.items]
        cursor = page.cursor
    assert pages == ["news:v1", "sports:v2", "b:v1"]
    with catalog.read() as tx:
        assert count_facets(tx, Query(text="news")).versions == 3


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
    order=st.sampled_from(["created", "name", "rank", "size", "metric:f1", "best:f1", "relevance"]),
    limit=st.integers(1, 8),
)
def test_pages_together_are_the_whole_each_version_once(catalog: Catalog, record, order: str, limit: int):
    best = order == "best:f1"
    for i in range(17):
        metrics = (parse_metric(f"f1={i % 3}"),)
        words = {"message": "ns" * (i % 2), "tasks": ("ns",) * (i % 3)}
        record(f"ns{i % 2}/a{i % 5}", f"content {i}", ranks=(1, i % 4 + 1), size=i % 3, metrics=metrics, **words)
    sort = parse_sort(order.replace("best", "metric"))
    text = "ns" * (order == "relevance")
    query = Query(text=text, sort=sort, best=best, limit=limit, all_versions=True)
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


def test_a_version_pushed_while_someone_pages_a_text_moves_nothing(catalog: Catalog, record):
    for i in range(6):
        record(f"a{i}", message="news")
    query = Query(text="news", sort=parse_sort("relevance"), limit=3)
    with catalog.read() as tx:
        first = search(tx, query)
    record("late", message="news")
    record("news")
    with catalog.read() as tx:
        second = search(tx, replace(query, cursor=first.cursor))
    assert [v.ref for v in first.items + second.items] == [f"a{i}:v1" for i in (5, 4, 3, 2, 1, 0)]


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


class TestNearNames:
    """What is the name of no task or base means those that are near."""

    @pytest.fixture
    def four(self, catalog: Catalog, record) -> None:
        base = BaseModel("ab" * 32, ("sentence-transformers/all-MiniLM-L6-v2",), 3, 100)
        with catalog.write(Access.superuser("ada")) as tx:
            bases.record(tx, base, 1)
        record("news", tasks=("news-topics", "en"), base=base)
        record("posts", tasks=("post-topics",), base_hint="sentence-transformers/all-MiniLM-L12-v2")
        record("reviews", tasks=("Sentiment",), base_hint="HuggingFaceTB/SmolLM2-135M")
        record("path", tasks=("summaries",), base_hint="/home/ada/minilm-secret")

    @pytest.mark.parametrize(
        ("conditions", "names", "refs"),
        [
            ({"tasks": ("topic",)}, ("news-topics", "post-topics"), ["posts:v1", "news:v1"]),
            ({"tasks": ("topics",)}, ("news-topics", "post-topics"), ["posts:v1", "news:v1"]),
            ({"tasks": ("sentiment",)}, ("Sentiment",), ["reviews:v1"]),
            ({"tasks": ("summary",)}, ("summaries",), ["path:v1"]),
            ({"tasks": ("post_topic",)}, ("post-topics",), ["posts:v1"]),
            ({"tasks": ("topic", "en")}, ("news-topics", "post-topics"), ["news:v1"]),
            ({"base": "smollm2-135m"}, ("HuggingFaceTB/SmolLM2-135M",), ["reviews:v1"]),
            ({"base": "l6"}, ("sentence-transformers/all-MiniLM-L6-v2",), ["news:v1"]),
            (
                {"base": "minilm"},
                ("sentence-transformers/all-MiniLM-L12-v2", "sentence-transformers/all-MiniLM-L6-v2"),
                ["posts:v1", "news:v1"],
            ),
            ({"base": "smollm", "tasks": ("Sentiment",)}, ("HuggingFaceTB/SmolLM2-135M",), ["reviews:v1"]),
        ],
        ids=str,
    )
    def test_are_taken_and_told(self, catalog: Catalog, four, conditions, names, refs):
        with catalog.read() as tx:
            page = search(tx, Query(**conditions))
        assert [match.names for match in page.matches] == [names]
        assert [version.ref for version in page.items] == refs

    def test_are_not_looked_for_where_the_name_is_right(self, catalog: Catalog, four):
        for conditions in ({"tasks": ("en",)}, {"tasks": ("en",), "author": "grace"}, {"base": "ababab"}):
            with catalog.read() as tx:
                assert search(tx, Query(**conditions)).matches == ()

    def test_are_suggested_where_none_is_near(self, catalog: Catalog, four):
        with catalog.read() as tx:
            page = search(tx, Query(tasks=("sentimnet",), base="smolm-135m"))
        assert page.items == ()
        assert [(match.word, match.names, match.suggestions) for match in page.matches] == [
            ("sentimnet", (), ("Sentiment",)),
            ("smolm-135m", (), ("HuggingFaceTB/SmolLM2-135M",)),
        ]

    def test_come_in_pages_that_end_if_they_mean_others_by_then(self, catalog: Catalog, four, record):
        query = Query(tasks=("topic",), limit=1)
        with catalog.read() as tx:
            first = search(tx, query)
            second = search(tx, replace(query, cursor=first.cursor))
        assert [v.ref for v in first.items + second.items] == ["posts:v1", "news:v1"]
        assert second.matches == first.matches
        record("another", tasks=("topic",))
        with catalog.read() as tx, pytest.raises(UsageError, match="this cursor is not of this search"):
            search(tx, replace(query, cursor=first.cursor))

    def test_are_those_of_what_may_be_read(self, catalog: Catalog, record):
        record("secret/a", tasks=("hidden-topics",), base_hint="org/hidden")
        record("open/a", "x", tasks=("open-topics",), base_hint="org/open")
        with catalog.read(Access("eve", {"open": "read"})) as tx:
            assert search(tx, Query(tasks=("topic",))).matches[0].names == ("open-topics",)
            for query in (Query(tasks=("hidden-topics",)), Query(base="org/hidden"), Query(tasks=("hidden",))):
                page = search(tx, query)
                assert (page.items, "hidden-" in repr(page.matches[0].suggestions)) == ((), False)
                assert page.matches[0].names == ()

    def test_are_not_of_yanked_versions(self, catalog: Catalog, record):
        version = record("a", tasks=("news-topics",))
        with catalog.write(Access.superuser("ada")) as tx:
            versions.set_yanked(tx, versions.resolve(tx, parse_ref(version.ref)), True)
        with catalog.read() as tx:
            assert search(tx, Query(tasks=("topic",))).matches[0].names == ()
