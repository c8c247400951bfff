"""One unit of work on the catalog: all of it happens, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert
from sqlalchemy.dialects import postgresql, sqlite

from loreg.catalog.schema import EventRow, Table


@dataclass(frozen=True)
class Transaction:
    """A connection inside a transaction, with who acts and when."""

    connection: Connection
    author: str
    at: datetime

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
