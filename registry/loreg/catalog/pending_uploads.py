"""Pending uploads: the files that a client of the Hub has sent of an adapter that is not complete yet.

The table calls them drafts. One is discarded after 30 days without a change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, and_, delete, func, select

from loreg.catalog import blobs, tombstones
from loreg.catalog.schema import adapter_table, pending_upload_table
from loreg.catalog.transaction import Transaction
from loreg.entities import GarbageCount, GarbageKind
from loreg.manifest import File
from loreg.refs import AdapterName

_STALE_AFTER = timedelta(days=7)
_EXPIRES_AFTER = timedelta(days=30)
_KEY_AND_FILES = (
    pending_upload_table.c.namespace,
    pending_upload_table.c.name,
    pending_upload_table.c.branch,
    pending_upload_table.c.files,
)


class PendingUpload(msgspec.Struct, frozen=True):
    """The files so far, and ``basis``, the digest of the version that the branch meant at the first of them.

    ``basis`` is empty if the branch meant none.
    """

    files: tuple[File, ...]
    basis: str


def find(tx: Transaction, adapter: AdapterName, branch: str) -> PendingUpload | None:
    """Return the pending upload to a branch of an adapter; None if there is none."""
    row = tx.connection.execute(_select(adapter, branch)).first()
    return _to_pending(row.files, row.basis) if row is not None else None


def find_locked(tx: Transaction, adapter: AdapterName, branch: str) -> PendingUpload | None:
    """Return the pending upload as :func:`find` does, and lock it until the transaction ends.

    If there is none, an empty one is inserted: within the transaction the caller saves or removes it.
    """
    query = _select(adapter, branch).with_for_update()
    empty = {"files": [], "basis": "", "author": tx.author, "updated_at": tx.at}
    while not tx.insert_if_missing(pending_upload_table, {**_key(adapter, branch), **empty}):
        row = tx.connection.execute(query).first()
        if row is not None:  # else it became a version while this waited for it
            return _to_pending(row.files, row.basis)
    return None


def save(tx: Transaction, adapter: AdapterName, branch: str, pending: PendingUpload) -> None:
    """Store the pending upload to a branch, in place of the one before, and record its blobs.

    Raises NotAllowedError for content that was deleted for good.
    """
    entries = [[file.path, file.sha256, file.size] for file in pending.files]
    blobs.record(tx, {file.sha256: file.size for file in pending.files})
    tombstones.refuse_banned(tx, {file.sha256 for file in pending.files})
    values = {"files": entries, "basis": pending.basis, "author": tx.author, "updated_at": tx.at}
    tx.upsert(pending_upload_table, {**_key(adapter, branch), **values})
    _log(tx, "draft", adapter, branch, len(entries))


def remove(tx: Transaction, adapter: AdapterName, branch: str) -> None:
    """Remove the pending upload to a branch, because it became a version; does nothing if there is none."""
    tx.connection.execute(delete(pending_upload_table).where(_is_branch(adapter, branch)))


def discard(tx: Transaction, adapter: AdapterName, branch: str, pending: PendingUpload) -> None:
    """Remove the pending upload to a branch, because it will not become a version, and log that."""
    remove(tx, adapter, branch)
    _log(tx, "undraft", adapter, branch, len(pending.files))


def count_free(tx: Transaction, namespace: str, max_count: int) -> int:
    """Return how many more pending uploads a namespace may have; those untouched for a week do not count."""
    fresh = (pending_upload_table.c.namespace == namespace) & (
        pending_upload_table.c.updated_at >= tx.at - _STALE_AFTER
    )
    return max_count - tx.connection.execute(select(func.count()).where(fresh)).scalar_one()


def discard_expired(tx: Transaction) -> tuple[GarbageCount, ...]:
    """Discard the pending uploads that nothing was added to for 30 days; return how many, by namespace."""
    return _count(_discard_where(tx, pending_upload_table.c.updated_at < tx.at - _EXPIRES_AFTER))


def count_expired(tx: Transaction) -> tuple[GarbageCount, ...]:
    """Return how many pending uploads :func:`discard_expired` would discard, by namespace."""
    is_expired = pending_upload_table.c.updated_at < tx.at - _EXPIRES_AFTER
    return _count(tx.connection.execute(select(*_KEY_AND_FILES).where(is_expired)))


def discard_with_file(tx: Transaction, sha256: str) -> Iterator[str]:
    """Discard the pending uploads that have a file of this content; yield the name and branch of each."""
    query = select(pending_upload_table.c.namespace, pending_upload_table.c.name, pending_upload_table.c.branch)
    for row in tx.connection.execute(query.add_columns(pending_upload_table.c.files)).all():
        if any(digest == sha256 for _, digest, _ in row.files):
            adapter = AdapterName(row.namespace, row.name)
            discard(tx, adapter, row.branch, _to_pending(row.files, ""))
            yield f"{adapter}:{row.branch}" if row.branch else str(adapter)


def discard_stale(tx: Transaction, namespace: str, max_count: int) -> None:
    """Discard the pending uploads of a namespace untouched for a week, if the namespace has ``max_count`` or more."""
    in_namespace = pending_upload_table.c.namespace == namespace
    if tx.connection.execute(select(func.count()).where(in_namespace)).scalar_one() >= max_count:
        _discard_where(tx, and_(in_namespace, pending_upload_table.c.updated_at < tx.at - _STALE_AFTER))


def _discard_where(tx: Transaction, condition: ColumnElement[bool]) -> Sequence[Any]:
    statement = delete(pending_upload_table).where(condition).returning(*_KEY_AND_FILES)
    rows = tx.connection.execute(statement).all()
    for row in rows:
        _log(tx, "undraft", AdapterName(row.namespace, row.name), row.branch, len(row.files))
    return rows


def _count(rows: Iterable[Any]) -> tuple[GarbageCount, ...]:
    """Count rows by namespace, and the bytes of their files."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for row in rows:
        counts[row.namespace] += 1
        sizes[row.namespace] += sum(size for _, _, size in row.files)
    return tuple(
        GarbageCount(GarbageKind.PENDING_UPLOAD, namespace, counts[namespace], sizes[namespace])
        for namespace in sorted(counts)
    )


def _log(tx: Transaction, action: str, adapter: AdapterName, branch: str, files: int) -> None:
    """Log an event of the adapter, or with its name alone if no version of it exists."""
    is_adapter = (adapter_table.c.namespace == adapter.namespace) & (adapter_table.c.name == adapter.name)
    adapter_id = tx.connection.execute(select(adapter_table.c.id).where(is_adapter)).scalar()
    tx.log(action, adapter_id, None, adapter=str(adapter), branch=branch, files=files)


def _to_pending(files: Sequence[tuple[str, str, int]], basis: str) -> PendingUpload:
    return PendingUpload(tuple(File(*entry) for entry in files), basis)


def _select(adapter: AdapterName, branch: str) -> Select[list[tuple[str, str, int]], str]:
    return select(pending_upload_table.c.files, pending_upload_table.c.basis).where(_is_branch(adapter, branch))


def _key(adapter: AdapterName, branch: str) -> dict[str, str]:
    return {"namespace": adapter.namespace, "name": adapter.name, "branch": branch}


def _is_branch(adapter: AdapterName, branch: str) -> ColumnElement[bool]:
    return and_(
        pending_upload_table.c.namespace == adapter.namespace,
        pending_upload_table.c.name == adapter.name,
        pending_upload_table.c.branch == branch,
    )
