"""Read how a metric went over the versions of adapters, of many adapters at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from sqlalchemy import and_, or_, select

from loreg.catalog.schema import adapter_table, metric_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.entities import Metric
from loreg.refs import AdapterName

_REACH = 30  # versions before and after


def metric_history(
    tx: Transaction, measured: Mapping[AdapterName, Metric], around: Mapping[AdapterName, int]
) -> dict[AdapterName, list[tuple[int, float]]]:
    """Return number and value of the versions that have the metric ``measured`` of their adapter, the oldest first.

    Of each adapter those whose numbers are near to the number ``around``; yanked versions are left out.
    """
    wanted = [
        and_(
            adapter_table.c.namespace == adapter.namespace,
            adapter_table.c.name == adapter.name,
            version_table.c.number.between(around[adapter] - _REACH, around[adapter] + _REACH),
            metric_table.c.name == metric.name,
            metric_table.c.dataset == metric.dataset,
            metric_table.c.split == metric.split,
        )
        for adapter, metric in measured.items()
    ]
    if not wanted:
        return {}
    query = (
        select(adapter_table.c.namespace, adapter_table.c.name, version_table.c.number, metric_table.c.value)
        .join(version_table, version_table.c.adapter_id == adapter_table.c.id)
        .join(metric_table, metric_table.c.version_id == version_table.c.id)
        .where(tx.visible(adapter_table.c.namespace), version_table.c.yanked_at.is_(None), or_(*wanted))
        .order_by(version_table.c.number)
    )
    history: defaultdict[AdapterName, list[tuple[int, float]]] = defaultdict(list)
    for namespace, name, number, value in tx.connection.execute(query):
        history[AdapterName(namespace, name)].append((number, value))
    return dict(history)
