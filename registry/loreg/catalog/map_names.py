"""Find adapters for whose versions a run would make versions of one name."""

from __future__ import annotations

from collections.abc import Container

from sqlalchemy import func, literal, select

from loreg.catalog.schema import adapter_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.refs import AdapterName


def find_shared_name(
    tx: Transaction, template: str, version_ids: Container[int]
) -> tuple[str, AdapterName, AdapterName] | None:
    """Return the first name that a template gives to two adapters with versions among these; None if there is none.

    The database compares the names of all adapters; only those that share one are read.
    """
    of_adapter = adapter_table.c
    name = func.replace(
        func.replace(literal(template), literal("{namespace}"), of_adapter.namespace),
        literal("{name}"),
        of_adapter.name,
    )
    named = select(of_adapter.id, of_adapter.namespace, of_adapter.name, name.label("made")).subquery()
    count = func.count().over(partition_by=named.c.made).label("adapters")
    shared = select(named, count).subquery()
    query = (
        select(version_table.c.id.label("version_id"), shared)
        .join(shared, shared.c.id == version_table.c.adapter_id)
        .where(shared.c.adapters > 1)
        .order_by(shared.c.made, shared.c.id)
    )
    first: tuple[str, AdapterName] | None = None
    for row in tx.connection.execute(query):
        if row.version_id not in version_ids:
            continue
        adapter = AdapterName(row.namespace, row.name)
        if first is not None and first[0] == row.made and first[1] != adapter:
            return row.made, first[1], adapter
        first = row.made, adapter
    return None
