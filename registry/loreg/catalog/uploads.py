"""Uploads that were announced to a server: who may commit which blob before any version has it."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, bindparam, delete, select, union, update

from loreg.catalog.schema import AdapterRow, BaseRow, ExportFileRow, ExportRow, FileRow, UploadRow, VersionRow
from loreg.catalog.transaction import Transaction, visible_to
from loreg.records import Upload

_KEPT = timedelta(days=7)


def announce(tx: Transaction, uploads: Collection[Upload]) -> tuple[Upload, ...]:
    """Remember who wants to send what. Returns them with ``aside`` set where another upload has the slot."""
    rows = [
        {
            "id": upload.id,
            "owner": tx.author,
            "digest": upload.sha256,
            "size": upload.size,
            "received": False,
            "slot": upload.sha256,
            "created_at": tx.at,
        }
        for upload in uploads
    ]
    tx.insert_missing(UploadRow, rows)
    placed = select(UploadRow.id).where(UploadRow.id.in_([upload.id for upload in uploads]))
    have_slot = set(tx.connection.execute(placed).scalars())
    tx.insert_missing(UploadRow, [{**row, "slot": None} for row in rows if row["id"] not in have_slot])
    return tuple(replace(upload, aside=upload.id not in have_slot) for upload in uploads)


def forget_old(tx: Transaction) -> tuple[str, ...]:
    """Forget the uploads that were announced over a week ago; returns the ids of those that may lie aside."""
    old = delete(UploadRow).where(UploadRow.created_at < tx.at - _KEPT).returning(UploadRow.id, UploadRow.slot)
    return tuple(row.id for row in tx.connection.execute(old) if row.slot is None)


def find(tx: Transaction, ids: Collection[str]) -> tuple[tuple[Upload, bool], ...]:
    """Those of these uploads that who acts announced, and whether each was received."""
    query = select(UploadRow).where(UploadRow.id.in_(list(ids)), UploadRow.owner == tx.author)
    return tuple(
        (Upload(row.id, row.digest, row.size, row.slot is None), bool(row.received))
        for row in tx.connection.execute(query)
    )


def mark_received(tx: Transaction, upload: Upload) -> None:
    """The bytes have come, and have the digest."""
    tx.connection.execute(update(UploadRow).where(UploadRow.id == upload.id).values(received=True))


def readable(tx: Transaction, digests: Collection[str]) -> frozenset[str]:
    """Those of the blobs that a version, an export or a base has which who acts may read."""
    statement = _readable(tx.sees_all, bool(tx.access.grants))
    return frozenset(tx.rows(statement, wanted=list(digests)).scalars())


@functools.cache
def _readable(sees_all: bool, has_token: bool) -> Select[Any]:
    wanted: Any = bindparam("wanted", expanding=True)
    seen = visible_to(sees_all, AdapterRow.namespace)
    of_versions = (
        select(FileRow.digest)
        .join(VersionRow, VersionRow.id == FileRow.version_id)
        .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        .where(FileRow.digest.in_(wanted), seen)
    )
    of_exports = (
        select(ExportFileRow.digest)
        .join(ExportRow, ExportRow.id == ExportFileRow.export_id)
        .join(VersionRow, VersionRow.id == ExportRow.version_id)
        .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        .where(ExportFileRow.digest.in_(wanted), seen)
    )
    manifests = (
        select(VersionRow.digest)
        .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        .where(VersionRow.digest.in_(wanted), seen)
    )
    found = [of_versions, of_exports, manifests]
    if has_token:  # bases belong to no namespace: whoever has a token may know them
        found.append(select(BaseRow.digest).where(BaseRow.digest.in_(wanted)))
    return select(union(*found).subquery())
