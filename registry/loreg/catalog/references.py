"""Every reference of the catalog to a blob of the store: listed by digest, page by page, with what refers to each.

Come here to see what a reference is. Digests are spread evenly, so that a part of their order is a share of all blobs.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, SQLColumnExpression, func, literal, select, union

from loreg.catalog.schema import (
    adapter_table,
    base_name_table,
    base_table,
    blob_table,
    export_file_table,
    export_table,
    file_table,
    pending_upload_table,
    upload_table,
    version_table,
)
from loreg.catalog.transaction import Transaction
from loreg.catalog.uploads import EXPIRES_AFTER
from loreg.catalog.versions import resolve
from loreg.entities import Owner, Owners, Reference, ReferenceKind
from loreg.manifest import File, Manifest
from loreg.refs import AdapterName, Ref

_PAGE = 1000  # references
_MAX_OWNERS = 100  # that are listed of one blob: thousands of versions may share a configuration


class Scope(msgspec.Struct, frozen=True):
    """Whose references are listed: those of all, of the versions with these ids, or of what came ``since`` a time.

    ``first_version`` is the id of the first version since then; ids grow with time.
    """

    version_ids: tuple[int, ...] | None = None
    since: datetime | None = None
    first_version: int = 0


def find_scope(tx: Transaction, refs: Sequence[Ref], since: datetime | None) -> Scope:
    """Return the scope of these versions, or of everything if there are none. Raises NotFoundError for a ref."""
    version_ids = tuple(resolve(tx, ref).id for ref in refs) if refs else None
    if since is None:
        return Scope(version_ids)
    first = tx.connection.execute(
        select(func.min(version_table.c.id)).where(version_table.c.created_at >= since)
    ).scalar()
    return Scope(version_ids, since, 2**62 if first is None else first)


def list_page(tx: Transaction, scope: Scope, after: str) -> tuple[Reference, ...]:
    """Return the next references behind the digest ``after``, but for those of uploads, in the order of digests.

    From two statements: the digests with their sizes, and the files of the manifests among them, whose bytes are made
    again. Few enough for one page of memory; none at the end.
    """
    branches = [
        _page_of(file_table.c.digest, after, _of_versions(scope, file_table.c.version_id)),
        _page_of(version_table.c.digest, after, _of_versions(scope, version_table.c.id)),
        _page_of(export_file_table.c.digest, after, _of_exports(scope)),
        _page_of(base_table.c.digest, after, _of_bases(scope)),
    ]
    digests = union(*branches).subquery()
    query = (
        select(digests.c.digest, blob_table.c.size)
        .outerjoin(blob_table, blob_table.c.digest == digests.c.digest)
        .order_by(digests.c.digest)
        .limit(_PAGE)
    )
    sizes: dict[str, int | None] = dict(tx.connection.execute(query).all())
    sizes |= _manifest_sizes(tx, sizes)
    return tuple(Reference(digest, size) for digest, size in sizes.items())


def list_uploads(tx: Transaction, scope: Scope) -> tuple[Reference, ...]:
    """Return the references of pending uploads, and of uploads that a server received, in the order of digests.

    All of them: there are those of a month, and of a week. None for a scope of versions.
    """
    if scope.version_ids is not None:
        return ()
    sizes = {
        sha256: size
        for files, updated_at in tx.connection.execute(
            select(pending_upload_table.c.files, pending_upload_table.c.updated_at)
        )
        if scope.since is None or updated_at >= scope.since
        for _, sha256, size in files
    }
    earliest = max(filter(None, [tx.at - EXPIRES_AFTER, scope.since]))
    received = select(upload_table.c.digest, upload_table.c.size).where(
        upload_table.c.received, upload_table.c.created_at >= earliest
    )
    sizes |= dict(tx.connection.execute(received).all())
    return tuple(Reference(digest, size) for digest, size in sorted(sizes.items()))


def merge(recorded: Iterable[Reference], uploads: Iterable[Reference]) -> Iterator[Reference]:
    """Yield the references of both, each digest once, in their order, which both must have."""
    last = ""
    for reference in heapq.merge(recorded, uploads, key=lambda item: item.sha256):
        if reference.sha256 != last:
            yield reference
        last = reference.sha256


def list_all(tx: Transaction) -> Iterator[Reference]:
    """Yield every reference that the transaction sees, in the order of digests."""
    return merge(_list_recorded(tx), list_uploads(tx, Scope()))


def _list_recorded(tx: Transaction) -> Iterator[Reference]:
    after = ""
    while page := list_page(tx, Scope(), after):
        yield from page
        after = page[-1].sha256


def find_unreferenced(tx: Transaction, digests: Collection[str]) -> frozenset[str]:
    """Return those of the digests that nothing refers to. A blob of a push that has not committed yet is one."""
    owned = [
        select(column).where(column.in_(digests))
        for column in (
            file_table.c.digest,
            version_table.c.digest,
            export_file_table.c.digest,
            base_table.c.digest,
        )
    ]
    referenced = set(tx.connection.execute(union(*owned)).scalars())
    rest = frozenset(digests) - referenced
    return rest - {reference.sha256 for reference in list_uploads(tx, Scope())} if rest else rest


def find_owners(tx: Transaction, digests: Collection[str]) -> Mapping[str, Owners]:
    """Return who each of the blobs belongs to; one that nothing refers to is left out."""
    owners: dict[str, list[Owner]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for kind, query in _select_owners(digests):
        for row in tx.connection.execute(_first_of_each(query)):
            counts[row.digest] += row.owner_count if row.position == 1 else 0
            owners[row.digest].append(_to_owner(kind, row))
    for digest, owner in _list_upload_owners(tx, digests):
        counts[digest] += 1
        owners[digest].append(owner)
    return {digest: Owners(tuple(listed[:_MAX_OWNERS]), counts[digest]) for digest, listed in owners.items()}


def _page_of(digest: SQLColumnExpression[str], after: str, *conditions: ColumnElement[bool] | None) -> Select[str]:
    """Select the next digests of one column, each once; its index has them in this order."""
    query: Select[str] = select(digest.label("digest")).where(digest > after).distinct().order_by(digest).limit(_PAGE)
    for condition in conditions:
        if condition is not None:
            query = query.where(condition)
    return select(query.subquery().c.digest)


def _of_versions(scope: Scope, version_id: SQLColumnExpression[int]) -> ColumnElement[bool] | None:
    if scope.version_ids is not None:
        return version_id.in_(scope.version_ids)
    return version_id >= scope.first_version if scope.since is not None else None


def _of_exports(scope: Scope) -> ColumnElement[bool] | None:
    exports = select(export_table.c.id)
    if scope.version_ids is not None:
        return export_file_table.c.export_id.in_(exports.where(export_table.c.version_id.in_(scope.version_ids)))
    if scope.since is not None:
        return export_file_table.c.export_id.in_(exports.where(export_table.c.created_at >= scope.since))
    return None


def _of_bases(scope: Scope) -> ColumnElement[bool] | None:
    if scope.version_ids is not None:
        on_bases = select(version_table.c.base_id).where(version_table.c.id.in_(scope.version_ids))
        return base_table.c.id.in_(on_bases)
    return base_table.c.created_at >= scope.since if scope.since is not None else None


def _manifest_sizes(tx: Transaction, digests: Collection[str]) -> dict[str, int | None]:
    """Return the sizes of those of the blobs that are manifests, made again from the files; None where they differ."""
    first = (
        select(func.min(version_table.c.id).label("id"), version_table.c.digest)
        .where(version_table.c.digest.in_(digests))
        .group_by(version_table.c.digest)
        .subquery()
    )
    query = (
        select(first.c.digest, file_table.c.path, file_table.c.digest.label("sha256"), file_table.c.size)
        .outerjoin(file_table, file_table.c.version_id == first.c.id)
        .order_by(first.c.digest)
    )
    sizes: dict[str, int | None] = {}
    for digest, rows in itertools.groupby(tx.connection.execute(query), key=lambda row: row.digest):
        manifest = Manifest(tuple(File(row.path, row.sha256, row.size) for row in rows if row.path is not None))
        sizes[digest] = len(manifest.to_bytes()) if manifest.digest == digest else None
    return sizes


def _select_owners(digests: Collection[str]) -> Iterator[tuple[ReferenceKind, Select[str, str, str, int, str, str]]]:
    """Select digest, namespace, name, number, path and profile of what refers to the blobs, kind by kind."""
    version = (adapter_table.c.namespace, adapter_table.c.name, version_table.c.number)
    of_files = (
        select(file_table.c.digest, *version, file_table.c.path, literal("").label("profile"))
        .join(version_table, version_table.c.id == file_table.c.version_id)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
    )
    yield ReferenceKind.FILE, of_files.where(file_table.c.digest.in_(digests))
    of_manifests = select(
        version_table.c.digest, *version, literal("").label("path"), literal("").label("profile")
    ).join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
    yield ReferenceKind.MANIFEST, of_manifests.where(version_table.c.digest.in_(digests))
    of_exports = (
        select(export_file_table.c.digest, *version, export_file_table.c.path, export_table.c.profile)
        .join(export_table, export_table.c.id == export_file_table.c.export_id)
        .join(version_table, version_table.c.id == export_table.c.version_id)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
    )
    yield ReferenceKind.EXPORT, of_exports.where(export_file_table.c.digest.in_(digests))
    name = select(func.min(base_name_table.c.name)).where(base_name_table.c.base_id == base_table.c.id)
    of_bases = select(
        base_table.c.digest,
        literal("").label("namespace"),
        func.coalesce(name.scalar_subquery(), base_table.c.digest).label("name"),
        literal(0).label("number"),
        literal("").label("path"),
        literal("").label("profile"),
    )
    yield ReferenceKind.BASE, of_bases.where(base_table.c.digest.in_(digests))


def _first_of_each(query: Select[str, str, str, int, str, str]) -> Select[Any]:
    """Select the first owners of each digest, with their position, and how many it has in ``owner_count``."""
    rows = query.subquery()
    order = (rows.c["namespace"], rows.c["name"], rows.c["number"], rows.c["path"])
    numbered = select(
        rows,
        func.row_number().over(partition_by=rows.c["digest"], order_by=order).label("position"),
        func.count().over(partition_by=rows.c["digest"]).label("owner_count"),
    ).subquery()
    listed = select(numbered).where(numbered.c["position"] <= _MAX_OWNERS)
    return listed.order_by(numbered.c["digest"], numbered.c["position"])


def _to_owner(kind: ReferenceKind, row: Any) -> Owner:
    name = row.name if kind is ReferenceKind.BASE else f"{AdapterName(row.namespace, row.name)}:v{row.number}"
    return Owner(kind, name, row.path, row.profile)


def _list_upload_owners(tx: Transaction, digests: Collection[str]) -> Iterator[tuple[str, Owner]]:
    wanted = set(digests)
    for row in tx.connection.execute(select(pending_upload_table)):
        for path, sha256, _ in row.files:
            if sha256 in wanted:
                branch = f":{row.branch}" if row.branch else ""
                name = f"{AdapterName(row.namespace, row.name)}{branch}"
                yield sha256, Owner(ReferenceKind.PENDING_UPLOAD, name, path)
    received = select(upload_table.c.digest, upload_table.c.owner).where(
        upload_table.c.received,
        upload_table.c.created_at >= tx.at - EXPIRES_AFTER,
        upload_table.c.digest.in_(digests),
    )
    for digest, owner in tx.connection.execute(received):
        yield digest, Owner(ReferenceKind.UPLOAD, owner)
