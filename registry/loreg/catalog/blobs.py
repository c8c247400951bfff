"""Which blobs were stored, whether or not a version has them."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select

from loreg.catalog import garbage
from loreg.catalog.schema import blob_table
from loreg.catalog.transaction import Transaction


def record(tx: Transaction, sizes: Mapping[str, int], manifest: str = "") -> None:
    """Record the sizes in bytes of blobs that are stored, by digest, before references to them; keep what is recorded.

    ``manifest`` is the digest of a manifest that is stored too, whose size is not recorded.
    Raises CollectedError for blobs that were removed from the store, or are at this moment.
    """
    garbage.protect(tx, [*sizes, manifest] if manifest else sizes)
    rows = [{"digest": digest, "size": size} for digest, size in sorted(sizes.items())]  # one order: no deadlock
    tx.insert_missing(blob_table, rows)


def any_exist(tx: Transaction) -> bool:
    """Whether any blob is recorded."""
    return tx.connection.execute(select(blob_table.c.digest).limit(1)).first() is not None
