"""Blobs on their way out of the store, and what saves one from that. Come here to see why no version loses a blob.

A row of the table is a blob that nothing referred to when it was marked.

- *marked*: it may be collected when the grace has passed. Whoever is about to use it deletes the row (:func:`lease`,
  :func:`protect`): it must be marked again, and wait again.
- *claimed*: one collector removes the object at this moment. Nobody may refer to the blob meanwhile. A claim ends after
  ``CLAIM``: then no request of a collector that died can reach the store any more.
- *collected*: the object is gone. The row stays for a week, so that whoever looked for the object before looks again.

Claims and references exclude each other: a collector (:mod:`loreg.catalog.collection`) looks for references under a
lock of its own, and whoever adds one calls :func:`protect` before, which takes the same lock, shared. All times are the
database's.

Whoever locks an adapter locks it before that lock, and that before rows of the table, which are locked in the order of
their digests: of two who wait for each other PostgreSQL would send one back.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from sqlalchemy import BigInteger, bindparam, case, delete, func, literal, select, update

from loreg.catalog.clock import now
from loreg.catalog.schema import garbage_table
from loreg.catalog.transaction import Sighting, Transaction
from loreg.errors import CollectedError

CLAIM = timedelta(minutes=15)
SINCE_EVER = datetime(1970, 1, 1, tzinfo=UTC)  # the time of the marks of what was deleted for good
#: The condition that a row is of one of the parameter ``digests``.
OF_DIGESTS = garbage_table.c.digest.in_(bindparam("digests", expanding=True))
_LOCK = 0x6C6F726567  # the key of PostgreSQL's advisory lock; SQLite has one writer at a time


class StaleSightingError(Exception):
    """Blobs that a transaction wants to refer to were collected; whether they came back only the store knows.

    It is no error of a caller's: whoever writes references asks the store, and tries again.
    """

    def __init__(self, sightings: tuple[Sighting, ...]) -> None:
        super().__init__(f"blob {sightings[0].sha256[:12]} was removed meanwhile by loreg gc")
        self.sightings = sightings


def lease(tx: Transaction, digests: Collection[str]) -> None:
    """Keep blobs that the caller is about to look for: one that is marked must be marked again, and wait again."""
    is_marked = OF_DIGESTS & garbage_table.c.claimed_at.is_(None)
    query = select(garbage_table.c.digest).where(is_marked)
    marked = tx.connection.execute(query, {"digests": sorted(digests)}).scalars().all()
    if marked and _lock_rows(tx, marked):
        tx.connection.execute(delete(garbage_table).where(is_marked), {"digests": sorted(marked)})


def protect(tx: Transaction, digests: Collection[str]) -> None:
    """Let nothing remove the blobs, to which this transaction adds references; call it before it does.

    Raises CollectedError for blobs that are being removed now, and StaleSightingError for those that were removed: then
    the store must be asked, and :func:`confirm` called, before another attempt. Those that the transaction itself calls
    confirmed may be referred to.
    """
    lock(tx, shared=True)
    is_busy = (garbage_table.c.collected_at.is_(None)) & (garbage_table.c.claimed_at > now(tx, -CLAIM))
    query = select(garbage_table, case((is_busy, 1), else_=0).label("is_busy")).where(OF_DIGESTS)
    rows = tx.connection.execute(query, {"digests": sorted(digests)}).all()
    if busy := next((row.digest for row in rows if row.is_busy), ""):
        raise CollectedError(f"blob {busy[:12]} is being removed by loreg gc", hint="push again in a minute")
    seen = [Sighting(row.digest, row.collected_at or row.claimed_at) for row in rows if row.claimed_at]
    if gone := tuple(sighting for sighting in seen if sighting not in tx.confirmed):
        raise StaleSightingError(gone)
    unmark(tx, [row.digest for row in rows])


def confirm(tx: Transaction, sightings: Collection[Sighting]) -> None:
    """Record that the store, asked after these sightings, has the blobs: nothing removes them but a new claim.

    What a deletion marked stays marked until something refers to it: the transaction that wants to may be refused.
    """
    for sighting in sorted(sightings, key=lambda item: item.sha256):  # one order: no deadlock
        is_same = func.coalesce(garbage_table.c.collected_at, garbage_table.c.claimed_at) == sighting.at
        is_row = (garbage_table.c.digest == sighting.sha256) & is_same
        again = update(garbage_table).where(is_row, garbage_table.c.marked_at == SINCE_EVER)
        tx.connection.execute(again.values(claimed_at=None, collected_at=None))
        tx.connection.execute(delete(garbage_table).where(is_row))


def unmark(tx: Transaction, digests: Collection[str]) -> None:
    """Forget that blobs were marked."""
    if digests and _lock_rows(tx, digests):
        tx.connection.execute(delete(garbage_table).where(OF_DIGESTS), {"digests": sorted(digests)})


def _lock_rows(tx: Transaction, digests: Collection[str]) -> bool:
    """Lock the rows in one order, so that two who delete the same ones do not wait for each other."""
    query = select(garbage_table.c.digest).where(OF_DIGESTS).order_by(garbage_table.c.digest).with_for_update()
    return tx.connection.execute(query, {"digests": sorted(digests)}).first() is not None


def lock(tx: Transaction, *, shared: bool) -> None:
    """Lock what is referred to against collectors, or with ``shared`` false against whoever adds a reference."""
    if tx.connection.dialect.name == "postgresql":
        take = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
        tx.connection.execute(select(take(literal(_LOCK, BigInteger))))
