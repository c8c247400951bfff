"""One unit of work on the catalog: all of it happens, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Select,
    bindparam,
    insert,
    or_,
    select,
    true,
)
from sqlalchemy.dialects import postgresql, sqlite

from loreg.catalog.schema import EventRow, NamespaceRow, Table
from loreg.records import Access


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
        return "*" in self.access.grants

    def visible(self, namespace: Any) -> ColumnElement[bool]:
        """The condition that who acts may read what is in the column ``namespace``."""
        return true() if self.sees_all else _readable(namespace, sorted(self.access.grants))

    def rows(self, statement: Select[Any], **values: Any) -> CursorResult[Any]:
        """Run a SELECT that is kept for everybody, with what is asked for now and by whom: see :func:`visible_to`."""
        return self.connection.execute(statement, {"readable": sorted(self.access.grants), **values})

    def insert_missing(self, table: type[Table], rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert the rows whose key is not there yet; the others stay as they are."""
        if rows:
            self.connection.execute(self._insert(table).on_conflict_do_nothing(), list(rows))

    def row_of(self, table: type[Table], row: Mapping[str, Any], *key: Any) -> int:
        """The id of the row with that unique key, which is inserted if need be and locked until the end."""
        first, *_ = key
        statement = (
            self._insert(table).values(row).on_conflict_do_update(index_elements=key, set_={first: row[first.key]})
        )
        found: int = self.connection.execute(statement.returning(table.__table__.c.id)).scalar_one()
        return found

    def upsert(self, table: type[Table], row: Mapping[str, Any]) -> None:
        """Insert the row, or replace the values of the one with its primary key."""
        keys = [column.name for column in table.__table__.primary_key]
        values = {name: value for name, value in row.items() if name not in keys}
        self.connection.execute(self._insert(table).values(row).on_conflict_do_update(index_elements=keys, set_=values))

    def log(self, action: str, adapter_id: int | None, version_id: int | None, **detail: Any) -> None:
        """Write down who did what."""
        event = {"at": self.at, "author": self.author, "action": action, "detail": detail}
        self.connection.execute(insert(EventRow).values(adapter_id=adapter_id, version_id=version_id, **event))

    def _insert(self, table: type[Table]) -> postgresql.Insert | sqlite.Insert:
        if self.connection.dialect.name == "postgresql":
            return postgresql.insert(table)
        return sqlite.insert(table)


def visible_to(sees_all: bool, namespace: Any) -> ColumnElement[bool]:
    """:meth:`Transaction.visible` for statements that are made once: who asks is known when :meth:`rows` runs them.

    SQLAlchemy needs longer to make a statement of this size, and to see that it knows it already, than PostgreSQL to
    answer it; so those that are asked for all the time are made once for each shape.
    """
    return true() if sees_all else _readable(namespace, bindparam("readable", expanding=True))


def _readable(namespace: Any, names: Any) -> ColumnElement[bool]:
    public = select(NamespaceRow.name).where(NamespaceRow.public)
    return or_(namespace.in_(names), namespace.in_(public))
