"""Count and list the versions that have a finding, and those that lack a card, a license, a metric or a base."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, not_, select

from loreg.catalog.paging import decode, encode
from loreg.catalog.schema import (
    adapter_table,
    alias_table,
    fact_table,
    finding_table,
    metric_table,
    task_table,
    version_table,
)
from loreg.catalog.search_ids import limit_to
from loreg.catalog.transaction import Transaction
from loreg.entities import FindingCount, FlaggedVersion, MissingCount, MissingCounts, MissingKind, Page, Severity
from loreg.refs import AdapterName, Ref

#: How many of the newest versions are looked at for what is counted.
MAX_COUNTED = 5000
_CARD_HEAD = 2000  # characters in which the fields of a card are
_PROBE = "check"


def list_with_finding(
    tx: Transaction, code: str, namespace: str | None, limit: int, cursor: str | None
) -> Page[FlaggedVersion]:
    """Return a page of the versions with that finding, not yanked, the newest first, each with what was found."""
    query = _select_versions(tx, namespace).add_columns(fact_table.c.value)
    query = query.join(finding_table, finding_table.c.version_id == version_table.c.id).outerjoin(
        fact_table, and_(fact_table.c.version_id == version_table.c.id, fact_table.c.probe == _PROBE)
    )
    query = query.where(finding_table.c.code == code)
    if cursor:
        query = query.where(finding_table.c.version_id < decode(cursor, "findings", (int,))[0])
    return _page(tx, query.order_by(finding_table.c.version_id.desc()), "findings", limit, code)


def count_rules(tx: Transaction) -> tuple[FindingCount, ...]:
    """Return by code and namespace how many of the newest versions have a finding.

    They are those of :func:`count_missing`: to count all takes a second among a million.
    """
    newest = _newest(tx, None, MAX_COUNTED).subquery()
    counted = (finding_table.c.code, finding_table.c.severity, newest.c.namespace)
    query = select(*counted, func.count()).join_from(newest, finding_table, finding_table.c.version_id == newest.c.id)
    rows = tx.connection.execute(query.group_by(*counted).order_by(*counted))
    return tuple(FindingCount(code, Severity(severity), namespace, count) for code, severity, namespace, count in rows)


def count_missing(tx: Transaction) -> MissingCounts:
    """Return by namespace how many of the newest versions lack which kind of thing."""
    conditions = [case((_lacks(kind), 1), else_=0).label(kind) for kind in MissingKind]
    newest = _newest(tx, None, MAX_COUNTED + 1).add_columns(*conditions).subquery()
    sums = [func.sum(newest.c[kind]) for kind in MissingKind]
    rows = tx.connection.execute(select(newest.c.namespace, func.count(), *sums).group_by(newest.c.namespace)).all()
    counts = [
        MissingCount(kind, row[0], int(count))
        for row in rows
        for kind, count in zip(MissingKind, row[2:], strict=True)
        if count
    ]
    total = sum(row[1] for row in rows)
    ordered = sorted(counts, key=lambda count: (list(MissingKind).index(count.kind), -count.versions, count.namespace))
    return MissingCounts(min(total, MAX_COUNTED), total > MAX_COUNTED, tuple(ordered))


def list_missing(
    tx: Transaction, kind: MissingKind, namespace: str | None, limit: int, cursor: str | None
) -> Page[FlaggedVersion]:
    """Return a page of the newest versions that lack that kind of thing."""
    newest = _newest(tx, None, MAX_COUNTED + 1).subquery()
    query = _select_versions(tx, namespace).where(version_table.c.id.in_(select(newest.c.id)), _lacks(kind))
    if cursor:
        query = query.where(version_table.c.id < decode(cursor, f"missing {kind}", (int,))[0])
    return _page(tx, query.order_by(version_table.c.id.desc()), f"missing {kind}", limit, "")


def list_with_alias(tx: Transaction, names: tuple[str, ...], limit: int) -> tuple[tuple[Ref, str], ...]:
    """Return the newest versions that one of these aliases means, each with that alias."""
    query = _select_versions(tx, None).add_columns(alias_table.c.alias)
    query = query.join(alias_table, alias_table.c.version_id == version_table.c.id)
    query = query.where(alias_table.c.alias.in_(names)).order_by(alias_table.c.version_id.desc()).limit(limit)
    rows = tx.connection.execute(query)
    return tuple((Ref(AdapterName(row.namespace, row.name), number=row.number), row.alias) for row in rows)


def _select_versions(tx: Transaction, namespace: str | None) -> Select[Any]:
    version = version_table.c
    adapter = adapter_table.c
    columns: list[Any] = [
        version.id, adapter.namespace, adapter.name, version.number, version.author, version.created_at,
    ]  # fmt: skip
    query = select(*columns).join_from(version_table, adapter_table, adapter.id == version.adapter_id)
    query = query.where(version.yanked_at.is_(None), tx.visible(adapter_table.c.namespace))
    return query if namespace is None else query.where(adapter_table.c.namespace == namespace)


def _newest(tx: Transaction, namespace: str | None, limit: int) -> Select[Any]:
    return _select_versions(tx, namespace).order_by(version_table.c.id.desc()).limit(limit_to(limit))


def _lacks(kind: MissingKind) -> ColumnElement[bool]:
    version = version_table.c
    if kind is MissingKind.CARD:
        return version.card == ""
    if kind is MissingKind.LICENSE:
        return not_(func.substr(version.card, 1, _CARD_HEAD).like("---%\nlicense:%"))
    if kind is MissingKind.BASE:
        return version.base_id.is_(None)
    table = task_table if kind is MissingKind.TASK else metric_table
    return not_(select(table.c.version_id).where(table.c.version_id == version.id).exists())


def _page(tx: Transaction, query: Select[Any], order: str, limit: int, code: str) -> Page[FlaggedVersion]:
    rows = tx.connection.execute(query.limit(limit + 1)).all()
    shown = rows[:limit]
    items = [
        FlaggedVersion(
            f"{AdapterName(row.namespace, row.name)}:v{row.number}", row.author, row.created_at, _message(row, code)
        )
        for row in shown
    ]
    return Page(tuple(items), encode(order, [shown[-1].id]) if len(rows) > limit else None)


def _message(row: Any, code: str) -> str:
    findings = (row.value or {}).get("findings", {}) if code else {}
    return str(findings.get(code, {}).get("message", ""))
