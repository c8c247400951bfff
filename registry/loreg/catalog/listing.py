"""List the adapters of a registry, and the versions of one adapter, page by page."""

from __future__ import annotations

from sqlalchemy import func, select, tuple_

from loreg.catalog.paging import decode, encode
from loreg.catalog.schema import adapter_table, alias_table, canary_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import JsonRows, select_versions, to_canary, to_version
from loreg.catalog.versions import find_adapter_id
from loreg.entities import AdapterEntry, Page, Version
from loreg.refs import AdapterName


def list_adapters(tx: Transaction, limit: int, cursor: str | None) -> Page[AdapterEntry]:
    """Return a page of adapters by namespace and name, from one statement."""
    count = select(func.count()).where(version_table.c.adapter_id == adapter_table.c.id).scalar_subquery()
    newest = (
        select(func.max(version_table.c.number))
        .where(version_table.c.adapter_id == adapter_table.c.id, version_table.c.yanked_at.is_(None))
        .scalar_subquery()
    )
    aliases = (
        select(JsonRows(alias_table.c.alias, version_table.c.number))
        .join(version_table, version_table.c.id == alias_table.c.version_id)
        .where(alias_table.c.adapter_id == adapter_table.c.id)
        .scalar_subquery()
    )
    canary = canary_table.c
    canaries = (
        select(JsonRows(canary.alias, canary.number, canary.share, canary.rollback_if, canary.author, canary.at))
        .where(canary.adapter_id == adapter_table.c.id)
        .scalar_subquery()
    )
    key = (adapter_table.c.namespace, adapter_table.c.name)
    counts = (count.label("versions"), newest.label("newest"))
    query = select(adapter_table, *counts, aliases.label("aliases"), canaries.label("canaries"))
    query = query.where(tx.visible(adapter_table.c.namespace))
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
            tuple(map(to_canary, sorted(row.canaries))),
        )
        for row in shown
    )
    return Page(tuple(entries), next_cursor)


def sample_versions(tx: Transaction, count: int) -> tuple[Version, ...]:
    """Return ``count`` versions at most, yanked ones too, spread evenly from the oldest to the newest."""
    ids = select(version_table.c.id).join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
    ids = ids.where(tx.visible(adapter_table.c.namespace))
    first, last = tx.connection.execute(
        ids.with_only_columns(func.min(version_table.c.id), func.max(version_table.c.id))
    ).one()
    if first is None:
        return ()
    steps = [first + (last - first) * step // max(count - 1, 1) for step in range(count)]
    sample = {  # none where the last one was deleted since
        tx.connection.execute(ids.where(version_table.c.id >= step).order_by(version_table.c.id).limit(1)).scalar()
        for step in steps
    }
    query = select_versions().where(version_table.c.id.in_(sample)).order_by(version_table.c.id)
    return tuple(map(to_version, tx.connection.execute(query).scalars()))


def list_versions(tx: Transaction, adapter: AdapterName, limit: int, cursor: str | None) -> Page[Version]:
    """Return a page of versions of one adapter, yanked ones too, newest first. Raises NotFoundError."""
    query = select_versions().where(version_table.c.adapter_id == find_adapter_id(tx, adapter))
    if cursor:
        query = query.where(version_table.c.number < decode(cursor, "versions", (int,))[0])
    documents = tx.connection.execute(query.order_by(version_table.c.number.desc()).limit(limit + 1)).scalars().all()
    shown = tuple(map(to_version, documents[:limit]))
    return Page(shown, encode("versions", [shown[-1].number]) if len(documents) > limit else None)
