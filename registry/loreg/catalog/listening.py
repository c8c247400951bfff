"""Hearing at once that something was written, where the database tells: PostgreSQL's LISTEN."""

from __future__ import annotations

import contextlib
import select
import threading
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError


class NotificationListener:
    """Waits for a notification on ``channel``; with a database that sends none, and while it is away, just waits.

    Whoever waits looks again after each waiting, whether it rang or not: a lost notification costs time, nothing else.
    """

    def __init__(self, engine: Engine, channel: str) -> None:
        self._engine, self._channel = engine, channel
        self._connection: Any = None
        self._silence = threading.Event()  # is never set

    def wait(self, seconds: float, without: float) -> None:
        """Wait until it rings, at most so long; ``without`` a bell, that long.

        Returns at once when it has begun to listen: what was written before was not heard.
        """
        if self._engine.dialect.name != "postgresql":
            self._silence.wait(without)
            return
        try:
            if self._connection is None:
                self._connection = self._listen()
                return
            self._hear(seconds)
        except (OSError, SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error):
            self.close()
            self._silence.wait(without)

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(self._engine.dialect.loaded_dbapi.Error):
                connection.close()

    def _listen(self) -> Any:
        """A connection of its own, out of the pool: each statement on it is a transaction."""
        pooled = self._engine.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()
        connection.autocommit = True
        connection.execute(f"LISTEN {self._channel}")
        return connection

    def _hear(self, seconds: float) -> None:
        select.select([self._connection.fileno()], [], [], seconds)
        self._connection.pgconn.consume_input()
        while self._connection.pgconn.notifies() is not None:
            pass
