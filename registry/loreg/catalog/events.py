"""Events: list who did what, and when."""

from __future__ import annotations

from sqlalchemy import select

from loreg.catalog.paging import decode, encode
from loreg.catalog.schema import AdapterRow, EventRow, VersionRow
from loreg.catalog.transaction import Transaction
from loreg.entities import Event, Page, Role
from loreg.refs import AdapterName


def list_page(tx: Transaction, limit: int, cursor: str | None) -> Page[Event]:
    """Return a page of events, newest first: those of readable adapters, and for an administrator all others too."""
    query = (
        select(EventRow, AdapterRow.namespace, AdapterRow.name, VersionRow.number)
        .outerjoin(AdapterRow, AdapterRow.id == EventRow.adapter_id)
        .outerjoin(VersionRow, VersionRow.id == EventRow.version_id)
    )
    if not tx.access.may(Role.ADMIN, "*"):
        query = query.where(EventRow.adapter_id.is_not(None), tx.visible(AdapterRow.namespace))
    if cursor:
        query = query.where(EventRow.id < decode(cursor, "events", (int,))[0])
    rows = tx.connection.execute(query.order_by(EventRow.id.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    events = (
        Event(
            row.id,
            row.at,
            row.author,
            row.action,
            (str(AdapterName(row.namespace, row.name)) + (f":v{row.number}" if row.number else "")) if row.name else "",
            row.detail,
        )
        for row in shown
    )
    return Page(tuple(events), encode("events", [shown[-1].id]) if len(rows) > limit else None)
