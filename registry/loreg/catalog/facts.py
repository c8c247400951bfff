"""Facts: record what probes say of versions, and count the findings among them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import JSON, Function, Text, and_, case, column, delete, func, insert, select

from loreg.catalog.patterns import is_match
from loreg.catalog.schema import adapter_table, fact_table, finding_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.entities import CheckedCount, FindingCount, NewFacts, Severity, VersionFacts
from loreg.refs import AdapterPattern


def put_all(tx: Transaction, by_version: Mapping[int, NewFacts]) -> None:
    """Record what a probe says of versions, by their ids, in place of what it said before."""
    tx.upsert_all(
        fact_table,
        [
            {
                "version_id": version_id,
                "probe": new.probe,
                "release": new.release,
                "value": dict(new.value),
                "error": new.error,
                "at": tx.at,
            }
            for version_id, new in by_version.items()
        ],
    )


def derive_findings(tx: Transaction, probe: str, version_ids: Collection[int]) -> None:
    """Record which findings versions have, as the facts of ``probe`` have them by code, in place of those they had."""
    tx.connection.execute(delete(finding_table).where(finding_table.c.version_id.in_(version_ids)))
    is_of_probe = (fact_table.c.probe == probe) & fact_table.c.version_id.in_(version_ids)
    names = (column("key", Text), column("value", JSON))
    by_code = _read_findings(tx.connection.dialect.name).table_valued(*names, joins_implicitly=True)
    of_facts = select(fact_table.c.version_id, by_code.c.key, by_code.c.value["severity"].as_string())
    columns = ["version_id", "code", "severity"]
    tx.connection.execute(insert(finding_table).from_select(columns, of_facts.where(is_of_probe)))


def _read_findings(dialect: str) -> Function[Any]:
    """Return the function with which a database reads an object in an object as rows."""
    if dialect == "postgresql":
        return func.json_each(fact_table.c.value["findings"])
    return func.json_each(fact_table.c.value, "$.findings")


def find(tx: Transaction, version_id: int) -> tuple[VersionFacts, ...]:
    """Return what probes said of a version, by the probes' names."""
    query = select(fact_table).where(fact_table.c.version_id == version_id).order_by(fact_table.c.probe)
    rows = tx.connection.execute(query)
    return tuple(VersionFacts(row.probe, row.release, row.value, row.error, row.at) for row in rows)


def count_findings(tx: Transaction, pattern: AdapterPattern) -> tuple[FindingCount, ...]:
    """Return how many versions of the adapters that match have each finding, by code and namespace."""
    counted = (finding_table.c.code, finding_table.c.severity, adapter_table.c.namespace)
    query = (
        select(*counted, func.count())
        .join_from(finding_table, version_table, version_table.c.id == finding_table.c.version_id)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(version_table.c.yanked_at.is_(None), tx.visible(adapter_table.c.namespace), is_match(tx, pattern))
        .group_by(*counted)
    )
    rows = tx.connection.execute(query)
    counts = [FindingCount(code, Severity(severity), namespace, count) for code, severity, namespace, count in rows]
    return tuple(sorted(counts, key=lambda count: (count.code, count.namespace, count.severity)))


def count_checked(tx: Transaction, pattern: AdapterPattern, probe: str, release: str) -> tuple[CheckedCount, ...]:
    """Return by namespace of how many versions a probe said something, and of how many in another release."""
    has_facts = fact_table.c.version_id.is_not(None)
    query = (
        select(
            adapter_table.c.namespace,
            func.count(),
            func.sum(case((has_facts, 1), else_=0)),
            func.sum(case((has_facts & (fact_table.c.release != release), 1), else_=0)),
            func.sum(case((has_facts & (fact_table.c.error != ""), 1), else_=0)),
        )
        .join_from(version_table, adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .outerjoin(fact_table, and_(fact_table.c.version_id == version_table.c.id, fact_table.c.probe == probe))
        .where(version_table.c.yanked_at.is_(None), tx.visible(adapter_table.c.namespace), is_match(tx, pattern))
        .group_by(adapter_table.c.namespace)
    )
    return tuple(sorted((CheckedCount(*row) for row in tx.connection.execute(query)), key=lambda row: row.namespace))
