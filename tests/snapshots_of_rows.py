"""Every row of a catalog, read with plain SQL and made comparable between databases: an oracle for what copies rows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from loreg.catalog.engine import open_engine
from loreg.catalog.schema import metadata

Rows = dict[str, list[tuple[str, ...]]]


def rows_of(url: str, *, without: tuple[str, ...] = ("garbage",), events_after: tuple[str, ...] = ()) -> Rows:
    """All rows by table, as texts, sorted. Events of the actions ``events_after`` are left out."""
    engine = open_engine(url)
    tables: Rows = {}
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            if table.name in without:
                continue
            names = [column.name for column in table.columns]
            selected = connection.execute(text(f"SELECT {', '.join(names)} FROM {table.name}")).mappings()
            kept = [row for row in selected if table.name != "events" or row["action"] not in events_after]
            kinds = {column.name: str(column.type) for column in table.columns}
            tables[table.name] = sorted(tuple(_plain(kinds[name], row[name]) for name in names) for row in kept)
    engine.dispose()
    return tables


def _plain(kind: str, value: Any) -> str:
    if value is None:
        return "-"
    if kind == "JSON":
        return json.dumps(json.loads(value) if isinstance(value, str) else value)  # with the keys in their order
    if kind.startswith("DATETIME"):
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        return (time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()
    return repr(bool(value)) if kind == "BOOLEAN" else repr(value)
