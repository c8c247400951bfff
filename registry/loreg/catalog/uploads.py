"""Uploads that clients announced to a server: who may commit which blob before any version has it."""

from __future__ import annotations

import functools
from collections.abc import Collection
from datetime import timedelta

import msgspec
from sqlalchemy import Select, bindparam, case, delete, func, insert, or_, select, union, update

from loreg.catalog import blobs
from loreg.catalog.compiled import AnyOf, text_array
from loreg.catalog.schema import (
    adapter_table,
    base_table,
    blob_table,
    export_file_table,
    export_table,
    file_table,
    upload_table,
    version_table,
)
from loreg.catalog.transaction import Transaction, visible_to
from loreg.entities import GarbageCount, GarbageKind, Upload
from loreg.errors import NotFoundError

#: An upload that no push has committed for so long is forgotten.
EXPIRES_AFTER = timedelta(days=7)
_RESERVE = insert(upload_table)
_FIND = select(upload_table.c.id, upload_table.c.digest, upload_table.c.size, upload_table.c.received).where(
    upload_table.c.id.in_(bindparam("ids", expanding=True)), upload_table.c.owner == bindparam("author")
)


class ExpiredUpload(msgspec.Struct, frozen=True):
    """An upload that was forgotten; ``size`` are the bytes of its blob if it was received, else 0."""

    id: str
    size: int


def reserve(tx: Transaction, uploads: Collection[Upload]) -> None:
    """Record the uploads that the caller announces."""
    tx.connection.execute(
        _RESERVE,
        [
            {
                "id": upload.id,
                "owner": tx.author,
                "digest": upload.sha256,
                "size": upload.size,
                "received": False,
                "created_at": tx.at,
            }
            for upload in uploads
        ],
    )


def discard_expired(tx: Transaction, limit: int) -> tuple[ExpiredUpload, ...]:
    """Remove up to ``limit`` uploads that were announced over a week ago; return them."""
    expired = select(upload_table.c.id).where(upload_table.c.created_at < tx.at - EXPIRES_AFTER).limit(limit)
    statement = (
        delete(upload_table)
        .where(upload_table.c.id.in_(expired))
        .returning(upload_table.c.id, upload_table.c.size, upload_table.c.received)
    )
    rows = tx.connection.execute(statement)
    return tuple(ExpiredUpload(row.id, row.size if row.received else 0) for row in rows)


def count_expired(tx: Transaction) -> GarbageCount:
    """Return how many uploads :func:`discard_expired` would remove in all."""
    size = func.coalesce(func.sum(case((upload_table.c.received, upload_table.c.size), else_=0)), 0)
    query = select(func.count(), size).where(upload_table.c.created_at < tx.at - EXPIRES_AFTER)
    count, bytes_ = tx.connection.execute(query).one()
    return GarbageCount(GarbageKind.UPLOAD, "", int(count), int(bytes_))


def find_known(tx: Transaction, ids: Collection[str]) -> frozenset[str]:
    """Return those of the ids that some upload has which is not expired."""
    is_known = upload_table.c.id.in_(ids) & (upload_table.c.created_at >= tx.at - EXPIRES_AFTER)
    return frozenset(tx.connection.execute(select(upload_table.c.id).where(is_known)).scalars())


def find(tx: Transaction, ids: Collection[str]) -> tuple[tuple[Upload, bool], ...]:
    """Return those of these uploads that the caller announced, and whether each was received."""
    rows = tx.connection.execute(_FIND, {"ids": list(ids), "author": tx.author})
    return tuple((Upload(row.id, row.digest, row.size), bool(row.received)) for row in rows)


def mark_received(tx: Transaction, upload: Upload) -> None:
    """Record that the upload was received: the blob is stored, and has its digest.

    Raises NotFoundError for one that expired, or whose content was deleted for good meanwhile.
    """
    blobs.record(tx, {upload.sha256: upload.size})
    statement = update(upload_table).where(upload_table.c.id == upload.id).values(received=True)
    if not tx.connection.execute(statement).rowcount:
        raise NotFoundError("there is no such upload any more", hint="push again")


def find_readable(tx: Transaction, digests: Collection[str]) -> frozenset[str]:
    """Return those of the blobs that belong to a version, an export or a base which the caller may read."""
    statement = select_readable(tx.sees_all, bool(tx.access.permissions))
    return frozenset(digest for (digest,) in tx.select_compiled(statement, digests=list(digests)))


@functools.cache
def select_readable(sees_all: bool, has_token: bool) -> Select[str]:
    """Select the digests in the parameter ``digests`` that may be read; ``has_token`` lets every base be read."""
    digests = text_array("digests")
    visible = visible_to(sees_all, adapter_table.c.namespace)
    of_versions = (
        select(version_table.c.id)
        .join(file_table, file_table.c.version_id == version_table.c.id)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(file_table.c.digest == blob_table.c.digest, visible)
    )
    of_exports = (
        select(export_table.c.id)
        .join(export_file_table, export_file_table.c.export_id == export_table.c.id)
        .join(version_table, version_table.c.id == export_table.c.version_id)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(export_file_table.c.digest == blob_table.c.digest, visible)
    )
    manifests = (
        select(version_table.c.digest)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(AnyOf(version_table.c.digest, digests), visible)
    )
    of_bases = select(base_table.c.id).where(base_table.c.digest == blob_table.c.digest)
    if not has_token:  # bases have no namespace: with a token all may be read, without one those of readable versions
        on_base = select(version_table.c.id).join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        of_bases = of_bases.where(on_base.where(version_table.c.base_id == base_table.c.id, visible).exists())
    # Thousands of versions may have one config: the first that may be read is enough.
    owners = (of_versions, of_exports, of_bases)
    has_owner = or_(*(query.limit(1).scalar_subquery().is_not(None) for query in owners))
    return select(
        union(select(blob_table.c.digest).where(AnyOf(blob_table.c.digest, digests), has_owner), manifests).subquery()
    )
