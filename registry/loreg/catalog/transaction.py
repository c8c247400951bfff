"""One unit of work on the catalog, of which all or nothing happens, and the writes that every table needs."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Integer,
    SQLColumnExpression,
    Table,
    TypedColumns,
    insert,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.sql.selectable import ReturnsRows

from loreg.catalog import compiled
from loreg.catalog.schema import event_table, namespace_table
from loreg.entities import ANONYMOUS_AUTHOR, Access

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

_LOG_EVENT = insert(event_table)


class Sighting(msgspec.Struct, frozen=True):
    """A blob that was collected, or whose claim ran out, at the time ``at``: the store must be asked for it anew."""

    sha256: str
    at: datetime


class Transaction(msgspec.Struct, frozen=True):
    """A connection inside a transaction, with who acts and when.

    ``confirmed`` are blobs that the store has, or is about to be sent, though they were collected before: a transaction
    that is rolled back at its end may refer to them; see :func:`loreg.catalog.garbage.protect`.
    """

    connection: Connection
    access: Access
    at: datetime
    confirmed: frozenset[Sighting] = frozenset()

    @property
    def author(self) -> str:
        """Return the name of the user who acts."""
        return self.access.author

    def is_by_caller(self, author: str) -> bool:
        """Return whether the caller is this author, by a name of his own: nobody is the author without a name."""
        return author == self.author and author not in ("", ANONYMOUS_AUTHOR)

    @property
    def sees_all(self) -> bool:
        """Whether the caller may read every namespace."""
        return "*" in self.access.permissions

    def visible(self, namespace: SQLColumnExpression[str]) -> ColumnElement[bool]:
        """Return the condition that the caller may read the namespace in the column ``namespace``."""
        return true() if self.sees_all else _readable(namespace, namespace.in_(sorted(self.access.permissions)))

    def select_compiled(self, statement: ReturnsRows, **values: object) -> list[compiled.Row]:
        """Return the rows of a statement that :mod:`loreg.catalog.compiled` compiles once.

        The parameter of :func:`visible_to` gets its value here. Raises DBAPIError.
        """
        return compiled.select_rows(self.connection, statement, {"readable": sorted(self.access.permissions), **values})

    def insert_missing(self, table: Table[TypedColumns], rows: Sequence[Mapping[str, object]]) -> None:
        """Insert the rows whose key is not in the table yet; leave the others as they are."""
        if rows:
            self.connection.execute(_insert_missing(table, self._dialect), rows)

    def insert_if_missing(self, table: Table[TypedColumns], row: Mapping[str, object]) -> bool:
        """Insert the row unless its key is in the table; return whether it was inserted."""
        return self.connection.execute(_insert_if_missing(table, self._dialect), row).first() is not None

    def get_or_create_locked(self, table: Table[TypedColumns], row: Mapping[str, object], *key: str) -> int:
        """Return the id of the row with that unique key, inserted if need be and locked until the transaction ends."""
        return self.connection.execute(_insert_or_lock(table, key, self._dialect), row).scalar_one()

    def upsert(self, table: Table[TypedColumns], row: Mapping[str, object]) -> None:
        """Insert the row, or replace the values of the one with its primary key."""
        self.connection.execute(_upsert(table, tuple(row), self._dialect), row)

    def upsert_all(self, table: Table[TypedColumns], rows: Sequence[Mapping[str, object]]) -> None:
        """Insert rows of the same columns, or replace the values of those with their primary keys."""
        if rows:
            self.connection.execute(_upsert(table, tuple(rows[0]), self._dialect), rows)

    def log(self, action: str, adapter_id: int | None, version_id: int | None, **detail: object) -> None:
        """Record an event: who did what, to which adapter and version."""
        event = {"at": self.at, "author": self.author, "action": action, "detail": detail}
        self.connection.execute(_LOG_EVENT, {"adapter_id": adapter_id, "version_id": version_id, **event})

    @property
    def _dialect(self) -> str:
        return self.connection.dialect.name


@functools.cache
def _insert_missing(table: Table[TypedColumns], dialect: str) -> postgresql.Insert | sqlite.Insert:
    return _insert(table, dialect).on_conflict_do_nothing()


@functools.cache
def _insert_if_missing(table: Table[TypedColumns], dialect: str) -> ReturningInsert[int]:
    return _insert_missing(table, dialect).returning(literal_column("1", Integer))


@functools.cache
def _insert_or_lock(table: Table[TypedColumns], key: tuple[str, ...], dialect: str) -> ReturningInsert[int]:
    statement = _insert(table, dialect)
    unchanged = {key[0]: statement.excluded[key[0]]}  # an update locks the row, and returns its id
    return statement.on_conflict_do_update(index_elements=key, set_=unchanged).returning(table.c["id"])


@functools.cache
def _upsert(table: Table[TypedColumns], columns: tuple[str, ...], dialect: str) -> Insert:
    statement = _insert(table, dialect)
    keys = [column.name for column in table.primary_key]
    values = {name: statement.excluded[name] for name in columns if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=values)


def _insert(table: Table[TypedColumns], dialect: str) -> postgresql.Insert | sqlite.Insert:
    # Imported here: a command on SQLite does without PostgreSQL's dialect, a sixth of its start.
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def visible_to(sees_all: bool, namespace: SQLColumnExpression[str]) -> ColumnElement[bool]:
    """Return the condition of :meth:`Transaction.visible` for a statement that is compiled once for all callers.

    :meth:`Transaction.select_compiled` binds which namespaces its caller may read.
    """
    return true() if sees_all else _readable(namespace, compiled.AnyOf(namespace, compiled.text_array("readable")))


def _readable(namespace: SQLColumnExpression[str], permitted: ColumnElement[bool]) -> ColumnElement[bool]:
    return or_(permitted, namespace.in_(select(namespace_table.c.name).where(namespace_table.c.public)))
