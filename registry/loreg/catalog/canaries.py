"""Canaries: a second version of an alias, for a share of those who ask, until it is promoted or taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, select

from loreg.catalog.schema import canary_table
from loreg.catalog.transaction import Transaction
from loreg.entities import Canary, Metric
from loreg.parsing import parse_metric_condition

_CanaryRow = Row[*tuple[Any, ...]]


def put(tx: Transaction, adapter_id: int, version_id: int, canary: Canary) -> None:
    """Let a version have a share of an alias, in place of the canary that the alias has; the adapter is locked."""
    put_unlogged(tx, adapter_id, version_id, canary)
    detail = {"alias": canary.alias, "share": canary.share, "rollback_if": list(canary.rollback_if)}
    tx.log("canary", adapter_id, version_id, **detail)


def put_unlogged(tx: Transaction, adapter_id: int, version_id: int, canary: Canary) -> None:
    """Do as :func:`put` does, without an event."""
    key = {"adapter_id": adapter_id, "alias": canary.alias, "version_id": version_id, "number": canary.number}
    values = {"share": canary.share, "rollback_if": list(canary.rollback_if), "author": canary.author, "at": canary.at}
    tx.upsert(canary_table, {**key, **values})


def remove_unlogged(tx: Transaction, adapter_id: int, alias: str) -> bool:
    """Let an alias mean one version alone again, without an event; return whether it had a canary."""
    return bool(tx.connection.execute(delete(canary_table).where(_is_alias(adapter_id, alias))).rowcount)


def list_all(tx: Transaction, adapter_id: int) -> tuple[Canary, ...]:
    """Return the canaries of an adapter, by alias."""
    query = select(canary_table).where(canary_table.c.adapter_id == adapter_id).order_by(canary_table.c.alias)
    return tuple(map(_to_canary, tx.connection.execute(query)))


def find_version_id(tx: Transaction, adapter_id: int, alias: str) -> tuple[int, float] | None:
    """Return the row id of the canary of an alias, and its share; None if it has none."""
    query = select(canary_table.c.version_id, canary_table.c.share).where(_is_alias(adapter_id, alias))
    row = tx.connection.execute(query).one_or_none()
    return (row.version_id, row.share) if row is not None else None


def end(tx: Transaction, adapter_id: int, alias: str, reason: str) -> bool:
    """Let an alias mean one version alone again; return whether it had a canary."""
    return _end(tx, _is_alias(adapter_id, alias), "canary end", reason=reason)


def end_of_version(tx: Transaction, version_id: int, reason: str) -> None:
    """Let no alias have this version as its canary any more."""
    _end(tx, canary_table.c.version_id == version_id, "canary end", reason=reason)


def roll_back(tx: Transaction, version_id: int, metric: Metric) -> None:
    """End the canaries of a version that are to end when such a number is measured of it."""
    rows = tx.connection.execute(select(canary_table).where(canary_table.c.version_id == version_id)).all()
    for row in rows:
        if (condition := find_fulfilled(row.rollback_if, [metric])) is not None:
            which = _is_alias(row.adapter_id, row.alias)
            _end(tx, which, "rollback", metric=metric.exact, rollback_if=condition)


def find_fulfilled(conditions: Sequence[str], metrics: Sequence[Metric]) -> str | None:
    """Return the first of the conditions that one of the metrics fulfills; None if none does."""
    parsed = {text: parse_metric_condition(text) for text in conditions}
    return next((text for text, condition in parsed.items() if any(map(condition.is_fulfilled_by, metrics))), None)


def _end(tx: Transaction, which: ColumnElement[bool], action: str, **detail: object) -> bool:
    ended = tx.connection.execute(delete(canary_table).where(which).returning(canary_table)).all()
    for row in ended:
        tx.log(action, row.adapter_id, row.version_id, alias=row.alias, **detail)
    return bool(ended)


def _is_alias(adapter_id: int, alias: str) -> ColumnElement[bool]:
    return and_(canary_table.c.adapter_id == adapter_id, canary_table.c.alias == alias)


def _to_canary(row: _CanaryRow) -> Canary:
    return Canary(row.alias, row.number, row.share, tuple(row.rollback_if), row.author, row.at)
