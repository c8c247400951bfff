"""The catalog: an engine whose schema is right, and transactions on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text

from loreg.catalog import migrations
from loreg.catalog.engine import explained, open_engine
from loreg.catalog.transaction import Transaction
from loreg.records import Access, everything
from loreg.settings import masked

_EVERYTHING = everything("")


class Catalog:
    """Where versions are recorded. Connects on first use; several processes may share one database."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine = open_engine(url)
        self._ready = False

    @property
    def url(self) -> str:
        """The database's URL, its password masked."""
        return masked(self._url)

    @contextlib.contextmanager
    def read(self, access: Access = _EVERYTHING) -> Iterator[Transaction]:
        """A transaction that only reads, and finds only what ``access`` may see."""
        with self._transaction(access, writes=False) as transaction:
            yield transaction

    @contextlib.contextmanager
    def write(self, access: Access) -> Iterator[Transaction]:
        """A transaction that writes: committed at the end, rolled back on any error."""
        with self._transaction(access, writes=True) as transaction:
            yield transaction

    def upgrade(self) -> tuple[str | None, str]:
        """Bring the schema up to date; returns the revisions before and after."""
        with explained(self._url):
            before = migrations.current(self._engine)
            migrations.upgrade(self._engine)
            return before, migrations.HEAD

    def is_there(self) -> bool:
        """Whether there is a catalog already: one in SQLite is made on first use."""
        path = self._engine.url.database if self._engine.dialect.name == "sqlite" else None
        return path is None or Path(path).exists()

    def describe(self) -> str:
        """The server's version and the schema's revision. Raises UnavailableError."""
        with self.read() as tx:
            sqlite = tx.connection.dialect.name == "sqlite"
            version = tx.connection.execute(
                text("SELECT sqlite_version()" if sqlite else "SHOW server_version")
            ).scalar()
            return f"{'SQLite' if sqlite else 'PostgreSQL'} {version}, schema {migrations.HEAD}"

    def close(self) -> None:
        """Give every connection back."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _transaction(self, access: Access, *, writes: bool) -> Iterator[Transaction]:
        with explained(self._url):
            if not self._ready:
                migrations.ensure(self._engine, self.url)
                self._ready = True
            with (
                self._engine.connect().execution_options(loreg_writes=writes) as connection,
                connection.begin(),
            ):
                yield Transaction(connection, access, datetime.now(UTC))
