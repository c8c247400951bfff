"""Uploads that clients announced to a server: who may commit which blob before any version has it."""

from __future__ import annotations

import functools
from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import Select, bindparam, delete, insert, or_, select, union, update

from loreg.catalog import blobs
from loreg.catalog.compiled import AnyOf, text_array
from loreg.catalog.schema import AdapterRow, BaseRow, BlobRow, ExportFileRow, ExportRow, FileRow, UploadRow, VersionRow
from loreg.catalog.transaction import Transaction, visible_to
from loreg.entities import Upload

_EXPIRES_AFTER = timedelta(days=7)
_RESERVE = insert(UploadRow)
_FIND = select(UploadRow.id, UploadRow.digest, UploadRow.size, UploadRow.received).where(
    UploadRow.id.in_(bindparam("ids", expanding=True)), UploadRow.owner == bindparam("author")
)


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


def discard_expired(tx: Transaction) -> tuple[str, ...]:
    """Remove the uploads that were announced over a week ago; return their ids."""
    statement = delete(UploadRow).where(UploadRow.created_at < tx.at - _EXPIRES_AFTER).returning(UploadRow.id)
    return tuple(tx.connection.execute(statement).scalars())


def find(tx: Transaction, ids: Collection[str]) -> tuple[tuple[Upload, bool], ...]:
    """Return those of these uploads that the caller announced, and whether each was received."""
    rows = tx.connection.execute(_FIND, {"ids": list(ids), "author": tx.author})
    return tuple((Upload(row.id, row.digest, row.size), bool(row.received)) for row in rows)


def mark_received(tx: Transaction, upload: Upload) -> None:
    """Record that the upload was received: the blob is stored, and has its digest."""
    blobs.record(tx, {upload.sha256: upload.size})
    tx.connection.execute(update(UploadRow).where(UploadRow.id == upload.id).values(received=True))


def find_readable(tx: Transaction, digests: Collection[str]) -> frozenset[str]:
    """Return those of the blobs that belong to a version, an export or a base which the caller may read."""
    statement = select_readable(tx.sees_all, bool(tx.access.permissions))
    return frozenset(digest for (digest,) in tx.select_compiled(statement, digests=list(digests)))


@functools.cache
def select_readable(sees_all: bool, has_token: bool) -> Select[str]:
    """Select the digests in the parameter ``digests`` that may be read; ``has_token`` lets every base be read."""
    digests = text_array("digests")
    visible = visible_to(sees_all, AdapterRow.namespace)
    of_versions = (
        select(VersionRow.id)
        .join(FileRow, FileRow.version_id == VersionRow.id)
        .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        .where(FileRow.digest == BlobRow.digest, visible)
    )
    of_exports = (
        select(ExportRow.id)
        .join(ExportFileRow, ExportFileRow.export_id == ExportRow.id)
        .join(VersionRow, VersionRow.id == ExportRow.version_id)
        .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        .where(ExportFileRow.digest == BlobRow.digest, visible)
    )
    manifests = (
        select(VersionRow.digest)
        .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        .where(AnyOf(VersionRow.digest, digests), visible)
    )
    of_bases = select(BaseRow.id).where(BaseRow.digest == BlobRow.digest)
    if not has_token:  # bases have no namespace: with a token all may be read, without one those of readable versions
        on_base = select(VersionRow.id).join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        of_bases = of_bases.where(on_base.where(VersionRow.base_id == BaseRow.id, visible).exists())
    # Thousands of versions may have one config: the first that may be read is enough.
    owners = (of_versions, of_exports, of_bases)
    has_owner = or_(*(query.limit(1).scalar_subquery().is_not(None) for query in owners))
    return select(union(select(BlobRow.digest).where(AnyOf(BlobRow.digest, digests), has_owner), manifests).subquery())
