"""Uploads that were announced to a server: who may commit which blob before any version has it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import delete, insert, select, union, update

from loreg.catalog.schema import AdapterRow, BaseRow, ExportFileRow, ExportRow, FileRow, UploadRow, VersionRow
from loreg.catalog.transaction import Transaction
from loreg.records import Upload

_KEPT = timedelta(days=7)


def announce(tx: Transaction, uploads: Collection[Upload]) -> tuple[Upload, ...]:
    """Remember who wants to send what; what is older than a week is forgotten.

    Returns them with ``aside`` set for those of which another upload has the slot.
    """
    tx.connection.execute(delete(UploadRow).where(UploadRow.created_at < tx.at - _KEPT))
    placed = []
    for upload in uploads:
        row = {"id": upload.id, "owner": tx.author, "digest": upload.sha256, "size": upload.size, "received": False}
        tx.insert_missing(UploadRow, [{**row, "slot": upload.sha256, "created_at": tx.at}])
        aside = tx.connection.execute(select(UploadRow.id).where(UploadRow.id == upload.id)).scalar() is None
        if aside:
            tx.connection.execute(insert(UploadRow).values({**row, "slot": None, "created_at": tx.at}))
        placed.append(replace(upload, aside=aside))
    return tuple(placed)


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
    wanted = list(digests)
    of_versions = (
        select(FileRow.digest)
        .join(VersionRow, VersionRow.id == FileRow.version_id)
        .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        .where(FileRow.digest.in_(wanted), tx.visible(AdapterRow.namespace))
    )
    of_exports = (
        select(ExportFileRow.digest)
        .join(ExportRow, ExportRow.id == ExportFileRow.export_id)
        .join(VersionRow, VersionRow.id == ExportRow.version_id)
        .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        .where(ExportFileRow.digest.in_(wanted), tx.visible(AdapterRow.namespace))
    )
    manifests = (
        select(VersionRow.digest)
        .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        .where(VersionRow.digest.in_(wanted), tx.visible(AdapterRow.namespace))
    )
    found = [of_versions, of_exports, manifests]
    if tx.access.grants:  # bases belong to no namespace: whoever has a token may know them
        found.append(select(BaseRow.digest).where(BaseRow.digest.in_(wanted)))
    return frozenset(tx.connection.execute(union(*found)).scalars())
