"""The events in the order in which they are committed, for those who want every one of them once.

An event gets its id before its transaction commits: one with a lower id may come later. A position is therefore the
last id that was read, with the ids below it that were not there yet.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from sqlalchemy import func, or_, select

from loreg.catalog.events import select_events, to_event
from loreg.catalog.schema import event_table, namespace_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.entities import PULL, Access, Event, Role
from loreg.errors import UsageError
from loreg.refs import AdapterName, AdapterPattern
from loreg.value import Value

#: What PostgreSQL notifies of each event on; see migration 0014.
CHANNEL = "loreg_events"
_GAP_LIFE = 600  # seconds: an id that has not come by then was of a transaction that was rolled back
_MAX_GAPS = 1000
_POSITION = re.compile(r"(\d{1,18})((?:-\d{1,18}@\d{1,12}){0,1000})")


class FeedEvent(Value, frozen=True):
    """An event, and the adapter that it is about, if it is about one."""

    event: Event
    adapter: AdapterName | None

    @property
    def is_pull(self) -> bool:
        """Whether it tells that somebody pulled a version: nothing has changed."""
        return self.event.action == PULL

    def is_for(self, access: Access, public: Collection[str], patterns: Collection[AdapterPattern]) -> bool:
        """Return whether the caller may read the event, and its adapter matches one of ``patterns``, if there are any.

        ``public`` are the namespaces that everybody may read.
        """
        if self.adapter is None:
            return not patterns and access.may(Role.ADMIN, "*")
        may_read = self.adapter.namespace in public or access.may(Role.READ, self.adapter.namespace)
        return may_read and (not patterns or any(pattern.matches(self.adapter) for pattern in patterns))


class FeedPosition(Value, frozen=True):
    """How far the events were read: up to the id ``last``, without those in ``gaps``, each since when, in seconds."""

    last: int
    gaps: tuple[tuple[int, int], ...] = ()

    def lacks(self, event_id: int) -> bool:
        """Return whether the event with this id was not read yet."""
        return event_id > self.last or any(gap == event_id for gap, _ in self.gaps)

    def __str__(self) -> str:
        return "-".join((str(self.last), *(f"{gap}@{since}" for gap, since in self.gaps)))


def parse_position(text: str) -> FeedPosition:
    """Return the position that ``str`` made a text of. Raises UsageError."""
    match = _POSITION.fullmatch(text)
    if match is None:
        raise UsageError(f"{text[:70]!r} is no position among the events", hint="leave it out to begin with the next")
    gaps = (gap.split("@") for gap in match[2].split("-")[1:])
    return FeedPosition(int(match[1]), tuple((int(gap), int(since)) for gap, since in gaps))


def end_of_feed(tx: Transaction) -> FeedPosition:
    """Return the position after every event that is committed."""
    last = tx.connection.execute(select(func.coalesce(func.max(event_table.c.id), 0))).scalar_one()
    start = FeedPosition(max(0, last - _MAX_GAPS))
    query = select(event_table.c.id).where(event_table.c.id > start.last).order_by(event_table.c.id)
    return _advance(start, tx.connection.execute(query).scalars(), int(tx.at.timestamp()))


def read_feed(tx: Transaction, position: FeedPosition, limit: int) -> tuple[tuple[FeedEvent, ...], FeedPosition]:
    """Return up to ``limit`` events after the position, those of all adapters, and the position after them."""
    unread = or_(event_table.c.id > position.last, event_table.c.id.in_([gap for gap, _ in position.gaps]))
    rows = tx.connection.execute(select_events().where(unread).order_by(event_table.c.id).limit(limit)).all()
    events = (FeedEvent(to_event(row), AdapterName(row.namespace, row.name) if row.name else None) for row in rows)
    return tuple(events), _advance(position, [row.id for row in rows], int(tx.at.timestamp()))


def list_public(tx: Transaction) -> frozenset[str]:
    """Return the names of the namespaces that everybody may read."""
    return frozenset(tx.connection.execute(select(namespace_table.c.name).where(namespace_table.c.public)).scalars())


def _advance(position: FeedPosition, ids: Iterable[int], now: int) -> FeedPosition:
    """Return the position after the events with these ids, in their order; gaps that are too old are forgotten."""
    known, last = set(), position.last
    gaps = {gap: since for gap, since in position.gaps if now - since < _GAP_LIFE}
    for id_ in ids:
        known.add(id_)
        gaps |= dict.fromkeys(range(max(last + 1, id_ - _MAX_GAPS), id_), now)
        last = max(last, id_)
    remaining = sorted(item for item in gaps.items() if item[0] not in known)
    return FeedPosition(last, tuple(remaining[-_MAX_GAPS:]))


def digests_of(tx: Transaction, event_ids: Collection[int]) -> dict[int, str]:
    """Return the digests of the versions that these events are about, by the event's id."""
    query = (
        select(event_table.c.id, version_table.c.digest)
        .join(version_table, version_table.c.id == event_table.c.version_id)
        .where(event_table.c.id.in_(list(event_ids)))
    )
    return {row.id: row.digest for row in tx.connection.execute(query)}
