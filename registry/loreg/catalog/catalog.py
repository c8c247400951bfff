"""The catalog: open a database, bring its schema up to date, and begin transactions on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, Unpack

from sqlalchemy import Engine, select, text
from sqlalchemy.util.concurrency import greenlet_spawn, in_greenlet

from loreg.catalog import admission, blobs, dump, event_feed, migrations, removal_lock
from loreg.catalog.engine import (
    disable_timeouts,
    open_async,
    open_engine,
    read_connection,
    snapshot_connection,
    translate_errors,
    write_connection,
)
from loreg.catalog.listening import ChangeListener, FileListener, NotificationListener
from loreg.catalog.schema import registry_table
from loreg.catalog.transaction import Transaction
from loreg.entities import Access, UpkeepAction
from loreg.errors import IntegrityError, UnavailableError
from loreg.settings import mask_url

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

A = TypeVarTuple("A")
T = TypeVar("T")
_EVERYTHING = Access.superuser("")


class Catalog:
    """A database of adapters. Connects on first use; several processes may share one database."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine = open_engine(url)
        self._async_engine: AsyncEngine | None = None
        self._ready = False
        self._registry_id = ""

    @property
    def url(self) -> str:
        """Return the database's URL, its password masked."""
        return mask_url(self._url)

    @contextlib.contextmanager
    def read(self, access: Access = _EVERYTHING) -> Iterator[Transaction]:
        """Open a transaction that only reads, and finds only what ``access`` may read."""
        with self._transaction(access, writes=False) as transaction:
            yield transaction

    @contextlib.contextmanager
    def write(self, access: Access) -> Iterator[Transaction]:
        """Open a transaction that writes: committed at the end, rolled back on any error.

        Raises UnauthenticatedError if ``access`` is of a token that is revoked or has expired, ConflictError if the
        registry has moved.
        """
        with self._transaction(access, writes=True) as transaction:
            admission.admit(transaction)
            yield transaction

    @contextlib.contextmanager
    def read_snapshot(self) -> Iterator[Transaction]:
        """Open a transaction that only reads, and sees everything as it is at its first statement."""
        with translate_errors(self._url):
            self._require_current(self._engine)
            with snapshot_connection(self._engine) as connection:
                yield Transaction(connection, _EVERYTHING, datetime.now(UTC))

    def hold_removals(
        self, *, alone: bool = False, on_wait: Callable[[], None] = lambda: None
    ) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Let no collector remove blobs while the context is open; see :mod:`loreg.catalog.removal_lock`."""
        return removal_lock.hold_off(self._engine, self._url, alone=alone, on_wait=on_wait)

    def hold_maps(self, on_wait: Callable[[], None]) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Let nobody else run a probe over many versions while the context is open; ``on_wait`` as for removals."""
        return removal_lock.hold_off(self._engine, self._url, removal_lock.MAPS, alone=True, on_wait=on_wait)

    def refuse_content(self) -> None:
        """Raise ConflictError unless the registry is empty; a database without a schema gets it."""
        with translate_errors(self._url):
            migrations.upgrade(self._engine)
            with read_connection(self._engine) as connection:
                dump.refuse_content(connection)

    def load(self, path: Path, counts: Mapping[str, int], event: Callable[[Transaction], None]) -> None:
        """Load the file that :func:`loreg.catalog.dump.write` wrote, and bring it up to date, in one transaction.

        ``counts`` are the rows that each table must then have had; ``event`` logs in the same transaction what was
        done. Raises ConflictError unless the registry is empty, IntegrityError for another file.
        """
        with translate_errors(self._url), write_connection(self._engine) as connection:
            if connection.dialect.name == "postgresql":
                disable_timeouts(connection)
            dump.lock_registry(connection)
            if loaded := dump.count_differences(dump.load(connection, path), counts):
                raise IntegrityError(f"the dump of the catalog has other rows than are told: {', '.join(loaded)}")
            migrations.change_to(connection, migrations.HEAD)
            event(Transaction(connection, _EVERYTHING, datetime.now(UTC)))
        self._ready, self._registry_id = False, ""

    def set_moved_to(self, access: Access, place: str, **detail: object) -> None:
        """Record where the registry moved, with an event; from then on nothing is written. Empty: it did not."""
        with self._transaction(access, writes=True) as transaction:
            admission.set_moved_to(transaction, place)
            transaction.log(UpkeepAction.MOVE, None, None, **detail)

    def moved_to(self) -> str:
        """Return where the registry moved; empty if it did not."""
        with self.read() as tx:
            return admission.moved_to(tx)

    def use_event_loop(self) -> None:
        """Let :meth:`run_async` await PostgreSQL. Call this before threads use the catalog.

        What it imports changes SQLAlchemy: a thread that makes a statement meanwhile finds half of it.
        """
        if self._engine.dialect.name == "postgresql":
            self._async_engine = open_async(self._engine)

    async def run_async(self, call: Callable[[Unpack[A]], T], *arguments: *A) -> T:
        """Return what ``call`` returns, which uses this catalog and waits for nothing else; the event loop runs on.

        PostgreSQL is awaited by the loop itself, after :meth:`use_event_loop`: handing the interpreter to a thread
        and back costs more than most queries do. SQLite cannot be awaited: ``call`` runs in a thread. Only one event
        loop may call this.
        """
        if self._async_engine is None:
            return await asyncio.to_thread(call, *arguments)
        return await greenlet_spawn(call, *arguments)

    def upgrade(self) -> tuple[str | None, str]:
        """Bring the schema up to date; return the revisions before and after."""
        with translate_errors(self._url):
            before = migrations.current(self._engine)
            migrations.upgrade(self._engine)
            return before, migrations.HEAD

    def exists(self) -> bool:
        """Whether the database exists: one in SQLite is created on first use."""
        path = self._engine.url.database if self._engine.dialect.name == "sqlite" else None
        return path is None or Path(path).exists()

    def is_empty(self) -> bool:
        """Whether no blob was ever stored for this catalog."""
        with self.read() as tx:
            return not blobs.any_exist(tx)

    @property
    def registry_id(self) -> str:
        """Return the id of the registry, which never changes: it is read once."""
        if not self._registry_id:
            with self.read() as tx:
                self._registry_id = tx.connection.execute(select(registry_table.c.id)).scalar_one()
        return self._registry_id

    def describe(self) -> str:
        """Return the versions of database and schema. Raises UnavailableError, also if a table or column is missing."""
        with self.read() as tx:
            if lacks := migrations.missing_tables(tx.connection):
                raise UnavailableError(
                    f"the catalog {self.url} lacks {', '.join(lacks)}, which its schema has",
                    hint="restore it from a backup",
                    outside="the catalog is damaged",
                )
            sqlite = tx.connection.dialect.name == "sqlite"
            version = tx.connection.execute(
                text("SELECT sqlite_version()" if sqlite else "SHOW server_version")
            ).scalar()
            return f"{'SQLite' if sqlite else 'PostgreSQL'} {version}, schema {migrations.HEAD}"

    def listen(self, channel: str) -> NotificationListener:
        """Return a listener for the notifications that committed transactions send on ``channel``."""
        return NotificationListener(self._engine, channel)

    def listen_for_events(self) -> ChangeListener:
        """Return a listener for new events: told by PostgreSQL, or seen by the change of SQLite's files."""
        path = self._engine.url.database
        if self._engine.dialect.name == "sqlite" and path:
            return FileListener(os.path.realpath(path))
        return NotificationListener(self._engine, event_feed.CHANNEL)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    async def aclose(self) -> None:
        """Close every connection, those of the event loop too."""
        if self._async_engine is not None:
            await self._async_engine.dispose()
        self.close()

    @contextlib.contextmanager
    def _transaction(self, access: Access, *, writes: bool) -> Iterator[Transaction]:
        with translate_errors(self._url):
            engine = (
                self._async_engine.sync_engine if self._async_engine is not None and in_greenlet() else self._engine
            )
            self._require_current(engine)
            with (write_connection if writes else read_connection)(engine) as connection:
                yield Transaction(connection, access, datetime.now(UTC))

    def _require_current(self, engine: Engine) -> None:
        if not self._ready:
            migrations.require_current(engine, self.url)
            self._ready = True
