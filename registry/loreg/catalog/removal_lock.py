"""Hold off collectors while a backup copies what a snapshot refers to. Many may hold them off at once.

Who forgets snapshots of a backup holds the lock alone: no backup is made meanwhile, to whatever place.

The lock ends with whoever holds it, killed or not: on PostgreSQL it is an advisory lock of a connection, beside SQLite
a lock on the file ``<catalog>-removals``. A collector looks at it before each claim, and then claims nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from sqlalchemy import BigInteger, Engine, func, literal, select
from sqlalchemy.exc import SQLAlchemyError

from loreg.catalog.engine import translate_errors
from loreg.catalog.transaction import Transaction
from loreg.errors import explain_os_errors
from loreg.file_locks import lock_file, lock_file_shared, pause
from loreg.file_modes import make_file


class SessionLock(msgspec.Struct, frozen=True):
    """A lock that ends with whoever holds it: the key of PostgreSQL's advisory lock, and the end of a file's name."""

    key: int
    suffix: str


_REMOVALS = SessionLock(0x6B656570, "-removals")
#: Who runs a probe over many versions holds this one alone.
MAPS = SessionLock(0x6D617073, "-maps")


@contextlib.contextmanager
def hold_off(
    engine: Engine,
    url: str,
    lock: SessionLock = _REMOVALS,
    *,
    alone: bool = False,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[Callable[[], None]]:
    """Let nothing be claimed while the context is open, and with ``alone`` nobody else be in such a context.

    With another ``lock`` than that of removals nobody else is in a context of that one.

    Yields a function to call now and then: it keeps the connection alive, and raises UnavailableError if it was lost,
    and the lock with it. ``on_wait`` is called again and again until the lock is held; what it raises ends the waiting.
    """
    if engine.dialect.name == "sqlite":
        with _hold_file(engine, lock, on_wait, alone=alone):
            yield lambda: None
        return
    with translate_errors(url), engine.connect() as connection:
        take = func.pg_try_advisory_lock if alone else func.pg_try_advisory_lock_shared
        while not connection.execute(select(take(literal(lock.key, BigInteger)))).scalar_one():
            on_wait()
            pause()

        def heartbeat() -> None:
            with translate_errors(url):
                connection.execute(select(1))

        try:
            yield heartbeat
        finally:
            with contextlib.suppress(SQLAlchemyError):  # at once: that a connection was closed PostgreSQL sees later
                connection.execute(select(func.pg_advisory_unlock_all()))
            connection.invalidate()  # closing it ends the lock, also after an error


def is_held(tx: Transaction) -> bool:
    """Whether anybody holds collectors off; if not, nobody does before this transaction ends."""
    if tx.connection.dialect.name == "postgresql":
        take = select(func.pg_try_advisory_xact_lock(literal(_REMOVALS.key, BigInteger)))
        return not tx.connection.execute(take).scalar_one()
    # That the lock is let go at once does no harm: a snapshot that begins before this transaction is committed refers
    # to what was referred to when it began, and of that nothing is claimed.
    path = _file_of(tx.connection.engine, _REMOVALS)
    if path is None or not path.exists():
        return False
    with explain_os_errors(path, "loreg doctor"), path.open("rb") as file:
        return not lock_file(file.fileno())


@contextlib.contextmanager
def _hold_file(engine: Engine, lock: SessionLock, on_wait: Callable[[], None], *, alone: bool) -> Iterator[None]:
    path = _file_of(engine, lock)
    if path is None:
        yield
        return
    with explain_os_errors(path, "export LOREG_HOME=… to a folder you may write"):
        make_file(path)
        descriptor = os.open(path, os.O_RDONLY)
    try:
        while not (lock_file if alone else lock_file_shared)(descriptor):
            on_wait()
            pause()
        yield
    finally:
        os.close(descriptor)


def _file_of(engine: Engine, lock: SessionLock) -> Path | None:
    """Return the file that is locked beside a SQLite database; None for one in memory."""
    database = engine.url.database
    return Path(f"{os.path.realpath(database)}{lock.suffix}") if database and database != ":memory:" else None
