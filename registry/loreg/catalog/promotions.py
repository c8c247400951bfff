"""Promotions that are watched: an alias that goes back to what it meant before, if its version measures badly."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, or_, select

from loreg.catalog.schema import promotion_table
from loreg.catalog.transaction import Transaction
from loreg.entities import Promotion

PromotionRow = Row[*tuple[Any, ...]]


def put(tx: Transaction, adapter_id: int, version_id: int, previous_id: int, promotion: Promotion) -> None:
    """Watch the version that an alias means from now on; the adapter is locked."""
    alias, previous, conditions = promotion.alias, promotion.previous, list(promotion.rollback_if)
    row = {
        "adapter_id": adapter_id,
        "alias": alias,
        "version_id": version_id,
        "number": promotion.number,
        "previous_id": previous_id,
        "previous_number": previous,
        "rollback_if": conditions,
        "author": promotion.author,
        "at": promotion.at,
    }
    tx.upsert(promotion_table, row)
    tx.log("promote", adapter_id, version_id, alias=alias, previous=previous, rollback_if=conditions)


def list_all(tx: Transaction, adapter_id: int) -> tuple[Promotion, ...]:
    """Return the promotions of an adapter that are watched, by alias."""
    query = select(promotion_table).where(promotion_table.c.adapter_id == adapter_id).order_by(promotion_table.c.alias)
    return tuple(map(_to_promotion, tx.connection.execute(query)))


def find(tx: Transaction, adapter_id: int, alias: str) -> PromotionRow | None:
    """Return the row of the promotion of an alias that is watched; None if none is."""
    return tx.connection.execute(select(promotion_table).where(_is_alias(adapter_id, alias))).one_or_none()


def list_of_version(tx: Transaction, version_id: int) -> list[PromotionRow]:
    """Return the rows of the promotions of a version."""
    query = select(promotion_table).where(promotion_table.c.version_id == version_id).order_by(promotion_table.c.alias)
    return list(tx.connection.execute(query))


def forget(tx: Transaction, row: PromotionRow) -> None:
    """Watch a promotion no longer; the caller records why."""
    tx.connection.execute(delete(promotion_table).where(_is_alias(row.adapter_id, row.alias)))


def end(tx: Transaction, adapter_id: int, alias: str, reason: str) -> None:
    """Watch the promotion of an alias no longer, if it is watched."""
    _end(tx, _is_alias(adapter_id, alias), reason)


def end_of_version(tx: Transaction, version_id: int, reason: str) -> None:
    """Watch no promotion of this version any more, and none that would go back to it."""
    columns = promotion_table.c
    _end(tx, or_(columns.version_id == version_id, columns.previous_id == version_id), reason)


def _end(tx: Transaction, which: ColumnElement[bool], reason: str) -> None:
    for row in tx.connection.execute(delete(promotion_table).where(which).returning(promotion_table)).all():
        detail = {"alias": row.alias, "previous": row.previous_number, "reason": reason}
        tx.log("promote end", row.adapter_id, row.version_id, **detail)


def _is_alias(adapter_id: int, alias: str) -> ColumnElement[bool]:
    return and_(promotion_table.c.adapter_id == adapter_id, promotion_table.c.alias == alias)


def _to_promotion(row: PromotionRow) -> Promotion:
    return Promotion(row.alias, row.number, row.previous_number, tuple(row.rollback_if), row.author, row.at)
