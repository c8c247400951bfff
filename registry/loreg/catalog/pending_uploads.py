"""Drafts: what a client of the Hub has sent of an adapter that is not whole yet. One is forgotten after 30 days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, delete, func, select

from loreg.catalog import blobs
from loreg.catalog.schema import AdapterRow, PendingUploadRow
from loreg.catalog.transaction import Transaction
from loreg.manifest import File
from loreg.refs import AdapterName

_KEPT = timedelta(days=7)
_EXPIRED = timedelta(days=30)
_NAMED = (PendingUploadRow.namespace, PendingUploadRow.name, PendingUploadRow.branch, PendingUploadRow.files)


@dataclass(frozen=True)
class PendingUpload:
    """The files that are there already; ``basis`` is the version that the branch meant when they were begun.

    It is a digest, and empty where the branch meant none.
    """

    files: tuple[File, ...]
    basis: str


def find(tx: Transaction, adapter: AdapterName, branch: str) -> PendingUpload | None:
    """What there is of a draft; None if there is none."""
    row = tx.connection.execute(
        select(PendingUploadRow.files, PendingUploadRow.basis).where(_same(adapter, branch))
    ).first()
    return _read(row.files, row.basis) if row is not None else None


def find_locked(tx: Transaction, adapter: AdapterName, branch: str) -> PendingUpload | None:
    """The same, and nobody else touches the branch's draft until the transaction ends, in which it is put or removed.

    Where there is none, its place is taken.
    """
    query = select(PendingUploadRow.files, PendingUploadRow.basis).where(_same(adapter, branch)).with_for_update()
    place = {"files": [], "basis": "", "author": tx.author, "updated_at": tx.at}
    while not tx.insert_if_missing(PendingUploadRow, {**_key(adapter, branch), **place}):
        row = tx.connection.execute(query).first()
        if row is not None:  # else it became a version while this waited for it
            return _read(row.files, row.basis)
    return None


def save(tx: Transaction, adapter: AdapterName, branch: str, draft: PendingUpload) -> None:
    """Keep these files until the adapter is whole."""
    entries = [[file.path, file.sha256, file.size] for file in draft.files]
    blobs.record(tx, {file.sha256: file.size for file in draft.files})
    row = {"files": entries, "basis": draft.basis, "author": tx.author, "updated_at": tx.at}
    tx.upsert(PendingUploadRow, {**_key(adapter, branch), **row})
    _log(tx, "draft", adapter, branch, len(entries))


def remove(tx: Transaction, adapter: AdapterName, branch: str) -> None:
    """It became a version."""
    tx.connection.execute(delete(PendingUploadRow).where(_same(adapter, branch)))


def discard(tx: Transaction, adapter: AdapterName, branch: str, draft: PendingUpload) -> None:
    """It will not become one."""
    remove(tx, adapter, branch)
    _log(tx, "undraft", adapter, branch, len(draft.files))


def count_free(tx: Transaction, namespace: str, most: int) -> int:
    """How many more drafts a namespace may have; those that nobody touched for a week give way to others."""
    fresh = (PendingUploadRow.namespace == namespace) & (PendingUploadRow.updated_at >= tx.at - _KEPT)
    return most - tx.connection.execute(select(func.count()).where(fresh)).scalar_one()


def discard_expired(tx: Transaction) -> None:
    """Remove the drafts that nothing was added to for a month."""
    old = delete(PendingUploadRow).where(PendingUploadRow.updated_at < tx.at - _EXPIRED)
    for row in tx.connection.execute(old.returning(*_NAMED)).all():
        _log(tx, "undraft", AdapterName(row.namespace, row.name), row.branch, len(row.files))


def discard_stale(tx: Transaction, namespace: str, most: int) -> None:
    """Remove the drafts of a namespace that nobody touched for a week, if there are so many."""
    if tx.connection.execute(select(func.count()).where(PendingUploadRow.namespace == namespace)).scalar_one() < most:
        return
    old = delete(PendingUploadRow).where(
        PendingUploadRow.namespace == namespace, PendingUploadRow.updated_at < tx.at - _KEPT
    )
    for row in tx.connection.execute(old.returning(*_NAMED)).all():
        _log(tx, "undraft", AdapterName(row.namespace, row.name), row.branch, len(row.files))


def _log(tx: Transaction, action: str, adapter: AdapterName, branch: str, files: int) -> None:
    """Write it down with the adapter, or with its name alone if there is no version of it yet."""
    same = (AdapterRow.namespace == adapter.namespace) & (AdapterRow.name == adapter.name)
    adapter_id = tx.connection.execute(select(AdapterRow.id).where(same)).scalar()
    tx.log(action, adapter_id, None, adapter=str(adapter), branch=branch, files=files)


def _read(files: Sequence[Sequence[object]], basis: str) -> PendingUpload:
    return PendingUpload(tuple(File(*entry) for entry in files), basis)  # type: ignore[arg-type]  # as put wrote them


def _key(adapter: AdapterName, branch: str) -> dict[str, str]:
    return {"namespace": adapter.namespace, "name": adapter.name, "branch": branch}


def _same(adapter: AdapterName, branch: str) -> ColumnElement[bool]:
    return and_(
        PendingUploadRow.namespace == adapter.namespace,
        PendingUploadRow.name == adapter.name,
        PendingUploadRow.branch == branch,
    )
