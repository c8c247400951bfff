"""Wait for notifications of the database, so that a worker hears of a new job at once: PostgreSQL's LISTEN."""

from __future__ import annotations

import contextlib
import select
import threading
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from psycopg import Connection

    PostgresConnection = Connection[tuple[object, ...]]


class NotificationListener:
    """Waits for notifications on ``channel``; with a database that sends none, or cannot be reached, for a time.

    The caller looks for work after each wait, notified or not: a lost notification costs time, nothing else.
    """

    def __init__(self, engine: Engine, channel: str) -> None:
        self._engine, self._channel = engine, channel
        self._connection: PostgresConnection | None = None
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
            self._receive(self._connection, seconds)
        except (OSError, SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error):
            self.close()
            self._never.wait(without)

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
    def _receive(connection: PostgresConnection, seconds: float) -> None:
        select.select([connection.fileno()], [], [], seconds)
        connection.pgconn.consume_input()
        while connection.pgconn.notifies() is not None:
            pass
