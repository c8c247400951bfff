"""Pulls as events, where a team wants them: recorded as they begin, and removed when they are old."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, select

from loreg.catalog.schema import adapter_table, event_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.entities import PULL, Version
from loreg.errors import NotFoundError

#: After which events of pulls are removed, as others are recorded.
KEPT_FOR = timedelta(days=90)
_REMOVED_AT_ONCE = 2  # more than are added: what is too old goes, and no pull waits for many


def record(tx: Transaction, version: Version, client: str) -> None:
    """Record that the caller pulls a version with a ``client``. Raises NotFoundError if it was deleted meanwhile."""
    query = (
        select(version_table.c.id, version_table.c.adapter_id)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(adapter_table.c.namespace == version.adapter.namespace, adapter_table.c.name == version.adapter.name)
        .where(version_table.c.digest == version.digest)
    )
    row = tx.connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(f"{version.ref} was deleted", hint=f"loreg ls {version.adapter}")
    _remove_old(tx)
    tx.log(PULL, row.adapter_id, row.id, client=client)


def _remove_old(tx: Transaction) -> None:
    oldest = (
        select(event_table.c.id, event_table.c.at)
        .where(event_table.c.action == PULL)
        .order_by(event_table.c.id)
        .limit(_REMOVED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    too_old = [row.id for row in tx.connection.execute(oldest) if row.at < tx.at - KEPT_FOR]
    if too_old:
        tx.connection.execute(delete(event_table).where(event_table.c.id.in_(too_old)))
