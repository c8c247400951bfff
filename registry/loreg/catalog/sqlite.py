"""SQLite as a catalog: open it with a write-ahead log, or only to read, which changes nothing beside the database."""

from __future__ import annotations

import os
import shlex
import sqlite3
import stat
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import msgspec
from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from loreg.errors import NotAllowedError, UnavailableError, explain_os_errors
from loreg.file_modes import HAS_OWNERS, make_file, make_folder

LOCK_TIMEOUT = 30  # seconds to wait for a lock of SQLite
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510  # sqlite3/os.h: the bytes that every connection locks for reading
_HINT_HOME = "export LOREG_HOME=… to a folder you may write"
_WAL_FORMAT = b"\x02"  # the file format's byte 18

#: Descriptors of databases that are only read, by device and inode. None is ever closed: that would drop the locks
#: of every connection that this process has to the same file (fcntl(2)).
_descriptors: dict[tuple[int, int], int] = {}


class _ReadOnly(msgspec.Struct, frozen=True):
    """Why a database must not be written by this process, and what would let it."""

    reason: str
    hint: str


class _Options(TypedDict, total=False):
    """What SQLAlchemy hands to :func:`sqlite3.connect` beside the path."""

    timeout: float
    check_same_thread: bool


class ReadOnlyConnection(sqlite3.Connection):
    """A connection of a process that may only read the database, with the reason why."""

    path: Path
    why: _ReadOnly
    #: Size and time of change of the file when it was opened without -wal and -shm; None if SQLite sees changes itself.
    opened_as: tuple[int, int] | None = None

    def is_outdated(self) -> bool:
        """Whether another process has written the database since, so that it must be opened again."""
        return self.opened_as is not None and (self.is_torn() or _has_content(_sibling(self.path, "-wal")))

    def is_torn(self) -> bool:
        """Whether the file itself has changed since, so that what was just read may be partly old and partly new."""
        return self.opened_as is not None and self.opened_as != _state(self.path)


def open_sqlite(url: URL) -> Engine:
    """Create the engine, and the folder of the database if it is missing. Raises NotAllowedError."""
    path: Path | None = None
    if url.database and url.database != ":memory:" and not url.query:
        path = Path(os.path.realpath(url.database))  # -wal and -shm lie beside the file itself, not beside a link to it
        url = url.set(database=str(path))
        _make_folder_of(path)
    engine = create_engine(url, connect_args={"timeout": LOCK_TIMEOUT}, paramstyle="named")

    @event.listens_for(engine, "do_connect")
    def _connect(
        dialect: Dialect, record: ConnectionPoolEntry | None, arguments: list[object], options: _Options
    ) -> ReadOnlyConnection | None:
        if path is None:
            return None
        with explain_os_errors(path, _HINT_HOME):
            return _connect_to_read(path, options)

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # sqlite3 must not begin transactions by itself: see _begin
        cursor = connection.cursor()
        # FULL: what was committed is on the disk. With NORMAL -wal loses its end with the power.
        for pragma in ("foreign_keys=ON", "synchronous=FULL", f"busy_timeout={1000 * LOCK_TIMEOUT}"):
            cursor.execute(f"PRAGMA {pragma}")
        if not isinstance(connection, ReadOnlyConnection):
            _wait_while_busy(lambda: cursor.execute("PRAGMA journal_mode=WAL"))
        cursor.close()

    @event.listens_for(engine, "checkout")
    def _renew(connection: sqlite3.Connection, record: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
        if isinstance(connection, ReadOnlyConnection) and connection.is_outdated():
            raise DisconnectionError  # the pool connects again

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes the lock when it begins: one that reads first and then writes could be refused at once.
        writes = connection.get_execution_options().get("loreg_writes")
        if writes and (reader := as_reader(connection)) is not None:
            raise NotAllowedError(
                f"the catalog {reader.path} may not be written: {reader.why.reason}", hint=reader.why.hint
            )
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    @event.listens_for(engine, "handle_error")
    def _release_lock(context: ExceptionContext) -> None:
        # Cut off before the answer had come, the connection is closed, and SQLite keeps the lock of one that is closed
        # until the last cursor of it is forgotten.
        if context.connection is not None and not isinstance(context.original_exception, Exception):
            driver: Any = context.connection.connection.driver_connection
            driver.rollback()

    return engine


def as_reader(connection: Connection) -> ReadOnlyConnection | None:
    """Return the driver's connection if it may only read, else None."""
    driver = connection.connection.dbapi_connection
    return driver if isinstance(driver, ReadOnlyConnection) else None


def is_read_only(engine: Engine) -> bool:
    """Whether the database may only be read."""
    with engine.connect() as connection:
        return as_reader(connection) is not None


def refuse_torn(connection: Connection) -> None:
    """Raise UnavailableError if the file changed while a connection read it that SQLite cannot protect from that."""
    reader = as_reader(connection)
    if reader is not None and reader.is_torn():
        raise UnavailableError(f"the catalog {reader.path} was written while it was read", hint="try again")


def _make_folder_of(path: Path) -> None:
    try:
        make_folder(path.parent)
    except OSError as error:
        raise NotAllowedError(
            f"cannot make the catalog's folder {path.parent}: {error.strerror}", hint=_HINT_HOME
        ) from error


def _connect_to_read(path: Path, options: _Options) -> ReadOnlyConnection | None:
    """Connect to a database that may only be read; return None for one that may be written, and create its files."""
    if not path.exists():
        make_file(path)
    files = (path, _sibling(path, "-wal"), _sibling(path, "-shm"))
    if denied := next(filter(None, (_why_denied(file, os.R_OK) for file in files)), ""):
        raise NotAllowedError(f"the catalog may not be read: {denied}", hint=_how_to_share(path))
    why = _why_only_read(files)
    if why is not None:
        reader = _open_to_read(path, options)
        reader.path, reader.why = path, why
        return reader
    if HAS_OWNERS and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        for file in files[1:]:  # SQLite would make them with this process's umask, and mend that a moment later
            if not file.exists():
                make_file(file)
    return None


def _why_only_read(files: Sequence[Path]) -> _ReadOnly | None:
    """Return why the database, the first of ``files``, may be read but not written; None if it may be written."""
    path = files[0]
    if HAS_OWNERS and os.statvfs(path).f_flag & os.ST_RDONLY:
        return _ReadOnly("its file system is read-only", _HINT_HOME)
    refusals = (*(_why_denied(file, os.W_OK) for file in files), _why_denied(path.parent, os.W_OK | os.X_OK))
    if denied := next(filter(None, refusals), ""):
        return _ReadOnly(denied, _how_to_share(path))
    if not _owner_could_use_what_is_made_beside(path):
        return _ReadOnly(f"{_owner(path)} could not use what would be made beside it", _how_to_share(path))
    return None


def _why_denied(path: Path, access: int) -> str:
    """Return why this process has no such access to the file; empty if it has, or if the file is gone."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return ""
    if os.access(path, access) or not path.exists():
        return ""
    return f"{path} belongs to {_name_of(status.st_uid)} and has mode {stat.S_IMODE(status.st_mode):04o}"


def _owner_could_use_what_is_made_beside(path: Path) -> bool:
    """Whether the owner of the database could use -wal and -shm, if this process created them with its permissions.

    Root gives them to the database's owner (SQLite's findCreateFileMode).
    """
    if not HAS_OWNERS:
        return True
    database, folder = path.stat(), path.parent.stat()
    if os.geteuid() in (0, database.st_uid) or database.st_mode & stat.S_IWOTH:
        return True
    return database.st_gid == (folder.st_gid if folder.st_mode & stat.S_ISGID else os.getegid())


def _open_to_read(path: Path, options: _Options) -> ReadOnlyConnection:
    """Connect so that no file is created beside the database.

    With -wal and -shm SQLite reads as always, and sees what is written meanwhile. Without them it would create them,
    and they would be the reader's: then the file alone is read (``immutable``). It is complete, because the process
    that closes a database last moves all of -wal into it; and it stays so, because the lock for reading prevents that
    from happening again, except by a writer who writes a thousand pages at once: see ``refuse_torn``.
    """
    descriptor = _descriptor_of(path)
    uri = path.absolute().as_uri()
    wal = _sibling(path, "-wal")
    has_wal_format = os.pread(descriptor, 1, 18) == _WAL_FORMAT
    if has_wal_format:
        _wait_while_busy(lambda: _lock_for_reading(descriptor))
    if not has_wal_format or (wal.exists() and _sibling(path, "-shm").exists()):
        return sqlite3.connect(f"{uri}?mode=ro", uri=True, factory=ReadOnlyConnection, **options)
    if _has_content(wal):
        raise UnavailableError(
            f"the catalog {path} was not closed, and can be read only by who may write it: its -wal has no -shm",
            hint=f"as {_owner(path)}: loreg ls",
        )
    reader = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, factory=ReadOnlyConnection, **options)
    reader.path, reader.opened_as = path, _state(path)
    return reader


def _descriptor_of(path: Path) -> int:
    status = path.stat()
    key = (status.st_dev, status.st_ino)
    if key not in _descriptors:
        _descriptors[key] = os.open(path, os.O_RDONLY)
    return _descriptors[key]


def _lock_for_reading(descriptor: int) -> None:
    """Lock what SQLite locks for reading, until this process ends.

    The lock belongs to the open file description, SQLite's own to the process: neither releases the other. Only Linux
    has such locks; elsewhere a change while it is read is found afterwards (``refuse_torn``).
    """
    if sys.platform != "linux":
        return
    try:
        import fcntl
    except ImportError:
        return
    lock = struct.pack("hhqqi0q", fcntl.F_RDLCK, os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)


def _wait_while_busy(call: Callable[[], object]) -> None:
    """Call again while the database is locked: for what SQLite refuses at once, whatever its busy_timeout.

    Two processes that open a new database at once refuse each other WAL; the one that closes it last locks it briefly.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            call()
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(0.01)


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _sibling(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _owner(path: Path) -> str:
    return _name_of(path.stat().st_uid)


def _name_of(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"user {uid}"


def _how_to_share(path: Path) -> str:
    """Return the commands after which a group can work in the folder of the database."""
    folder = shlex.quote(str(path.parent))
    return f"chgrp -R GROUP {folder} && chmod -R g+rwX {folder} && find {folder} -type d -exec chmod g+s {{}} +"
