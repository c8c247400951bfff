"""Exports of versions for servers: record which files one has, and find it again, so that none is built twice."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from loreg.catalog.schema import BlobRow, ExportFileRow, ExportRow
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import VersionRecord
from loreg.errors import NotFoundError
from loreg.manifest import File, Manifest


@dataclass(frozen=True)
class ExportRecord:
    """A version's files for the server ``profile``; ``request`` is the digest of all the options of the export."""

    request: str
    profile: str
    manifest: Manifest


def find(tx: Transaction, version_id: int, request: str) -> Manifest | None:
    """Return the files of the version's export for ``request``, the digest of its options; None if there is none."""
    query = (
        select(ExportFileRow.path, ExportFileRow.digest, BlobRow.size)
        .join(ExportRow, ExportRow.id == ExportFileRow.export_id)
        .join(BlobRow, BlobRow.digest == ExportFileRow.digest)
        .where(ExportRow.version_id == version_id, ExportRow.request == request)
        .order_by(ExportFileRow.path)
    )
    files = tuple(File(*row) for row in tx.connection.execute(query))
    return Manifest(files) if files else None


def record(tx: Transaction, row: VersionRecord, export: ExportRecord) -> None:
    """Record an export whose files are stored, in place of one with the same request."""
    for file in sorted(export.manifest.files, key=lambda file: file.sha256):  # one order: no deadlock
        tx.upsert(BlobRow, {"digest": file.sha256, "size": file.size})
    values = {"digest": export.manifest.digest, "profile": export.profile, "author": tx.author, "created_at": tx.at}
    key = {"version_id": row.id, "request": export.request}
    export_id = tx.get_or_create_locked(ExportRow, {**key, **values}, "version_id", "request")
    manifest = find(tx, row.id, export.request)
    if manifest is not None and manifest.digest == export.manifest.digest:
        return
    tx.connection.execute(delete(ExportFileRow).where(ExportFileRow.export_id == export_id))
    tx.connection.execute(update(ExportRow).where(ExportRow.id == export_id).values(**values))
    files = [{"export_id": export_id, "path": file.path, "digest": file.sha256} for file in export.manifest.files]
    tx.connection.execute(insert(ExportFileRow), files)
    detail = {"profile": export.profile, "request": export.request, "digest": export.manifest.digest}
    tx.log("export", row.adapter_id, row.id, **detail)


def find_author(tx: Transaction, row: VersionRecord, request: str) -> str:
    """Return the name of the user who had the export built. Raises NotFoundError."""
    is_export = (ExportRow.version_id == row.id) & (ExportRow.request == request)
    author = tx.connection.execute(select(ExportRow.author).where(is_export)).scalar()
    if author is None:
        raise NotFoundError(
            f"the registry has not made {row.version.ref} for that server", hint="loreg pull REF --profile SERVER"
        )
    return author


def remove(tx: Transaction, row: VersionRecord, request: str) -> None:
    """Remove an export; its blobs stay. Raises NoResultFound if there is none."""
    is_export = (ExportRow.version_id == row.id) & (ExportRow.request == request)
    export = tx.connection.execute(select(ExportRow.id, ExportRow.profile, ExportRow.digest).where(is_export)).one()
    tx.connection.execute(delete(ExportFileRow).where(ExportFileRow.export_id == export.id))
    tx.connection.execute(delete(ExportRow).where(ExportRow.id == export.id))
    tx.log("export drop", row.adapter_id, row.id, profile=export.profile, request=request, digest=export.digest)
