"""The condition that an adapter matches a pattern, as each database writes it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, SQLColumnExpression, and_, true

from loreg.catalog.schema import adapter_table
from loreg.catalog.transaction import Transaction
from loreg.refs import AdapterPattern

_TO_LIKE = str.maketrans({"*": "%", "?": "_", "_": r"\_"})


def is_match(tx: Transaction, pattern: AdapterPattern, adapters: Any = adapter_table) -> ColumnElement[bool]:
    """Return the condition that the adapter of a row matches; ``adapters`` may be an alias of the table."""
    return and_(_matches(tx, adapters.c.namespace, pattern.namespace), _matches(tx, adapters.c.name, pattern.name))


def _matches(tx: Transaction, column: SQLColumnExpression[str], text: str) -> ColumnElement[bool]:
    if text == "*":
        return true()
    if not {"*", "?"} & set(text):
        return column == text
    if tx.connection.dialect.name == "postgresql":
        return column.like(text.translate(_TO_LIKE), escape="\\")
    return column.op("GLOB", is_comparison=True)(text)  # SQLite's LIKE takes a for A
