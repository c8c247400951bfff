"""What a collector does to garbage: mark what nothing refers to, claim it after the grace, settle what is removed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update

from loreg.catalog import references
from loreg.catalog.clock import now
from loreg.catalog.garbage import CLAIM, OF_DIGESTS, lock, unmark
from loreg.catalog.schema import blob_table, garbage_table
from loreg.catalog.transaction import Transaction
from loreg.entities import Garbage, GarbageClaim, MarkedGarbage

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
    new = sorted(find_new(tx, sizes, listed_at))
    at = database_time(tx)
    tx.insert_missing(garbage_table, [{"digest": digest, "size": sizes[digest], "marked_at": at} for digest in new])
    return back.rowcount + len(new)


def find_new(tx: Transaction, digests: Collection[str], listed_at: datetime) -> frozenset[str]:
    """Return those of these digests that :func:`mark` would mark: those that are not marked, and no trace of it."""
    is_known = OF_DIGESTS & or_(garbage_table.c.collected_at.is_(None), garbage_table.c.collected_at >= listed_at)
    known = tx.connection.execute(select(garbage_table.c.digest).where(is_known), {"digests": sorted(digests)})
    return frozenset(digests) - set(known.scalars())


def claim(tx: Transaction, grace: timedelta, limit: int) -> GarbageClaim | None:
    """Claim up to ``limit`` blobs that were marked longer than ``grace`` ago and that nothing refers to; None if none.

    The caller removes them from the store within half of ``CLAIM``, and calls :func:`settle` after that. What something
    refers to by now is not marked any more.
    """
    lock(tx, shared=False)
    query = (
        select(garbage_table.c.digest, garbage_table.c.size)
        .where(_is_due(tx, grace))
        .order_by(garbage_table.c.marked_at, garbage_table.c.digest)
        .limit(limit)
        .with_for_update()
    )
    while sizes := {row.digest: row.size for row in tx.connection.execute(query)}:
        garbage = sorted(references.find_unreferenced(tx, sizes))
        unmark(tx, sizes.keys() - set(garbage))
        if garbage:
            at = database_time(tx)
            tx.connection.execute(update(garbage_table).where(OF_DIGESTS).values(claimed_at=at), {"digests": garbage})
            tx.connection.execute(delete(blob_table).where(blob_table.c.digest.in_(garbage)))
            return GarbageClaim(at, tuple(Garbage(digest, sizes[digest]) for digest in garbage))
    return None


def list_due(tx: Transaction, grace: timedelta, after: str, limit: int) -> tuple[tuple[Garbage, ...], str]:
    """Return what :func:`claim` would claim among the next ``limit`` digests behind ``after``, and the last of these.

    The last is empty at the end.
    """
    query = (
        select(garbage_table.c.digest, garbage_table.c.size)
        .where(_is_due(tx, grace), garbage_table.c.digest > after)
        .order_by(garbage_table.c.digest)
        .limit(limit)
    )
    sizes = {row.digest: row.size for row in tx.connection.execute(query)}
    garbage = references.find_unreferenced(tx, sizes) if sizes else ()
    return tuple(Garbage(digest, sizes[digest]) for digest in sorted(garbage)), max(sizes, default="")


def settle(tx: Transaction, digests: Collection[str], claimed_at: datetime) -> None:
    """Record that blobs claimed at that time are gone from the store; forget those that have been for a week.

    Nothing is recorded of a blob that another collector has claimed since: it may be there again.
    """
    statement = update(garbage_table).where(OF_DIGESTS, garbage_table.c.claimed_at == claimed_at)
    tx.connection.execute(statement.values(collected_at=now(tx)), {"digests": sorted(digests)})
    tx.connection.execute(delete(garbage_table).where(garbage_table.c.collected_at <= now(tx, -_FORGET_AFTER)))


def count_marked(tx: Transaction, within: timedelta | None) -> MarkedGarbage:
    """Return how many blobs are marked and not collected; of those marked ``within`` a time, if one is given."""
    columns = (func.count(), func.coalesce(func.sum(garbage_table.c.size), 0), func.min(garbage_table.c.marked_at))
    query = select(*columns).where(garbage_table.c.collected_at.is_(None))
    if within is not None:
        query = query.where(garbage_table.c.marked_at > now(tx, -within))
    count, size, since = tx.connection.execute(query).one()
    return MarkedGarbage(int(count), int(size), since)


def _is_due(tx: Transaction, grace: timedelta) -> ColumnElement[bool]:
    """Return the condition that a blob was marked longer than ``grace`` ago and that no collector removes it."""
    return and_(
        garbage_table.c.collected_at.is_(None),
        garbage_table.c.marked_at <= now(tx, -grace),
        or_(garbage_table.c.claimed_at.is_(None), garbage_table.c.claimed_at <= now(tx, -CLAIM)),
    )
