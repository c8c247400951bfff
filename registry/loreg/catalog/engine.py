"""Opening the database, and the one boundary where its errors become ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
)

from loreg.errors import (
    ConflictError,
    LoregError,
    MissingExtraError,
    NotAllowedError,
    UnavailableError,
    UsageError,
)
from loreg.settings import masked

_SQLITE = "sqlite:///"
_NO_SUCH_TABLE = ("42P01", "3F000")  # PostgreSQL, Appendix A: undefined_table, invalid_schema_name
_LOST_A_RACE = ("40001", "40P01")  # serialization_failure, deadlock_detected


def open_engine(url: str) -> Engine:
    """Make the engine for a SQLite or PostgreSQL URL; connects to nothing yet.

    Raises UsageError for any other database, MissingExtraError without the PostgreSQL driver.
    """
    parsed = parse_url(url)
    try:
        if parsed.get_backend_name() == "sqlite":
            return _open_sqlite(parsed)
        return create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the PostgreSQL driver is not installed ({error.name})", hint="pip install 'loreg[postgres]'"
        ) from None


def parse_url(url: str) -> URL:
    """Read a database URL. ``postgresql://`` means psycopg 3. Raises UsageError."""
    if url.startswith(_SQLITE):  # all that follows is a path: it may hold "?" and "#"
        return URL.create("sqlite", database=str(Path(url.removeprefix(_SQLITE)).expanduser()))
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError):
        backend = "unknown"
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        return parsed
    raise UsageError(
        "the database URL is not understood: expected sqlite:///path or postgresql://user@host/name",
        hint="export LOREG_DATABASE_URL=postgresql://user@host/loreg",
    )


def _open_sqlite(url: URL) -> Engine:
    if url.database and url.database != ":memory:":
        folder = Path(url.database).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotAllowedError(
                f"cannot make the catalog's folder {folder}: {error.strerror}",
                hint="export LOREG_HOME=… to a folder you may write",
            ) from None
    engine = create_engine(url, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # sqlite3 must not begin transactions by itself: see _begin
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=NORMAL", "busy_timeout=30000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # A writer takes the lock at its start: one that reads first and then writes could be refused at once.
        writes = connection.get_execution_options().get("loreg_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn the database's errors into one line each, without the statement and without a password."""
    try:
        yield
    except DBAPIError as error:
        raise _translated(error, masked(url)) from error


def _translated(error: DBAPIError, url: str) -> LoregError:
    reason = " ".join(str(error.orig).split())[:300]
    sqlstate = getattr(error.orig, "sqlstate", "")
    if isinstance(error, IntegrityError) or sqlstate in _LOST_A_RACE:
        return ConflictError(f"someone else changed the catalog at the same moment: {reason}", hint="try again")
    if "readonly database" in reason or "permission denied" in reason:
        return NotAllowedError(
            f"the catalog {url} may not be written: {reason}",
            hint="ask for write permission, or set LOREG_HOME",
        )
    if sqlstate in _NO_SUCH_TABLE:
        return UnavailableError(f"the catalog {url} has no schema yet", hint="loreg db upgrade")
    if isinstance(error, OperationalError):
        return UnavailableError(f"the catalog {url} does not answer: {reason}", hint="loreg doctor")
    return UnavailableError(f"the catalog {url} failed: {reason}", hint="loreg doctor")
