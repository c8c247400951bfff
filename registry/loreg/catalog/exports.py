"""What versions became for servers: which files, by what was asked for. The same is not made twice."""

from __future__ import annotations

from sqlalchemy import select

from loreg.catalog.schema import BlobRow, ExportFileRow, ExportRow
from loreg.catalog.transaction import Transaction
from loreg.manifest import File, Manifest


def find(tx: Transaction, version_id: int, request: str) -> Manifest | None:
    """The files of the version as ``request``, a digest of all that was asked for, made them; None if never made."""
    query = (
        select(ExportFileRow.path, ExportFileRow.digest, BlobRow.size)
        .join(ExportRow, ExportRow.id == ExportFileRow.export_id)
        .join(BlobRow, BlobRow.digest == ExportFileRow.digest)
        .where(ExportRow.version_id == version_id, ExportRow.request == request)
        .order_by(ExportFileRow.path)
    )
    files = tuple(File(*row) for row in tx.connection.execute(query))
    return Manifest(files) if files else None


def record(tx: Transaction, version_id: int, request: str, manifest: Manifest) -> None:
    """Remember an export whose blobs are all stored. One that somebody else recorded meanwhile stays."""
    row = {"version_id": version_id, "request": request, "digest": manifest.digest, "created_at": tx.at}
    same = (ExportRow.version_id == version_id) & (ExportRow.request == request)
    tx.insert_missing(BlobRow, [{"digest": file.sha256, "size": file.size} for file in manifest.files])
    tx.insert_missing(ExportRow, [row])
    found = tx.connection.execute(select(ExportRow.id, ExportRow.digest).where(same)).one()
    if found.digest == manifest.digest:
        files = [{"export_id": found.id, "path": file.path, "digest": file.sha256} for file in manifest.files]
        tx.insert_missing(ExportFileRow, files)
