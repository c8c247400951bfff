"""What a collector does to garbage: mark what nothing refers to, claim it after the grace, settle what is removed.

What a version left that was deleted for good is marked as if it had been garbage since ever: any grace has passed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, or_, select, update

from loreg.catalog import references, removal_lock
from loreg.catalog.clock import now
from loreg.catalog.garbage import CLAIM, OF_DIGESTS, SINCE_EVER, lock, unmark
from loreg.catalog.schema import blob_table, garbage_table
from loreg.catalog.transaction import Transaction
from loreg.entities import Garbage, GarbageClaim, MarkedGarbage

_FORGET_AFTER = timedelta(days=7)  # longer than any push looks for a blob before it commits
_IS_DELETED = (garbage_table.c.marked_at == SINCE_EVER) & garbage_table.c.collected_at.is_(None)


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


def mark_deleted(tx: Transaction, sizes: Mapping[str, int]) -> None:
    """Mark blobs that nothing refers to, by digest with their sizes, to be removed without a grace."""
    is_back = OF_DIGESTS & garbage_table.c.collected_at.is_not(None)
    statement = update(garbage_table).where(is_back).values(claimed_at=None, collected_at=None)
    tx.connection.execute(statement, {"digests": sorted(sizes)})
    for digest, size in sorted(sizes.items()):
        tx.upsert(garbage_table, {"digest": digest, "size": size, "marked_at": SINCE_EVER})


def count_deleted(tx: Transaction) -> int:
    """Return the number of blobs that were marked by :func:`mark_deleted` and are not gone yet."""
    return tx.connection.execute(select(func.count()).where(_IS_DELETED)).scalar_one()


def claim_deleted(tx: Transaction, limit: int) -> GarbageClaim | None:
    """Claim up to ``limit`` of the blobs that were marked by :func:`mark_deleted`, as :func:`claim` does."""
    lock(tx, shared=False)
    return _claim(tx, _is_free(tx) & _IS_DELETED, limit)


def claim(tx: Transaction, grace: timedelta, limit: int) -> GarbageClaim | None:
    """Claim up to ``limit`` blobs that were marked longer than ``grace`` ago and that nothing refers to; None if none.

    The caller removes them from the store within half of ``CLAIM``, and calls :func:`settle` after that. What something
    refers to by now is not marked any more; what a push leases at this moment is left. While a backup is made, there is
    nothing to claim.
    """
    lock(tx, shared=False)
    return None if removal_lock.is_held(tx) else _claim(tx, _is_due(tx, grace), limit, skip_locked=True)


def _claim(
    tx: Transaction, is_due: ColumnElement[bool], limit: int, *, skip_locked: bool = False
) -> GarbageClaim | None:
    query = (
        select(garbage_table.c.digest, garbage_table.c.size)
        .where(is_due)
        .order_by(garbage_table.c.marked_at, garbage_table.c.digest)
        .limit(limit)
        .with_for_update(skip_locked=skip_locked)
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


def count_marked(tx: Transaction, within: timedelta | None = None) -> MarkedGarbage:
    """Return how many blobs are marked and not collected; of those marked ``within`` a time, if one is given."""
    columns = (func.count(), func.coalesce(func.sum(garbage_table.c.size), 0), func.min(garbage_table.c.marked_at))
    query = select(*columns).where(garbage_table.c.collected_at.is_(None))
    if within is not None:
        query = query.where(garbage_table.c.marked_at > now(tx, -within))
    count, size, since = tx.connection.execute(query).one()
    return MarkedGarbage(int(count), int(size), since)


def _is_due(tx: Transaction, grace: timedelta) -> ColumnElement[bool]:
    """Return the condition that a blob was marked longer than ``grace`` ago and that no collector removes it."""
    return _is_free(tx) & (garbage_table.c.marked_at <= now(tx, -grace))


def _is_free(tx: Transaction) -> ColumnElement[bool]:
    """Return the condition that a blob is not collected, and that no collector removes it at this moment."""
    is_unclaimed = or_(garbage_table.c.claimed_at.is_(None), garbage_table.c.claimed_at <= now(tx, -CLAIM))
    return garbage_table.c.collected_at.is_(None) & is_unclaimed
