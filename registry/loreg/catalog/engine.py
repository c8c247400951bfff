"""Open the database with its timeouts, and translate its errors: the one boundary where they become loreg's."""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
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
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from loreg.catalog.sqlite import open_sqlite, refuse_torn
from loreg.catalog.statement_log import log_statements
from loreg.errors import (
    ConflictError,
    LoregError,
    MissingExtraError,
    NotAllowedError,
    UnavailableError,
    UsageError,
)
from loreg.settings import mask_url

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_SQLITE = "sqlite:///"
_IDLE_SECONDS = 5.0  # seconds
LOCK_TIMEOUT = 30  # seconds that PostgreSQL works on one statement
_IDLE_TRANSACTION_TIMEOUT = 60  # seconds that a transaction of PostgreSQL may wait for its owner, holding locks
# READ COMMITTED lets each statement see what is committed when it begins, in a transaction or not: what only reads
# begins none. A server queries from many threads; the connection used last is used next, so that few stay busy.
_POSTGRESQL: dict[str, object] = {
    "isolation_level": "AUTOCOMMIT",
    "skip_autocommit_rollback": True,
    "pool_size": 10,
    "max_overflow": 10,
    "pool_use_lifo": True,
    "json_deserializer": msgspec.json.decode,
}
# No password is sent to a server that requests it in clear or as MD5 (libpq's require_auth); one that trusts its
# clients, or knows them by their socket or certificate, gets none. URL and environment may say otherwise.
_REQUIRE_AUTH = "!password,!md5"
_REQUIRE_AUTH_SINCE = 160000  # libpq's version
# Unless the administrator of the database has set others. Parallel workers read ahead what a page does not need: the
# best of a million took 3.9 s with them, and 0.2 without; code compiled for one statement (jit) doubled what counts.
# PostgreSQL takes a page that lies apart for four in a row, which is not so in memory and on SSDs: the facets of a
# million read all metrics for that, in 260 ms instead of 80. Planned each time, a search took half as long again.
_SET_LIMITS = """
SELECT set_config(name, value, false)
FROM (VALUES ('statement_timeout', '0', %s), ('idle_in_transaction_session_timeout', '0', %s),
  ('max_parallel_workers_per_gather', '2', '0'), ('jit', 'on', 'off'), ('random_page_cost', '4', '1.1'),
  ('plan_cache_mode', 'auto', 'force_generic_plan')) AS limits (name, usual, value)
WHERE current_setting(name, true) = usual
"""
# A query that SQLAlchemy takes for a part of the password, because there is an @ in it.
_MISPARSED = re.compile(r"[^?]*/[^?]*\?[^=]*=")
_NO_SUCH_TABLE = ("42P01", "3F000")  # PostgreSQL, Appendix A: undefined_table, invalid_schema_name
SERIALIZATION_ERRORS = ("40001", "40P01")  # serialization_failure, deadlock_detected
_QUERY_CANCELED = "57014"  # query_canceled
_OUTSIDE = "the catalog does not answer"


def open_engine(url: str) -> Engine:
    """Create the engine for a SQLite or PostgreSQL URL; connects to nothing yet.

    Raises UsageError for any other database, MissingExtraError without the PostgreSQL driver.
    """
    parsed = parse_url(url)
    try:
        if parsed.get_backend_name() == "sqlite":
            return log_statements(_refuse_unwritable_values(open_sqlite(parsed)))
        return log_statements(_open_postgresql(parsed))
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the PostgreSQL driver is not installed ({error.name})", hint="pip install 'loreg[postgres]'"
        ) from error


def parse_url(url: str) -> URL:
    """Return the parsed database URL; ``postgresql://`` means psycopg 3. Raises UsageError."""
    if url.startswith(_SQLITE):  # all that follows is a path: it may hold "?" and "#"
        return URL.create("sqlite", database=str(Path(url.removeprefix(_SQLITE)).expanduser()))
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError):
        backend = "unknown"
    if backend == "postgresql":
        # With a bare @ in it, a part of a password would be taken for the host, and be sent to the servers of DNS.
        if "@" in (parsed.host or "") or _MISPARSED.match(str(parsed.password or "")):
            raise UsageError(
                "the database URL is not understood: an @ in a password or in the query is written %40",
                hint="export PGPASSWORD=… instead, or a line in ~/.pgpass",
            )
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        return parsed
    raise UsageError(
        "the database URL is not understood: expected sqlite:///path or postgresql://user@host/name",
        hint="export LOREG_DATABASE_URL=postgresql://user@host/loreg",
    )


def _open_postgresql(url: URL) -> Engine:
    engine = create_engine(url, connect_args=_connect_args(url), **_POSTGRESQL)
    return _refuse_unwritable_values(_limit_statements(_check_idle_connections(engine)))


def _connect_args(url: URL) -> dict[str, object]:
    """Return libpq's parameters beside the URL."""
    from psycopg import pq

    arguments: dict[str, object] = {"connect_timeout": 10}
    is_set = "require_auth" in url.query or "PGREQUIREAUTH" in os.environ
    if not is_set and pq.version() >= _REQUIRE_AUTH_SINCE:
        arguments["require_auth"] = _REQUIRE_AUTH
    return arguments


@contextlib.contextmanager
def write_connection(engine: Engine) -> Iterator[Connection]:
    """Open a connection that may write, in one transaction: committed at the end, rolled back on any error."""
    sqlite = engine.dialect.name == "sqlite"
    options: dict[str, object] = {"loreg_writes": True} if sqlite else {"isolation_level": "READ COMMITTED"}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


@contextlib.contextmanager
def read_connection(engine: Engine) -> Iterator[Connection]:
    """Open a connection that only reads. Raises UnavailableError if SQLite's file changed while it was read."""
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


@contextlib.contextmanager
def snapshot_connection(engine: Engine) -> Iterator[Connection]:
    """Open a connection that only reads, and sees everything as it is at its first statement, however long it reads."""
    if engine.dialect.name == "sqlite":
        with read_connection(engine) as connection:
            yield connection
        return
    options: dict[str, object] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        disable_timeouts(connection)
        yield connection


def open_async(engine: Engine) -> AsyncEngine:
    """Create an engine for the same PostgreSQL whose statements an event loop awaits."""
    from sqlalchemy.ext.asyncio import create_async_engine

    async_engine = create_async_engine(engine.url, connect_args=_connect_args(engine.url), **_POSTGRESQL)
    log_statements(_refuse_unwritable_values(_limit_statements(_check_idle_connections(async_engine.sync_engine))))
    return async_engine


def _limit_statements(engine: Engine) -> Engine:
    """Limit how long a connection may work on one statement, and with what; and hold locks without working."""

    @event.listens_for(engine, "connect")
    def _limit(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute(_SET_LIMITS, (f"{LOCK_TIMEOUT}s", f"{_IDLE_TRANSACTION_TIMEOUT}s"))
        cursor.close()

    return engine


def disable_timeouts(connection: Connection) -> None:
    """Remove the time limits of this transaction: a migration of a large catalog is one statement."""
    for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(text(f"SET LOCAL {name} = 0"))


def _check_idle_connections(engine: Engine) -> Engine:
    """Test a connection that was idle before it is used; the pool replaces one that has died."""

    @event.listens_for(engine, "checkin")
    def _on_checkin(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _on_checkout(connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
        if time.monotonic() - record.info.get("idle_since", math.inf) > _IDLE_SECONDS:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                raise DisconnectionError from error

    return engine


def _refuse_unwritable_values(engine: Engine) -> Engine:
    """Raise DataError for a value that the driver cannot write: SQLAlchemy lets the driver's own error through."""

    @event.listens_for(engine, "handle_error")
    def _on_error(context: ExceptionContext) -> None:
        error = context.original_exception
        if isinstance(error, UnicodeEncodeError | OverflowError):
            raise DataError(context.statement, None, error) from error

    return engine


@contextlib.contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Translate the database's errors: each becomes one line, without the statement and without a password."""
    try:
        yield
    except DBAPIError as error:
        raise _translate(error, mask_url(url), _reason(error, url)) from error
    except PoolTimeout as error:
        raise UnavailableError(
            f"the catalog {mask_url(url)} has more to do than it can",
            hint="try again",
            outside="the catalog has more to do than it can",
        ) from error


def _reason(error: DBAPIError, url: str) -> str:
    """Return the driver's message without the passwords of the URL, which libpq may quote."""
    reason = " ".join(str(error.orig).split())[:300]
    parsed = parse_url(url)
    secrets = {parsed.password, *(value for key, value in parsed.query.items() if "password" in key or "secret" in key)}
    for secret in secrets:
        if secret:
            reason = reason.replace(str(secret), "***")
    return reason


def _translate(error: DBAPIError, url: str, reason: str) -> LoregError:
    sqlstate = getattr(error.orig, "sqlstate", "")
    if isinstance(error, IntegrityError) or sqlstate in SERIALIZATION_ERRORS:
        conflict = "someone else changed the catalog at the same moment"
        return ConflictError(f"{conflict}: {reason}", hint="try again", outside=conflict)
    if sqlstate == _QUERY_CANCELED:
        too_long = f"took over {LOCK_TIMEOUT} s for one question and gave it up"
        return UnavailableError(
            f"the catalog {url} {too_long}", hint="try again, or ask for less", outside=f"the catalog {too_long}"
        )
    if "readonly database" in reason or "permission denied" in reason:
        return NotAllowedError(
            f"the catalog {url} may not be written: {reason}",
            hint="ask for write permission, or set LOREG_HOME",
            outside="the catalog may not be written",
        )
    if "no such module: fts5" in reason:
        return UnavailableError(
            f"the SQLite of this Python has no FTS5, the full text that the catalog {url} is searched by",
            hint="use a Python whose sqlite3 has it, as those of python.org, Debian and conda have; or PostgreSQL",
            outside=_OUTSIDE,
        )
    if sqlstate in _NO_SUCH_TABLE or "no such table" in reason:
        return UnavailableError(
            f"the catalog {url} lacks what its schema has: {reason}", hint="loreg doctor", outside=_OUTSIDE
        )
    if "authentication method requirement" in reason:
        return UnavailableError(
            f"the catalog {url} asks to be shown the password, which may be heard on the way: {reason}",
            hint="SCRAM on that server; or add ?require_auth=password (or md5) to the database URL",
            outside=_OUTSIDE,
        )
    if isinstance(error, DataError):  # NUL in a text, a number that is too large: a retry will not help
        return UsageError(
            f"the catalog cannot hold that: {reason}",
            hint="leave out what is no text or number",
            outside="the catalog cannot hold that",
        )
    if isinstance(error, OperationalError):
        return UnavailableError(f"the catalog {url} does not answer: {reason}", hint="loreg doctor", outside=_OUTSIDE)
    return UnavailableError(f"the catalog {url} failed: {reason}", hint="loreg doctor", outside="the catalog failed")
