"""Exports of versions for servers: record which files one has, and find it again, so that none is built twice."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, insert, select, update

from loreg.catalog import blobs, tombstones
from loreg.catalog.schema import adapter_table, blob_table, export_file_table, export_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import VersionRecord
from loreg.entities import GarbageCount, GarbageKind, NewExport
from loreg.errors import NotFoundError
from loreg.manifest import File, Manifest


def find(tx: Transaction, version_id: int, request: str) -> Manifest | None:
    """Return the files of the version's export for ``request``, the digest of its options; None if there is none."""
    query = (
        select(export_file_table.c.path, export_file_table.c.digest, blob_table.c.size)
        .join(export_table, export_table.c.id == export_file_table.c.export_id)
        .join(blob_table, blob_table.c.digest == export_file_table.c.digest)
        .where(export_table.c.version_id == version_id, export_table.c.request == request)
        .order_by(export_file_table.c.path)
    )
    files = tuple(File(*row) for row in tx.connection.execute(query))
    return Manifest(files) if files else None


def record(tx: Transaction, adapter_id: int, version_id: int, export: NewExport) -> None:
    """Record an export of a version whose files are stored, in place of one with the same request.

    Raises NotAllowedError if one of its files was deleted for good, with a version that it was the weights of.
    """
    sizes = {file.sha256: file.size for file in export.manifest.files}
    blobs.record(tx, sizes)  # from here on nobody deletes
    tombstones.refuse_banned(tx, sizes)
    values = {"digest": export.manifest.digest, "profile": export.profile, "author": tx.author, "created_at": tx.at}
    key = {"version_id": version_id, "request": export.request}
    export_id = tx.get_or_create_locked(export_table, {**key, **values}, "version_id", "request")
    manifest = find(tx, version_id, export.request)
    if manifest is not None and manifest.digest == export.manifest.digest:
        return
    tx.connection.execute(delete(export_file_table).where(export_file_table.c.export_id == export_id))
    tx.connection.execute(update(export_table).where(export_table.c.id == export_id).values(**values))
    files = [{"export_id": export_id, "path": file.path, "digest": file.sha256} for file in export.manifest.files]
    tx.connection.execute(insert(export_file_table), files)
    detail = {"profile": export.profile, "request": export.request, "digest": export.manifest.digest}
    tx.log("export", adapter_id, version_id, **detail)


def find_author(tx: Transaction, row: VersionRecord, request: str) -> str:
    """Return the name of the user who had the export built. Raises NotFoundError."""
    is_export = (export_table.c.version_id == row.id) & (export_table.c.request == request)
    author = tx.connection.execute(select(export_table.c.author).where(is_export)).scalar()
    if author is None:
        raise NotFoundError(f"the registry has not made {row.version.ref} for that server", hint="loreg pull --help")
    return author


def remove(tx: Transaction, row: VersionRecord, request: str) -> None:
    """Remove an export; its blobs stay. Raises NoResultFound if there is none."""
    is_export = (export_table.c.version_id == row.id) & (export_table.c.request == request)
    _remove(tx, tx.connection.execute(_select_exports().where(is_export)).one())


def remove_with_file(tx: Transaction, digest: str) -> None:
    """Remove the exports of every version that have a file with this content; their blobs stay."""
    having = select(export_file_table.c.export_id).where(export_file_table.c.digest == digest)
    query = _select_exports().where(export_table.c.id.in_(having)).order_by(export_table.c.id)
    for row in tx.connection.execute(query).all():
        _remove(tx, row)


def count_stale(tx: Transaction, before: datetime, *, with_live: bool) -> tuple[GarbageCount, ...]:
    """Return how many exports :func:`remove_stale` would remove in all, by namespace."""
    stale = _select_stale(before, with_live=with_live).subquery()
    query = (
        select(stale.c.namespace, func.count(stale.c.id.distinct()), func.sum(blob_table.c.size))
        .join(export_file_table, export_file_table.c.export_id == stale.c.id)
        .join(blob_table, blob_table.c.digest == export_file_table.c.digest)
        .group_by(stale.c.namespace)
        .order_by(stale.c.namespace)
    )
    rows = tx.connection.execute(query)
    return tuple(GarbageCount(GarbageKind.EXPORT, namespace, int(count), int(size)) for namespace, count, size in rows)


def remove_stale(tx: Transaction, before: datetime, limit: int, *, with_live: bool) -> tuple[GarbageCount, ...]:
    """Remove up to ``limit`` exports of yanked versions that were made ``before`` a time; return how many.

    ``with_live``: those of other versions, too; they are made again when they are asked for. Their blobs stay.
    """
    query = _select_stale(before, with_live=with_live).order_by(export_table.c.id).limit(limit)
    rows = tx.connection.execute(query.with_for_update(of=export_table)).all()
    sizes = (
        select(export_file_table.c.export_id, func.sum(blob_table.c.size))
        .join(blob_table, blob_table.c.digest == export_file_table.c.digest)
        .where(export_file_table.c.export_id.in_([row.id for row in rows]))
        .group_by(export_file_table.c.export_id)
    )
    size_by_id: dict[int, int] = dict(tx.connection.execute(sizes).all())
    for row in rows:
        _remove(tx, row)
    return tuple(GarbageCount(GarbageKind.EXPORT, row.namespace, 1, int(size_by_id.get(row.id, 0))) for row in rows)


def _select_exports() -> Select[int, int, str, str, str, int]:
    """Select exports as :func:`_remove` takes them."""
    columns = (export_table.c.id, export_table.c.version_id, export_table.c.profile, export_table.c.request)
    query = select(*columns, export_table.c.digest, version_table.c.adapter_id)
    return query.join(version_table, version_table.c.id == export_table.c.version_id)


def _remove(tx: Transaction, export: Any) -> None:
    """Remove an export, given as a row of its table with the id of its adapter."""
    tx.connection.execute(delete(export_file_table).where(export_file_table.c.export_id == export.id))
    tx.connection.execute(delete(export_table).where(export_table.c.id == export.id))
    detail = {"profile": export.profile, "request": export.request, "digest": export.digest}
    tx.log("export drop", export.adapter_id, export.version_id, **detail)


def _select_stale(before: datetime, *, with_live: bool) -> Select[int, int, str, str, str, int, str]:
    query = (
        _select_exports()
        .add_columns(adapter_table.c.namespace)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(export_table.c.created_at < before)
    )
    return query if with_live else query.where(version_table.c.yanked_at.is_not(None))
