"""One unit of work on the catalog: all of it happens, or nothing."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Insert, insert, literal_column, or_, select, true
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.sql.selectable import ReturnsRows

from loreg.catalog import compiled
from loreg.catalog.schema import EventRow, NamespaceRow, TableBase
from loreg.entities import Access


@dataclass(frozen=True)
class Transaction:
    """A connection inside a transaction, with who acts, what on, and when."""

    connection: Connection
    access: Access
    at: datetime

    @property
    def author(self) -> str:
        """Who acts."""
        return self.access.author

    @property
    def sees_all(self) -> bool:
        """Whether who acts may read every namespace."""
        return "*" in self.access.permissions

    def visible(self, namespace: Any) -> ColumnElement[bool]:
        """The condition that who acts may read what is in the column ``namespace``."""
        return true() if self.sees_all else _readable(namespace, namespace.in_(sorted(self.access.permissions)))

    def rows(self, statement: ReturnsRows, **values: Any) -> list[compiled.Row]:
        """Run a statement that is kept for everybody, with who asks and what for: see :func:`visible_to`."""
        return compiled.select_rows(self.connection, statement, {"readable": sorted(self.access.permissions), **values})

    def insert_missing(self, table: type[TableBase], rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert the rows whose key is not there yet; the others stay as they are."""
        if rows:
            compiled.insert_rows(self.connection, _missing(table, self.connection.dialect.name), rows)

    def insert_if_missing(self, table: type[TableBase], row: Mapping[str, Any]) -> bool:
        """Insert the row unless its key is there; whether it was not."""
        return bool(self.rows(_one_missing(table, self.connection.dialect.name), **row))

    def get_or_create_locked(self, table: type[TableBase], row: Mapping[str, Any], *key: str) -> int:
        """The id of the row with that unique key, which is inserted if need be and locked until the end."""
        ((found,),) = self.rows(_one_with(table, key, self.connection.dialect.name), **row)
        return int(found)

    def upsert(self, table: type[TableBase], row: Mapping[str, Any]) -> None:
        """Insert the row, or replace the values of the one with its primary key."""
        compiled.insert_rows(self.connection, _upserting(table, tuple(row), self.connection.dialect.name), [row])

    def log(self, action: str, adapter_id: int | None, version_id: int | None, **detail: Any) -> None:
        """Write down who did what."""
        event = {"at": self.at, "author": self.author, "action": action, "detail": detail}
        compiled.insert_rows(self.connection, _EVENT, [{"adapter_id": adapter_id, "version_id": version_id, **event}])


_EVENT = insert(EventRow)


@functools.cache
def _missing(table: type[TableBase], dialect: str) -> postgresql.Insert | sqlite.Insert:
    return _insert(table, dialect).on_conflict_do_nothing()


@functools.cache
def _one_missing(table: type[TableBase], dialect: str) -> ReturningInsert[Any]:
    return _missing(table, dialect).returning(literal_column("1"))


@functools.cache
def _one_with(table: type[TableBase], key: tuple[str, ...], dialect: str) -> ReturningInsert[Any]:
    statement = _insert(table, dialect)
    same = {key[0]: statement.excluded[key[0]]}
    return statement.on_conflict_do_update(index_elements=key, set_=same).returning(table.__table__.c.id)


@functools.cache
def _upserting(table: type[TableBase], columns: tuple[str, ...], dialect: str) -> Insert:
    statement = _insert(table, dialect)
    keys = [column.name for column in table.__table__.primary_key]
    values = {name: statement.excluded[name] for name in columns if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=values)


def _insert(table: type[TableBase], dialect: str) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def visible_to(sees_all: bool, namespace: Any) -> ColumnElement[bool]:
    """:meth:`Transaction.visible` for statements that are kept: who asks is known when :meth:`rows` runs them."""
    return true() if sees_all else _readable(namespace, compiled.AnyOf(namespace, compiled.text_array("readable")))


def _readable(namespace: Any, granted: ColumnElement[bool]) -> ColumnElement[bool]:
    return or_(granted, namespace.in_(select(NamespaceRow.name).where(NamespaceRow.public)))
