"""Tombstones: what a version that is gone leaves, so that nobody gets its number; a banned one stays away for good."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, and_, false, insert, or_, select, update

from loreg.catalog.bases import digest_range
from loreg.catalog.schema import adapter_table, tombstone_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.entities import Tombstone
from loreg.errors import NotAllowedError
from loreg.refs import AdapterName, Ref


def put(tx: Transaction, adapter_id: int, tombstone: Tombstone) -> None:
    """Record that a version is gone."""
    values = {
        "adapter_id": adapter_id,
        "number": tombstone.number,
        "digest": tombstone.digest,
        "weights": tombstone.weights,
        "is_banned": tombstone.is_banned,
        "reason": tombstone.reason,
        "author": tombstone.author,
        "at": tombstone.at,
    }
    tx.connection.execute(insert(tombstone_table), values)


def find(tx: Transaction, adapter_id: int, ref: Ref) -> Tombstone | None:
    """Return the tombstone of the version that ``ref`` names by number or digest; None if it has none."""
    if ref.number is None and ref.digest is None:
        return None
    query = select(tombstone_table).where(tombstone_table.c.adapter_id == adapter_id)
    if ref.number is not None:
        query = query.where(tombstone_table.c.number == ref.number)
    if ref.digest is not None:
        first, end = digest_range(ref.digest)
        query = query.where(tombstone_table.c.digest >= first, tombstone_table.c.digest < end)
    row = tx.connection.execute(query.order_by(tombstone_table.c.number.desc()).limit(1)).first()
    return _to_tombstone(row) if row is not None else None


def ban(tx: Transaction, adapter_id: int, tombstone: Tombstone, reason: str) -> None:
    """Ban a version that is gone already, with the reason that now holds."""
    is_row = (tombstone_table.c.adapter_id == adapter_id) & (tombstone_table.c.number == tombstone.number)
    values = {"is_banned": True, "weights": tombstone.weights, "reason": reason, "author": tx.author, "at": tx.at}
    tx.connection.execute(update(tombstone_table).where(is_row).values(**values))


def refuse_banned(tx: Transaction, digests: Collection[str], manifest: str = "") -> None:
    """Raise NotAllowedError if a version with one of these blobs, or with this manifest, was deleted for good.

    A blob is refused if it is the weights of such a version, or its manifest and no other version has that.
    """
    still_there = select(version_table.c.id).where(version_table.c.digest == tombstone_table.c.digest).exists()
    is_manifest: ColumnElement[bool] = tombstone_table.c.digest == manifest if manifest else false()
    query = (
        select(tombstone_table, adapter_table.c.namespace, adapter_table.c.name)
        .add_columns(tx.visible(adapter_table.c.namespace).label("is_visible"))
        .join(adapter_table, adapter_table.c.id == tombstone_table.c.adapter_id)
        .where(
            tombstone_table.c.is_banned,
            or_(
                tombstone_table.c.weights.in_(sorted(digests)),
                and_(tombstone_table.c.digest.in_(sorted(digests)), ~still_there),
                is_manifest,
            ),
        )
        .order_by(tombstone_table.c.at.desc())
        .limit(1)
    )
    row = tx.connection.execute(query).first()
    if row is None:
        return
    when = f"{row.at:%Y-%m-%d}"
    if not row.is_visible:  # whoever has the bytes is told no more than that
        raise NotAllowedError(f"this content was deleted from the registry: on {when}", hint="loreg ls")
    ref = f"{AdapterName(row.namespace, row.name)}:v{row.number}"
    raise NotAllowedError(
        f"this content was deleted from the registry: it was {ref}, on {when} by {row.author}: {row.reason}",
        hint="loreg events",
    )


def _to_tombstone(row: Any) -> Tombstone:
    return Tombstone(row.number, row.digest, row.weights, bool(row.is_banned), row.reason, row.author, row.at)
