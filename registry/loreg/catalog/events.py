"""Events: list who did what, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, String, literal, select

from loreg.catalog.paging import decode, encode
from loreg.catalog.schema import adapter_table, event_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.catalog.versions import find_adapter_id
from loreg.entities import ALL_EVENTS, PULL, Event, EventFilter, Page, Role
from loreg.refs import NO_NAMESPACE, AdapterName

# Written out: a database matches a partial index only with constants.
_IS_PULL = literal(PULL, String, literal_execute=True)


def list_page(tx: Transaction, limit: int, cursor: str | None, wanted: EventFilter = ALL_EVENTS) -> Page[Event]:
    """Return a page of the events that are wanted, newest first.

    They are those of readable adapters, and for an administrator all others too. Raises NotFoundError for an adapter
    that is not there.
    """
    query = select_events().where(*_conditions(tx, wanted))
    if not tx.access.may(Role.ADMIN, "*"):
        query = query.where(event_table.c.adapter_id.is_not(None), tx.visible(adapter_table.c.namespace))
    if cursor:
        query = query.where(event_table.c.id < decode(cursor, "events", (int,))[0])
    rows = tx.connection.execute(query.order_by(event_table.c.id.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    return Page(tuple(map(to_event, shown)), encode("events", [shown[-1].id]) if len(rows) > limit else None)


def _conditions(tx: Transaction, wanted: EventFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.adapter is not None:
        yield event_table.c.adapter_id == find_adapter_id(tx, wanted.adapter)
    if wanted.namespace:
        yield adapter_table.c.namespace == wanted.namespace.removeprefix(NO_NAMESPACE)
    if wanted.author:
        yield event_table.c.author == wanted.author
    if wanted.actions:
        yield event_table.c.action.in_(wanted.actions)
    if not wanted.pulls:
        yield event_table.c.action != _IS_PULL
    if wanted.since is not None:
        yield event_table.c.at >= wanted.since
    if wanted.until is not None:
        yield event_table.c.at < wanted.until


def find_last(tx: Transaction, action: str) -> Event | None:
    """Return the newest event of that action that is of no adapter; None if there is none."""
    query = select_events().where(event_table.c.adapter_id.is_(None), event_table.c.action == action)
    row = tx.connection.execute(query.order_by(event_table.c.id.desc()).limit(1)).one_or_none()
    return to_event(row) if row is not None else None


def select_events() -> Select[Any]:
    """Select events as rows that :func:`to_event` reads; ``namespace`` is null for what is of no adapter."""
    return (
        select(event_table, adapter_table.c.namespace, adapter_table.c.name, version_table.c.number)
        .outerjoin(adapter_table, adapter_table.c.id == event_table.c.adapter_id)
        .outerjoin(version_table, version_table.c.id == event_table.c.version_id)
    )


def to_event(row: Row[Any]) -> Event:
    """Return the event of a row of :func:`select_events`."""
    ref = str(AdapterName(row.namespace, row.name)) + (f":v{row.number}" if row.number else "") if row.name else ""
    return Event(row.id, row.at, row.author, row.action, ref, row.detail)
