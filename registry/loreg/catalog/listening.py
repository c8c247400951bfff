"""Wait until the database changes, without asking it again and again: PostgreSQL's LISTEN, SQLite's files."""

from __future__ import annotations

import contextlib
import select
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from psycopg import Connection

    PostgresConnection = Connection[tuple[object, ...]]


_LOOK_INTERVAL = 0.1  # seconds between two looks at the files of a SQLite database


class ChangeListener(Protocol):
    """Waits until something may have changed; the first call returns as soon as no change can be missed any more."""

    def wait(self, seconds: float, without: float) -> bool:
        """Wait for a change, at most ``seconds``, and return whether there may have been one.

        Where none can be heard of, wait ``without`` seconds.
        """
        ...

    def close(self) -> None:
        """Let go of what it listens with; the next wait begins anew."""
        ...


class FileListener:
    """Waits for the files of a SQLite database to change: each commit writes to ``-wal``, or to the file itself."""

    def __init__(self, path: str) -> None:
        self._paths = (Path(path), Path(f"{path}-wal"))
        self._seen: list[tuple[int, int, int]] | None = None

    def wait(self, seconds: float, without: float) -> bool:
        """Wait until a file has changed since the last call, at most ``seconds``; the first call returns at once."""
        deadline = time.monotonic() + seconds
        while (now := self._stamps()) == self._seen and (remaining := deadline - time.monotonic()) > 0:
            time.sleep(min(_LOOK_INTERVAL, remaining))
        has_changed, self._seen = now != self._seen, now
        return has_changed

    def close(self) -> None:
        """Forget how the files were."""
        self._seen = None

    def _stamps(self) -> list[tuple[int, int, int]]:
        stamps = []
        for path in self._paths:
            with contextlib.suppress(OSError):
                status = path.stat()
                stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return stamps


class NotificationListener:
    """Waits for notifications on ``channel``; with a database that sends none, or cannot be reached, for a time.

    The caller looks for work after each wait, notified or not: a lost notification costs time, nothing else.
    """

    def __init__(self, engine: Engine, channel: str) -> None:
        self._engine, self._channel = engine, channel
        self._connection: PostgresConnection | None = None
        self._never = threading.Event()

    def wait(self, seconds: float, without: float) -> bool:
        """Wait for a notification, at most ``seconds``; where none can come, wait ``without`` seconds.

        Returns whether there may have been one. The first call returns as soon as it listens, because what was written
        before was not heard.
        """
        if self._engine.dialect.name != "postgresql":
            self._never.wait(without)
            return True
        try:
            if self._connection is not None:
                return self._receive(self._connection, seconds)
            self._connection = self._listen()
        except (OSError, SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error):
            self.close()
            self._never.wait(without)
        return True

    def close(self) -> None:
        """Close the connection; the next wait opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(self._engine.dialect.loaded_dbapi.Error):
                connection.close()

    def _listen(self) -> PostgresConnection:
        """Open a connection outside the pool, on which each statement is a transaction, and LISTEN on it."""
        pooled = self._engine.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()
        connection.autocommit = True
        connection.execute(f"LISTEN {self._channel}")
        listening: PostgresConnection = connection
        return listening

    @staticmethod
    def _receive(connection: PostgresConnection, seconds: float) -> bool:
        """Take all notifications that have come; return whether there are any."""
        select.select([connection.fileno()], [], [], seconds)
        connection.pgconn.consume_input()
        is_notified = False
        while connection.pgconn.notifies() is not None:
            is_notified = True
        return is_notified
