"""List the adapters of a registry, and the versions of one adapter, page by page."""

from __future__ import annotations

from sqlalchemy import func, select, tuple_

from loreg.catalog.paging import decode, encode
from loreg.catalog.schema import AdapterRow, AliasRow, VersionRow
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import JsonRows, select_versions, to_version
from loreg.catalog.versions import find_adapter_id
from loreg.entities import AdapterEntry, Page, Version
from loreg.refs import AdapterName


def list_adapters(tx: Transaction, limit: int, cursor: str | None) -> Page[AdapterEntry]:
    """Return a page of adapters by namespace and name, from one statement."""
    count = select(func.count()).where(VersionRow.adapter_id == AdapterRow.id).scalar_subquery()
    newest = (
        select(func.max(VersionRow.number))
        .where(VersionRow.adapter_id == AdapterRow.id, VersionRow.yanked_at.is_(None))
        .scalar_subquery()
    )
    aliases = (
        select(JsonRows(AliasRow.alias, VersionRow.number))
        .join(VersionRow, VersionRow.id == AliasRow.version_id)
        .where(AliasRow.adapter_id == AdapterRow.id)
        .scalar_subquery()
    )
    key = (AdapterRow.namespace, AdapterRow.name)
    query = select(AdapterRow, count.label("versions"), newest.label("newest"), aliases.label("aliases"))
    query = query.where(tx.visible(AdapterRow.namespace))
    if cursor:
        query = query.where(tuple_(*key) > tuple_(*decode(cursor, "adapters", (str, str))))
    rows = tx.connection.execute(query.order_by(*key).limit(limit + 1)).all()
    shown = rows[:limit]
    next_cursor = encode("adapters", [shown[-1].namespace, shown[-1].name]) if len(rows) > limit else None
    entries = (
        AdapterEntry(
            AdapterName(row.namespace, row.name),
            row.versions,
            row.newest,
            dict(sorted(row.aliases)),
            row.created_at,
        )
        for row in shown
    )
    return Page(tuple(entries), next_cursor)


def sample_versions(tx: Transaction, count: int) -> tuple[Version, ...]:
    """Return ``count`` versions at most, yanked ones too, spread evenly from the oldest to the newest."""
    ids = select(VersionRow.id).join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
    ids = ids.where(tx.visible(AdapterRow.namespace))
    first, last = tx.connection.execute(ids.with_only_columns(func.min(VersionRow.id), func.max(VersionRow.id))).one()
    if first is None:
        return ()
    steps = [first + (last - first) * step // max(count - 1, 1) for step in range(count)]
    sample = {
        tx.connection.execute(ids.where(VersionRow.id >= step).order_by(VersionRow.id).limit(1)).scalar_one()
        for step in steps
    }
    query = select_versions().where(VersionRow.id.in_(sample)).order_by(VersionRow.id)
    return tuple(map(to_version, tx.connection.execute(query).scalars()))


def list_versions(tx: Transaction, adapter: AdapterName, limit: int, cursor: str | None) -> Page[Version]:
    """Return a page of versions of one adapter, yanked ones too, newest first. Raises NotFoundError."""
    query = select_versions().where(VersionRow.adapter_id == find_adapter_id(tx, adapter))
    if cursor:
        query = query.where(VersionRow.number < decode(cursor, "versions", (int,))[0])
    documents = tx.connection.execute(query.order_by(VersionRow.number.desc()).limit(limit + 1)).scalars().all()
    shown = tuple(map(to_version, documents[:limit]))
    return Page(shown, encode("versions", [shown[-1].number]) if len(documents) > limit else None)
