"""Take back what measures badly: the canary of an alias, or its promotion."""

from __future__ import annotations

from loreg.catalog import aliases, canaries, promotions
from loreg.catalog.transaction import Transaction
from loreg.entities import Metric


def roll_back(tx: Transaction, version_id: int, metric: Metric) -> None:
    """End the canaries, and take back the promotions, of a version that are to end when ``metric`` is measured of it.

    An alias that was promoted means again what it meant before. Nobody is asked, no policy either: that was allowed
    when the alias came to mean it. The adapter is locked.
    """
    canaries.roll_back(tx, version_id, metric)
    for row in promotions.list_of_version(tx, version_id):
        if (condition := canaries.find_fulfilled(row.rollback_if, [metric])) is not None:
            promotions.forget(tx, row)
            detail = {"alias": row.alias, "previous": row.previous_number, "metric": metric.exact}
            tx.log("rollback", row.adapter_id, version_id, **detail, rollback_if=condition)
            reason = f"{metric.exact} was measured of v{row.number}"
            aliases.set_alias(tx, row.adapter_id, row.previous_id, row.alias, reason)
