"""Every event is read once, in whatever order the transactions commit."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import text

from catalog.conftest import Record
from loreg.catalog import Catalog, versions
from loreg.catalog.event_feed import FeedPosition, end_of_feed, parse_position, read_feed
from loreg.entities import Access
from loreg.errors import UsageError
from version_factories import new_version


def position_after_all(catalog: Catalog) -> FeedPosition:
    with catalog.read() as tx:
        return end_of_feed(tx)


def read(catalog: Catalog, position: FeedPosition, limit: int = 100) -> tuple[list[str], FeedPosition]:
    with catalog.read() as tx:
        events, after = read_feed(tx, position, limit)
    return [f"{event.event.action} {event.event.ref}" for event in events], after


def test_events_are_read_from_a_position_on(catalog: Catalog, record: Record):
    record("team/a")
    start = position_after_all(catalog)
    assert read(catalog, start) == ([], start)
    record("team/b")
    record("team/c", aliases=["prod"])
    first, middle = read(catalog, start, limit=2)
    assert first == ["push team/b:v1", "push team/c:v1"]
    assert read(catalog, parse_position(str(middle)))[0] == ["tag team/c:v1"]


def test_an_event_that_is_committed_after_one_with_a_higher_id_is_not_lost(postgres_url: str):
    catalog = Catalog(postgres_url)
    start = position_after_all(catalog)
    writer = Access.superuser("ada")
    with catalog.write(writer) as slow:
        versions.record(slow, new_version("team/slow", "slow"))
        with catalog.write(writer) as quick:
            versions.record(quick, new_version("team/quick", "quick"))
        events, after = read(catalog, start)
        joined_meanwhile = position_after_all(catalog)
    assert events == ["push team/quick:v1"]
    assert read(catalog, parse_position(str(after)))[0] == ["push team/slow:v1"]
    events, last = read(catalog, joined_meanwhile)
    assert events == ["push team/slow:v1"]
    assert read(catalog, last)[0] == []


def test_an_id_that_never_comes_is_waited_for_ten_minutes(postgres_url: str):
    catalog = Catalog(postgres_url)
    with pytest.raises(ZeroDivisionError), catalog.write(Access.superuser("ada")) as tx:
        versions.record(tx, new_version("team/a", "a"))
        raise ZeroDivisionError
    with catalog.write(Access.superuser("ada")) as tx:
        versions.record(tx, new_version("team/b", "b"))
    start = FeedPosition(0)
    _, after = read(catalog, start)
    assert len(after.gaps) == 1
    gap, since = after.gaps[0]
    assert read(catalog, FeedPosition(after.last, ((gap, since - 601),)))[1].gaps == ()


def test_postgresql_tells_of_an_event_when_its_transaction_commits(postgres_url: str):
    catalog = Catalog(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as listener:
        listener.execute("LISTEN loreg_events")
        with catalog.write(Access.superuser("ada")) as tx:
            versions.record(tx, new_version("team/a", "a"))
            tx.connection.execute(text("SELECT 1"))
            assert list(listener.notifies(timeout=0.05)) == []
        assert len(list(listener.notifies(timeout=30, stop_after=1))) == 1


@pytest.mark.parametrize("position", ["x", "-1", "1-", "1-2", "1-2@3@4", "9" * 19, "1\n", "1-2@" + "9" * 13])
def test_what_is_no_position_is_refused(position: str):
    with pytest.raises(UsageError, match="no position"):
        parse_position(position)
