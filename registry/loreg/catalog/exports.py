"""What versions became for servers: which files, by what was asked for. The same is not made twice."""

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
    """The files of a version for ``profile``, by ``request``, a digest of all that was asked for."""

    request: str
    profile: str
    manifest: Manifest


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


def record(tx: Transaction, found: VersionRecord, made: ExportRecord) -> None:
    """Remember an export whose files were made and stored just now, in the place of one that was there."""
    for file in sorted(made.manifest.files, key=lambda file: file.sha256):  # one order: no deadlock
        tx.upsert(BlobRow, {"digest": file.sha256, "size": file.size})
    values = {"digest": made.manifest.digest, "profile": made.profile, "author": tx.author, "created_at": tx.at}
    key = {"version_id": found.id, "request": made.request}
    export_id = tx.get_or_create_locked(ExportRow, {**key, **values}, "version_id", "request")
    known = find(tx, found.id, made.request)
    if known is not None and known.digest == made.manifest.digest:
        return
    tx.connection.execute(delete(ExportFileRow).where(ExportFileRow.export_id == export_id))
    tx.connection.execute(update(ExportRow).where(ExportRow.id == export_id).values(**values))
    rows = [{"export_id": export_id, "path": file.path, "digest": file.sha256} for file in made.manifest.files]
    tx.connection.execute(insert(ExportFileRow), rows)
    detail = {"profile": made.profile, "request": made.request, "digest": made.manifest.digest}
    tx.log("export", found.adapter_id, found.id, **detail)


def author(tx: Transaction, found: VersionRecord, request: str) -> str:
    """Who had the export made. Raises NotFoundError."""
    same = (ExportRow.version_id == found.id) & (ExportRow.request == request)
    known = tx.connection.execute(select(ExportRow.author).where(same)).scalar()
    if known is None:
        raise NotFoundError(
            f"the registry has not made {found.version.ref} for that server", hint="loreg pull REF --profile SERVER"
        )
    return known


def drop(tx: Transaction, found: VersionRecord, request: str) -> None:
    """Forget an export."""
    same = (ExportRow.version_id == found.id) & (ExportRow.request == request)
    row = tx.connection.execute(select(ExportRow.id, ExportRow.profile, ExportRow.digest).where(same)).one()
    tx.connection.execute(delete(ExportFileRow).where(ExportFileRow.export_id == row.id))
    tx.connection.execute(delete(ExportRow).where(ExportRow.id == row.id))
    tx.log("export drop", found.adapter_id, found.id, profile=row.profile, request=request, digest=row.digest)
