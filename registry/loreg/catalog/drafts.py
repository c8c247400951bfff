"""Drafts: what a client of the Hub has sent of an adapter that is not whole yet."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, delete, select

from loreg.catalog.schema import BlobRow, DraftRow
from loreg.catalog.transaction import Transaction
from loreg.manifest import File
from loreg.refs import AdapterName


def find(tx: Transaction, adapter: AdapterName, branch: str) -> tuple[File, ...] | None:
    """The files that are there already; None if there is no draft."""
    row = tx.connection.execute(select(DraftRow.files).where(_same(adapter, branch))).scalar()
    return tuple(File(*entry) for entry in row) if row is not None else None


def put(tx: Transaction, adapter: AdapterName, branch: str, files: Sequence[File]) -> None:
    """Keep these files until the adapter is whole."""
    key = {"namespace": adapter.namespace, "name": adapter.name, "branch": branch}
    entries = [[file.path, file.sha256, file.size] for file in files]
    tx.insert_missing(BlobRow, [{"digest": file.sha256, "size": file.size} for file in files])
    tx.upsert(DraftRow, {**key, "files": entries, "author": tx.author, "updated_at": tx.at})


def remove(tx: Transaction, adapter: AdapterName, branch: str) -> None:
    """It became a version."""
    tx.connection.execute(delete(DraftRow).where(_same(adapter, branch)))


def _same(adapter: AdapterName, branch: str) -> ColumnElement[bool]:
    return and_(DraftRow.namespace == adapter.namespace, DraftRow.name == adapter.name, DraftRow.branch == branch)
