"""How much each namespace or adapter stores, and how much of it nobody else has: counted by the database alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Exists,
    SQLColumnExpression,
    and_,
    case,
    func,
    literal,
    not_,
    or_,
    select,
    tuple_,
    union,
)

from loreg.catalog import collection
from loreg.catalog.paging import decode, encode
from loreg.catalog.patterns import is_match
from loreg.catalog.schema import (
    adapter_table,
    base_table,
    blob_table,
    export_file_table,
    export_table,
    file_table,
    version_table,
)
from loreg.catalog.transaction import Transaction
from loreg.entities import Usage, UsageBy, UsageRow, UsageTotals
from loreg.refs import NO_NAMESPACE, AdapterName, AdapterPattern


def count_usage(tx: Transaction, by: UsageBy, pattern: AdapterPattern, limit: int, cursor: str | None) -> Usage:
    """Return a page of what the adapters that match store, by namespace or each alone; with the totals on the first.

    Manifests are not counted: the catalog does not know their sizes, of some hundred bytes.
    """
    adapters, last = _find_page(tx, by, pattern, limit, cursor)
    rows = _count(tx, by, pattern, adapters) if adapters else ()
    return Usage(
        rows, encode(f"usage {by}", list(last)) if last else None, _count_totals(tx) if cursor is None else None
    )


def _key(by: UsageBy, table: Any = adapter_table) -> tuple[SQLColumnExpression[str], ...]:
    return (table.c.namespace,) if by is UsageBy.NAMESPACE else (table.c.namespace, table.c.name)


def _find_page(
    tx: Transaction, by: UsageBy, pattern: AdapterPattern, limit: int, cursor: str | None
) -> tuple[list[tuple[str, ...]], tuple[str, ...] | None]:
    """Return the keys of the page, and the last of them if there are more behind it."""
    key = _key(by)
    query = select(*key).where(is_match(tx, pattern)).distinct().order_by(*key).limit(limit + 1)
    if cursor:
        query = query.where(tuple_(*key) > tuple_(*decode(cursor, f"usage {by}", (str,) * len(key))))
    keys = [tuple(row) for row in tx.connection.execute(query)]
    return keys[:limit], keys[limit - 1] if len(keys) > limit else None


def _count(
    tx: Transaction, by: UsageBy, pattern: AdapterPattern, keys: Sequence[tuple[str, ...]]
) -> tuple[UsageRow, ...]:
    key = _key(by)
    is_counted = and_(is_match(tx, pattern), or_(*(tuple_(*key) == tuple_(*values) for values in keys)))
    of_versions = (
        select(*key, func.count(version_table.c.id), func.coalesce(func.sum(version_table.c.bytes), 0))
        .join_from(adapter_table, version_table, version_table.c.adapter_id == adapter_table.c.id, isouter=True)
        .where(is_counted)
        .group_by(*key)
    )
    versions = {tuple(row[: len(key)]): (int(row[-2]), int(row[-1])) for row in tx.connection.execute(of_versions)}
    mine = union(
        *(_select_blobs(by, digest, joined, adapter_table).where(is_counted) for digest, joined in _references())
    ).subquery("mine")
    own = case((_is_shared(tx, by, pattern, mine), 0), else_=blob_table.c.size)
    key_of_mine = _key(by, mine)
    of_blobs = (
        select(*key_of_mine, func.sum(blob_table.c.size), func.sum(own))
        .join(blob_table, blob_table.c.digest == mine.c.digest)
        .group_by(*key_of_mine)
    )
    blobs = {tuple(row[: len(key)]): (int(row[-2]), int(row[-1])) for row in tx.connection.execute(of_blobs)}
    rows = []
    for values in keys:
        stored, owned = blobs.get(values, (0, 0))
        name = str(AdapterName(*values)) if len(values) == 2 else values[0] or NO_NAMESPACE
        rows.append(UsageRow(name, *versions[values], owned, stored - owned))
    return tuple(rows)


def _references() -> tuple[tuple[SQLColumnExpression[str], Any], ...]:
    """Return the columns of digests that versions refer to, each with the tables that lead from it to the version."""
    files = file_table.join(version_table, version_table.c.id == file_table.c.version_id)
    exports = export_file_table.join(export_table, export_table.c.id == export_file_table.c.export_id).join(
        version_table, version_table.c.id == export_table.c.version_id
    )
    return (file_table.c.digest, files), (export_file_table.c.digest, exports)


def _select_blobs(by: UsageBy, digest: SQLColumnExpression[str], joined: Any, adapters: Any) -> Any:
    """Select the digests of one column with the keys of those that they belong to."""
    source = joined.join(adapters, adapters.c.id == version_table.c.adapter_id)
    return select(*_key(by, adapters), digest.label("digest")).select_from(source)


def _is_shared(tx: Transaction, by: UsageBy, pattern: AdapterPattern, mine: Any) -> ColumnElement[bool]:
    """Return the condition that somebody else has a blob of ``mine``: what is counted elsewhere, or a base."""
    other = adapter_table.alias("other")
    same = [of_other == of_mine for of_other, of_mine in zip(_key(by, other), _key(by, mine), strict=True)]
    is_same = and_(*same, is_match(tx, pattern, other))
    owners: list[Exists] = [
        _select_blobs(by, digest, joined, other).where(digest == mine.c.digest, not_(is_same)).exists()
        for digest, joined in _references()
    ]
    owners.append(select(literal(1)).where(base_table.c.digest == mine.c.digest).exists())
    return or_(*owners)


def _count_totals(tx: Transaction) -> UsageTotals:
    kinds = [
        select(literal(1)).where(column == blob_table.c.digest).exists()
        for column in (file_table.c.digest, export_file_table.c.digest, base_table.c.digest)
    ]
    of_file, of_export, of_base = kinds
    kind = case((of_file, "file"), (of_export, "export"), (of_base, "base"), else_="other").label("kind")
    blobs = select(kind, blob_table.c.size).subquery()
    query = select(blobs.c.kind, func.sum(blobs.c.size)).group_by(blobs.c.kind)
    sizes = {row[0]: int(row[1]) for row in tx.connection.execute(query)}
    adapters = tx.connection.execute(select(func.count()).select_from(adapter_table)).scalar_one()
    versions = tx.connection.execute(select(func.count()).select_from(version_table)).scalar_one()
    marked = collection.count_marked(tx)
    return UsageTotals(
        adapters=adapters,
        versions=versions,
        files=sizes.get("file", 0),
        exports=sizes.get("export", 0),
        bases=sizes.get("base", 0),
        other=sizes.get("other", 0),
        garbage=marked.count,
        garbage_size=marked.size,
    )
