"""The clock of the database, by which several machines agree on the time whatever their own clocks show."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, DateTime, cast, func, literal, select

from loreg.catalog.schema import UtcDateTime
from loreg.catalog.transaction import Transaction

_NO_SHIFT = timedelta(0)


def now(tx: Transaction, shift: timedelta = _NO_SHIFT) -> ColumnElement[datetime]:
    """Return the expression for the database's time, moved by ``shift``."""
    if tx.connection.dialect.name == "postgresql":
        return cast(func.clock_timestamp() + literal(shift), DateTime(timezone=True))
    modifier = f"{shift.total_seconds():+.3f} seconds"
    # Written as SQLAlchemy writes a time: SQLite compares text.
    return func.strftime("%Y-%m-%d %H:%M:%f000", "now", modifier, type_=UtcDateTime())


def read_time(tx: Transaction, shift: timedelta = _NO_SHIFT) -> datetime:
    """Return the database's time, moved by ``shift``."""
    return tx.connection.execute(select(now(tx, shift))).scalar_one()
