"""How a metric went over the versions of many adapters is read at once, and only of what may be read."""

from __future__ import annotations

from catalog.conftest import Record
from loreg.catalog import Catalog
from loreg.catalog.metric_history import metric_history
from loreg.entities import Access, Metric
from loreg.refs import AdapterName

NEWS, LAW, PRIVATE = AdapterName("team", "news"), AdapterName("team", "law"), AdapterName("lab", "secret")


def accuracy(value: float, dataset: str = "imdb") -> Metric:
    return Metric("accuracy", value, dataset)


def test_the_numbers_of_several_adapters_come_by_version_the_oldest_first(catalog: Catalog, record: Record):
    for i, value in enumerate((0.7, 0.9, 0.8)):
        record("team/news", f"news {i}", metrics=(accuracy(value), accuracy(0.1, "sst2")))
    record("team/news", "unmeasured")
    record("team/law", "law", metrics=(accuracy(0.5),))
    measured = {NEWS: accuracy(0), LAW: accuracy(0), PRIVATE: accuracy(0)}
    with catalog.read() as tx:
        history = metric_history(tx, measured, {NEWS: 4, LAW: 1, PRIVATE: 1})
        assert metric_history(tx, {}, {}) == {}
    assert history == {NEWS: [(1, 0.7), (2, 0.9), (3, 0.8)], LAW: [(1, 0.5)]}


def test_of_what_may_not_be_read_there_is_no_number(catalog: Catalog, record: Record):
    record("lab/secret", "one", metrics=(accuracy(0.7),))
    for permissions, is_told in (({}, False), ({"team": "admin"}, False), ({"lab": "read"}, True)):
        with catalog.read(Access("x", permissions)) as tx:
            assert bool(metric_history(tx, {PRIVATE: accuracy(0)}, {PRIVATE: 1})) is is_told


def test_of_a_long_history_what_is_near_is_read(catalog: Catalog, record: Record):
    for i in range(70):
        record("team/news", f"news {i}", metrics=(accuracy(i),))
    with catalog.read() as tx:
        history = metric_history(tx, {NEWS: accuracy(0)}, {NEWS: 35})
    assert [number for number, _ in history[NEWS]] == list(range(5, 66))
