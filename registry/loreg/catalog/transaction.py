"""One unit of work on the catalog: all of it happens, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, insert, or_, select, true
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

    def visible(self, namespace: Any) -> ColumnElement[bool]:
        """The condition that who acts may read what is in the column ``namespace``."""
        if "*" in self.access.grants:
            return true()
        public = select(NamespaceRow.name).where(NamespaceRow.public)
        return or_(namespace.in_(sorted(self.access.grants)), namespace.in_(public))

    def insert_missing(self, table: type[Table], rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert the rows whose key is not there yet; the others stay as they are."""
        if rows:
            self.connection.execute(self._insert(table).on_conflict_do_nothing(), list(rows))

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
