"""What a collector does to garbage: mark what nothing refers to, claim it after the grace, settle what is removed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from sqlalchemy import delete, func, or_, select, update

from loreg.catalog import references
from loreg.catalog.clock import now
from loreg.catalog.garbage import CLAIM, OF_DIGESTS, lock, unmark
from loreg.catalog.schema import blob_table, garbage_table
from loreg.catalog.transaction import Transaction
from loreg.entities import Garbage

_FORGET_AFTER = timedelta(days=7)  # longer than any push looks for a blob before it commits


def database_time(tx: Transaction) -> datetime:
    """Return the database's time, by which marks and claims are dated."""
    return tx.connection.execute(select(now(tx))).scalar_one()


def mark(tx: Transaction, sizes: Mapping[str, int], listed_at: datetime) -> int:
    """Mark blobs that nothing refers to, by digest with their sizes; return how many were not marked before.

    ``listed_at`` is when the listing of the store began that showed them. One that was collected before that is there
    again; of one that was collected since, the listing knows nothing. What is marked already keeps its time.
    """
    digests = {"digests": sorted(sizes)}
    is_back = OF_DIGESTS & (garbage_table.c.collected_at < listed_at)
    statement = update(garbage_table).where(is_back)
    back = tx.connection.execute(statement.values(marked_at=now(tx), claimed_at=None, collected_at=None), digests)
    known = set(tx.connection.execute(select(garbage_table.c.digest).where(OF_DIGESTS), digests).scalars())
    at = database_time(tx)
    new = [digest for digest in sorted(sizes) if digest not in known]
    tx.insert_missing(garbage_table, [{"digest": digest, "size": sizes[digest], "marked_at": at} for digest in new])
    return back.rowcount + len(new)


def claim(tx: Transaction, grace: timedelta, limit: int) -> tuple[Garbage, ...]:
    """Claim up to ``limit`` blobs that were marked longer than ``grace`` ago and that nothing refers to.

    The caller removes them from the store within half of ``CLAIM``, and calls :func:`settle` after that. What something
    refers to by now is not marked any more.
    """
    lock(tx, shared=False)
    query = (
        select(garbage_table.c.digest, garbage_table.c.size)
        .where(
            garbage_table.c.collected_at.is_(None),
            garbage_table.c.marked_at <= now(tx, -grace),
            or_(garbage_table.c.claimed_at.is_(None), garbage_table.c.claimed_at <= now(tx, -CLAIM)),
        )
        .order_by(garbage_table.c.marked_at, garbage_table.c.digest)
        .limit(limit)
        .with_for_update()
    )
    while sizes := {row.digest: row.size for row in tx.connection.execute(query)}:
        garbage = sorted(references.find_unreferenced(tx, sizes))
        unmark(tx, sizes.keys() - set(garbage))
        if garbage:
            at = database_time(tx)
            statement = update(garbage_table).where(OF_DIGESTS).values(claimed_at=at)
            tx.connection.execute(statement, {"digests": garbage})
            tx.connection.execute(delete(blob_table).where(blob_table.c.digest.in_(garbage)))
            return tuple(Garbage(digest, sizes[digest], at) for digest in garbage)
    return ()


def settle(tx: Transaction, garbage: Collection[Garbage]) -> None:
    """Record that claimed blobs are gone from the store; forget those that have been for a week.

    A collector that was slow may not settle what another one has claimed since, and is removing now.
    """
    for at in sorted({blob.claimed_at for blob in garbage}):
        is_own = OF_DIGESTS & (garbage_table.c.claimed_at == at) & garbage_table.c.collected_at.is_(None)
        digests = sorted(blob.sha256 for blob in garbage if blob.claimed_at == at)
        statement = update(garbage_table).where(is_own).values(collected_at=now(tx))
        tx.connection.execute(statement, {"digests": digests})
    tx.connection.execute(delete(garbage_table).where(garbage_table.c.collected_at <= now(tx, -_FORGET_AFTER)))


def count_marked(tx: Transaction) -> tuple[int, int]:
    """Return the number and the bytes of the blobs that are marked and not collected."""
    count = select(func.count(), func.coalesce(func.sum(garbage_table.c.size), 0))
    row = tx.connection.execute(count.where(garbage_table.c.collected_at.is_(None))).one()
    return int(row[0]), int(row[1])
