"""Uploads that were announced to a server: who may commit which blob before any version has it."""

from __future__ import annotations

import functools
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, bindparam, delete, insert, or_, select, union, update

from loreg.catalog import blobs, compiled
from loreg.catalog.compiled import AnyOf, text_array
from loreg.catalog.schema import AdapterRow, BaseRow, BlobRow, ExportFileRow, ExportRow, FileRow, UploadRow, VersionRow
from loreg.catalog.transaction import Transaction, visible_to
from loreg.entities import Upload

_KEPT = timedelta(days=7)
_ANNOUNCE = insert(UploadRow)
_FIND = select(UploadRow.id, UploadRow.digest, UploadRow.size, UploadRow.received).where(
    AnyOf(UploadRow.id, text_array("ids")), UploadRow.owner == bindparam("author")
)


def reserve(tx: Transaction, uploads: Collection[Upload]) -> None:
    """Remember who wants to send what."""
    compiled.insert_rows(
        tx.connection,
        _ANNOUNCE,
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
    """Forget the uploads that were announced over a week ago; returns their ids."""
    old = delete(UploadRow).where(UploadRow.created_at < tx.at - _KEPT).returning(UploadRow.id)
    return tuple(tx.connection.execute(old).scalars())


def find(tx: Transaction, ids: Collection[str]) -> tuple[tuple[Upload, bool], ...]:
    """Those of these uploads that who acts announced, and whether each was received."""
    rows = tx.rows(_FIND, ids=list(ids), author=tx.author)
    return tuple((Upload(id_, digest, size), bool(received)) for id_, digest, size, received in rows)


def mark_received(tx: Transaction, upload: Upload) -> None:
    """The bytes have come, and have the digest; they are stored."""
    blobs.record(tx, {upload.sha256: upload.size})
    tx.connection.execute(update(UploadRow).where(UploadRow.id == upload.id).values(received=True))


def readable(tx: Transaction, digests: Collection[str]) -> frozenset[str]:
    """Those of the blobs that a version, an export or a base has which who acts may read."""
    statement = select_readable(tx.sees_all, bool(tx.access.permissions))
    return frozenset(digest for (digest,) in tx.rows(statement, wanted=list(digests)))


@functools.cache
def select_readable(sees_all: bool, has_token: bool) -> Select[Any]:
    """Select those of the blobs ``wanted``; ``has_token`` lets every base be read."""
    wanted = text_array("wanted")
    seen = visible_to(sees_all, AdapterRow.namespace)
    of_versions = (
        select(VersionRow.id)
        .join(FileRow, FileRow.version_id == VersionRow.id)
        .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        .where(FileRow.digest == BlobRow.digest, seen)
    )
    of_exports = (
        select(ExportRow.id)
        .join(ExportFileRow, ExportFileRow.export_id == ExportRow.id)
        .join(VersionRow, VersionRow.id == ExportRow.version_id)
        .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        .where(ExportFileRow.digest == BlobRow.digest, seen)
    )
    manifests = (
        select(VersionRow.digest)
        .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        .where(AnyOf(VersionRow.digest, wanted), seen)
    )
    found = [of_versions, of_exports]
    of_bases = select(BaseRow.id).where(BaseRow.digest == BlobRow.digest)
    if not has_token:  # bases belong to no namespace: whoever has a token may know them, others those of what they read
        on_it = select(VersionRow.id).join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        of_bases = of_bases.where(on_it.where(VersionRow.base_id == BaseRow.id, seen).exists())
    found.append(of_bases)
    # Thousands of versions may have one config: the first that may be read is enough.
    some = or_(*(query.limit(1).scalar_subquery().is_not(None) for query in found))
    return select(union(select(BlobRow.digest).where(AnyOf(BlobRow.digest, wanted), some), manifests).subquery())
