"""Metrics: record measured numbers of versions."""

from __future__ import annotations

from sqlalchemy import select

from loreg.catalog import metric_declarations, rollbacks
from loreg.catalog.schema import metric_table
from loreg.catalog.transaction import Transaction
from loreg.entities import Metric


def put(tx: Transaction, adapter_id: int, version_id: int, metric: Metric) -> None:
    """Record ``metric``, in place of a value for the same name, dataset and split.

    Canaries and promotions may end by it. Raises ConflictError if it is declared to be better in the other direction.
    """
    metric_declarations.refuse_other_direction(tx, metric)
    changed, replaced = put_unlogged(tx, version_id, metric)
    if changed:
        tx.log("metric", adapter_id, version_id, metric=metric.exact, replaced=replaced)
        rollbacks.roll_back(tx, version_id, metric)


def put_unlogged(tx: Transaction, version_id: int, metric: Metric) -> tuple[bool, float | None]:
    """Do as :func:`put` does, without an event; return whether anything changed, and the value before."""
    key = {"version_id": version_id, "name": metric.name, "dataset": metric.dataset, "split": metric.split}
    old = tx.connection.execute(select(metric_table.c.value, metric_table.c.score).filter_by(**key)).one_or_none()
    score = metric.value if metric.higher_is_better else -metric.value
    if old is not None and tuple(old) == (metric.value, score):
        return False, metric.value
    values = {"value": metric.value, "higher_is_better": metric.higher_is_better, "score": score}
    tx.upsert(metric_table, {**key, **values, "author": tx.author, "created_at": tx.at})
    return True, old.value if old else None
