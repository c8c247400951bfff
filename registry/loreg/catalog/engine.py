"""Opening the database, and the one boundary where its errors become ours."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DataError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from loreg.catalog.sqlite import open_sqlite, refuse_torn
from loreg.errors import (
    ConflictError,
    LoregError,
    MissingExtraError,
    NotAllowedError,
    UnavailableError,
    UsageError,
)
from loreg.settings import masked

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_SQLITE = "sqlite:///"
_IDLE = 5.0  # seconds
# READ COMMITTED lets each statement see what is committed when it begins, in a transaction or not: what only reads
# begins none. A server asks from many threads; what was used last is used next, so that few connections stay busy.
_POSTGRESQL: dict[str, Any] = {
    "isolation_level": "AUTOCOMMIT",
    "skip_autocommit_rollback": True,
    "pool_size": 10,
    "max_overflow": 10,
    "pool_use_lifo": True,
    "connect_args": {"connect_timeout": 10},
    "json_deserializer": msgspec.json.decode,
}
_NO_SUCH_TABLE = ("42P01", "3F000")  # PostgreSQL, Appendix A: undefined_table, invalid_schema_name
_LOST_A_RACE = ("40001", "40P01")  # serialization_failure, deadlock_detected


def open_engine(url: str) -> Engine:
    """Make the engine for a SQLite or PostgreSQL URL; connects to nothing yet.

    Raises UsageError for any other database, MissingExtraError without the PostgreSQL driver.
    """
    parsed = parse_url(url)
    try:
        if parsed.get_backend_name() == "sqlite":
            return open_sqlite(parsed)
        return _open_postgresql(parsed)
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


def _open_postgresql(url: URL) -> Engine:
    return _watched(create_engine(url, **_POSTGRESQL))


@contextlib.contextmanager
def begun(engine: Engine) -> Iterator[Connection]:
    """A connection that may write, in one transaction: committed at the end, rolled back on any error."""
    sqlite = engine.dialect.name == "sqlite"
    options: dict[str, Any] = {"loreg_writes": True} if sqlite else {"isolation_level": "READ COMMITTED"}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection that only reads."""
    if engine.dialect.name != "sqlite":
        with engine.connect() as connection:
            yield connection
        return
    with engine.begin() as connection:
        try:
            yield connection
        except DatabaseError:
            refuse_torn(connection)
            raise
        refuse_torn(connection)


def open_awaited(engine: Engine) -> AsyncEngine:
    """The same PostgreSQL for one event loop, which is free for others while the database works."""
    from sqlalchemy.ext.asyncio import create_async_engine

    awaited = create_async_engine(engine.url, **_POSTGRESQL)
    _watched(awaited.sync_engine)
    return awaited


def _watched(engine: Engine) -> Engine:
    """Ask a connection that lay idle whether it still holds before it is used: the pool replaces one that does not."""

    @event.listens_for(engine, "checkin")
    def _lie_down(connection: Any, record: Any) -> None:
        record.info["since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _get_up(connection: Any, record: Any, proxy: Any) -> None:
        if time.monotonic() - record.info.get("since", math.inf) > _IDLE:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error:
                raise DisconnectionError from None

    return engine


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn the database's errors into one line each, without the statement and without a password."""
    try:
        yield
    except DBAPIError as error:
        raise _translated(error, masked(url)) from error
    except PoolTimeout:
        raise UnavailableError(f"the catalog {masked(url)} has more to do than it can", hint="try again") from None


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
    if isinstance(error, DataError):  # NUL in a text, a number that is too large: asking again will not help
        return UsageError(f"the catalog cannot hold that: {reason}", hint="leave out what is no text or number")
    if isinstance(error, OperationalError):
        return UnavailableError(f"the catalog {url} does not answer: {reason}", hint="loreg doctor")
    return UnavailableError(f"the catalog {url} failed: {reason}", hint="loreg doctor")
