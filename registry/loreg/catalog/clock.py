"""The clock of the database: what several machines compare their times with, whatever their own clocks say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, DateTime, cast, func, literal

from loreg.catalog.schema import UtcDateTime
from loreg.catalog.transaction import Transaction

_NOTHING = timedelta(0)


def now(tx: Transaction, shift: timedelta = _NOTHING) -> ColumnElement[Any]:
    """What the database's clock shows, ``shift`` later."""
    if tx.connection.dialect.name == "postgresql":
        return cast(func.clock_timestamp() + literal(shift), DateTime(timezone=True))
    moved = f"{shift.total_seconds():+.3f} seconds"
    # Written as SQLAlchemy writes a time: SQLite compares text.
    return func.strftime("%Y-%m-%d %H:%M:%f000", "now", moved, type_=UtcDateTime())
