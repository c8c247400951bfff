"""Wait for notifications of the database, so that a worker hears of a new job at once: PostgreSQL's LISTEN."""

from __future__ import annotations

import contextlib
import select
import threading
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError


class NotificationListener:
    """Waits for notifications on ``channel``; with a database that sends none, or cannot be reached, for a time.

    The caller looks for work after each wait, notified or not: a lost notification costs time, nothing else.
    """

    def __init__(self, engine: Engine, channel: str) -> None:
        self._engine, self._channel = engine, channel
        self._connection: Any = None
        self._never = threading.Event()

    def wait(self, seconds: float, without: float) -> None:
        """Wait for a notification, at most ``seconds``; where none can come, wait ``without`` seconds.

        The first call returns as soon as it listens, because what was written before was not heard.
        """
        if self._engine.dialect.name != "postgresql":
            self._never.wait(without)
            return
        try:
            if self._connection is None:
                self._connection = self._listen()
                return
            self._receive(seconds)
        except (OSError, SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error):
            self.close()
            self._never.wait(without)

    def close(self) -> None:
        """Close the connection; the next wait opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(self._engine.dialect.loaded_dbapi.Error):
                connection.close()

    def _listen(self) -> Any:
        """Open a connection outside the pool, on which each statement is a transaction, and LISTEN on it."""
        pooled = self._engine.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()
        connection.autocommit = True
        connection.execute(f"LISTEN {self._channel}")
        return connection

    def _receive(self, seconds: float) -> None:
        select.select([self._connection.fileno()], [], [], seconds)
        self._connection.pgconn.consume_input()
        while self._connection.pgconn.notifies() is not None:
            pass
